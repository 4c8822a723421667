/*
 * token.h
 *		Fencing tokens: what makes each greater than all before it.
 */
#ifndef LOCKEXT_TOKEN_H
#define LOCKEXT_TOKEN_H

#include "postgres.h"

#include "store.h"

extern bool lockext_next_token(LockTable *table, const LockRow *old, TimestampTz now,
							   int64 *token);
extern int64 lockext_next_token_by_clock(TimestampTz now);
extern bool lockext_floor_raise(LockTable *table, int64 token);

#endif							/* LOCKEXT_TOKEN_H */
