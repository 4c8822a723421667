/*
 * expiry.h
 *		Removing rows that have been idle for long enough.
 */
#ifndef LOCKEXT_EXPIRY_H
#define LOCKEXT_EXPIRY_H

#include "postgres.h"

#include "shared.h"
#include "store.h"

extern void lockext_expiry_batch(LockTable *table, SweepState *scan, TimestampTz until);

#endif							/* LOCKEXT_EXPIRY_H */
