/*
 * refused.h
 *		Who held the locks that this session was refused.
 */
#ifndef LOCKEXT_REFUSED_H
#define LOCKEXT_REFUSED_H

#include "postgres.h"

#include "result.h"
#include "seen.h"

extern void lockext_refused_init(void);
extern bool lockext_refused_before(const SeenEntry *entry, Outcome *outcome);
extern void lockext_refused_remember(const SeenEntry *entry, Outcome *outcome);

#endif							/* LOCKEXT_REFUSED_H */
