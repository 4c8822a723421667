/*
 * waiters.h
 *		Who waits for which lock, and waking them.
 */
#ifndef LOCKEXT_WAITERS_H
#define LOCKEXT_WAITERS_H

#include "postgres.h"

#include "names.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

/* How a call waits. */
#define LOCKEXT_FORM_STATEMENT 's'	/* lock_acquire() */
#define LOCKEXT_FORM_CALL 'c'	/* CALL lock_acquire_wait() */

extern Size lockext_waiters_size(void);
extern void lockext_waiters_attach(void *memory, bool found, LWLock *lock);
extern void lockext_waiters_init(void);

extern bool lockext_nobody_waits(const LockName *name);
extern void lockext_waiter_begin(const LockName *name, char scope, char form);
extern void lockext_waiter_at_head(int holder_pid);
extern void lockext_waiter_end(void);
extern int	lockext_count_waiters(const LockName *name);
extern char *lockext_list_waiters(const LockName *name, int *holder_pid);

extern ConditionVariable *lockext_watch(const LockName *name);
extern void lockext_unwatch(void);
extern void lockext_announce(const LockName *name);
extern void lockext_announce_all(void);

#endif							/* LOCKEXT_WAITERS_H */
