/*
 * own.h
 *		The locks of this session that end with it or with its transaction.
 */
#ifndef LOCKEXT_OWN_H
#define LOCKEXT_OWN_H

#include "postgres.h"

#include "store.h"

extern void lockext_own_init(void);

/* scope "transaction" */
extern void lockext_hold(const LockName *name, const LockRow *row);
extern const LockRow *lockext_held_by_transaction(const LockName *name);
extern void lockext_for_each_hold(void (*visit) (const LockRow *row, void *arg), void *arg);
extern void lockext_hold_released(const LockName *name);

/* what may be this session's */
extern void lockext_lease_taken(const LockName *name);
extern bool lockext_is_claimed(const LockName *name, int64 token);

/* scope "session" */
extern int64 lockext_live_take(const LockName *name, int64 token);
extern void lockext_live_give_back(const LockName *name, int64 token);
extern bool lockext_live_can_leave_row(const LockName *name, int64 token);
extern void lockext_live_released(const LockName *name, int64 token, bool row_left);
extern bool lockext_live_is_released(const LockName *name, int64 token);
extern void lockext_live_sweep(LockTable *table);
extern bool lockext_session_holds(const LockRow *row);
extern bool lockext_row_holds(const LockRow *row, TimestampTz now);
extern bool lockext_row_is_mine(const LockName *name, const LockRow *row);

#endif							/* LOCKEXT_OWN_H */
