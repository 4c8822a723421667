/*
 * settings.h
 *		The lockext.* configuration parameters.
 */
#ifndef LOCKEXT_SETTINGS_H
#define LOCKEXT_SETTINGS_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern int	lockext_max_timeout;	/* s */
extern int	lockext_default_timeout;	/* s, -1 = never */
extern int	lockext_naptime;	/* ms */
extern int	lockext_retention;	/* s */
extern int	lockext_max_keys;
extern bool lockext_log_waits;
extern int	lockext_default_wait;	/* ms, -1 = without limit */
extern int	lockext_default_expiry; /* ms, -1 = never */
extern char *lockext_bypass_guards; /* why; "" = no */

extern bool lockext_domain_is_allowed(const text *domain);
extern void lockext_settings_init(void);
extern int64 lockext_idle_us(void);

#endif							/* LOCKEXT_SETTINGS_H */
