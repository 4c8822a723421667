/*
 * keylock.h
 *		The KEY lock: one transaction at a time changes a lock's row.
 */
#ifndef LOCKEXT_KEYLOCK_H
#define LOCKEXT_KEYLOCK_H

#include "postgres.h"

#include "names.h"
#include "sleep.h"

/* A KEY lock taken for the current operation. */
typedef struct KeyLock
{
	const LockName *name;
	LOCKMODE	mode;
	bool		counted;		/* it is new to this transaction */
} KeyLock;

/* A process or prepared transaction that holds a conflicting lock. */
typedef struct Blocker
{
	bool		found;
	bool		prepared;		/* then pid and roleid are not known */
	bool		holds;			/* it holds the lock, with scope "transaction" */
	int			pid;
	Oid			roleid;
} Blocker;

extern Size lockext_undecided_size(void);
extern void lockext_undecided_attach(void *memory, bool found);

extern bool lockext_lock(const LOCKTAG *tag, LOCKMODE mode, bool wait);
extern void lockext_unlock(const LOCKTAG *tag, LOCKMODE mode);

extern bool lockext_is_waited_for(const LockName *name, LOCKTAG *queue);
extern void lockext_wait_context(void *arg);
extern bool lockext_key_is_kept(const LockName *name);
extern bool lockext_key_is_guarded(const LockName *name);
extern bool lockext_key_fits(const LockName *name);
extern void lockext_key_must_fit(const LockName *name);
extern bool lockext_key_lock(KeyLock *key, const LockName *name, LOCKMODE mode, bool wait);
extern bool lockext_key_lock_to_look(KeyLock *key, const LockName *name, LOCKMODE mode);
extern void lockext_key_decided(void);
extern bool lockext_key_lock_once(KeyLock *key, const LockName *name, LOCKMODE mode);
extern bool lockext_key_lock_until(KeyLock *key, const LockName *name, LOCKMODE mode,
								   Patience *patience);
extern void lockext_key_give_back(KeyLock *key);
extern void lockext_find_blocker(const LOCKTAG *tag, LOCKMODE mode, Blocker *blocker);
extern bool lockext_wait_for_holder(const LOCKTAG *tag, LOCKMODE mode, Patience *patience,
									Moment until);
extern bool lockext_is_locked(const LOCKTAG *tag, LOCKMODE mode);
extern bool lockext_find_transaction_holder(const LOCKTAG *tag, Blocker *blocker);

#endif							/* LOCKEXT_KEYLOCK_H */
