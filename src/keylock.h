/*
 * keylock.h
 *		The KEY lock: one transaction at a time changes a lock's row.
 */
#ifndef LOCKEXT_KEYLOCK_H
#define LOCKEXT_KEYLOCK_H

#include "postgres.h"

#include "names.h"
#include "utils/jsonb.h"

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
	bool		prepared;		/* then the rest is not known */
	int			pid;
	Oid			roleid;
} Blocker;

extern bool lockext_key_lock(KeyLock *key, const LockName *name, LOCKMODE mode, bool wait);
extern bool lockext_key_lock_once(KeyLock *key, const LockName *name, LOCKMODE mode);
extern void lockext_key_give_back(KeyLock *key);
extern void lockext_find_blocker(const LOCKTAG *tag, LOCKMODE mode, Blocker *blocker);

#endif							/* LOCKEXT_KEYLOCK_H */
