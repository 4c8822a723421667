/*
 * xact.h
 *		What lockext remembers about the current transaction.
 */
#ifndef LOCKEXT_XACT_H
#define LOCKEXT_XACT_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern void lockext_xact_init(void);
extern int	lockext_xact_keys(void);
extern void lockext_xact_key_taken(void);
extern void lockext_xact_key_given_back(void);
extern void lockext_xact_durable(void);
extern void lockext_xact_wal_begin(void);
extern void lockext_xact_wal_is_minor(void);
extern void lockext_xact_due(TimestampTz idle_since);

#endif							/* LOCKEXT_XACT_H */
