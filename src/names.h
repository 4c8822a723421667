/*
 * names.h
 *		Lock names and lock tags.
 *
 * A lock is named by (domain, key).  The master slot of a domain is stored
 * under the empty key, which no lock with a key can have.
 *
 * Three advisory locks stand for a name:
 *	QUEUE	held by the waiter whose turn it is, waited for by the others; kept
 *			to the end of the transaction by a waiter that was granted the lock;
 *	KEY		kept to the end of the transaction by whoever changes the row, or
 *			holds the lock with scope "transaction"; taken for a moment by who
 *			finds that he must not;
 *	LIVE	one for each acquisition with scope "session", held by that session:
 *			whoever else can take it has proof that the session is gone.
 *
 * Lock order, for all of lockext:
 *	1. QUEUE; not by a transaction that keeps KEY;
 *	2. KEY;
 *	3. the lock table (a heavyweight relation lock);
 *	4. the primary key of the lock table;
 *	5. LWLocks of shared.c and waiters.c, and spinlocks of seen.c, under which nothing
 *	   else is taken.
 * A transaction that changes a second lock holds 3 already when it comes to 1
 * or 2; so does the worker.  The worker, and tries, take each of them only if it
 * is to be had at once; waiters, releases and renewals may wait, under deadlock
 * detection.  A look without KEY takes 3 and 4 at most and gives them back at once.
 * LIVE is waited for with QUEUE held, and with nothing else of the same name.
 *
 * Modes of KEY: guards RowShareLock, renewals ShareUpdateExclusiveLock (passes
 * guards, excludes other renewals), everything else that changes the row
 * ExclusiveLock, holders with scope "transaction" AccessExclusiveLock.
 */
#ifndef LOCKEXT_NAMES_H
#define LOCKEXT_NAMES_H

#include "postgres.h"

#include "compat.h"
#include "storage/lock.h"

/*
 * The fourth field of our advisory lock tags, visible as objsubid in pg_locks.
 * SQL-level advisory locks use 1 and 2.  Can be set at build time, so that a
 * test can show what happens without exclusion.
 */
#ifndef LOCKEXT_KEY_CLASS
#define LOCKEXT_KEY_CLASS 27755
#endif

#define LOCKEXT_QUEUE_CLASS 27757
#define LOCKEXT_LIVE_CLASS 27759

#define LOCKEXT_MAX_KEY_BYTES 255
#define LOCKEXT_MAX_DOMAIN_BYTES 255

/* No name a user can give is this long: see lockext_floor_name(). */
#define LOCKEXT_FLOOR_KEY_BYTES (LOCKEXT_MAX_KEY_BYTES + 1)

#define LOCKEXT_KEY_GUARD RowShareLock
#define LOCKEXT_KEY_RENEW ShareUpdateExclusiveLock
#define LOCKEXT_KEY_CHANGE ExclusiveLock
#define LOCKEXT_KEY_HOLD AccessExclusiveLock

typedef struct LockName
{
	text	   *domain;
	text	   *key;			/* empty for the master slot */
	LOCKTAG		tag;			/* of the KEY lock */
} LockName;

extern void lockext_name_set(LockName *name, text *domain, text *key);
extern void lockext_name_copy(LockName *name, const LockName *from);
extern uint32 lockext_name_hash(const LockName *name);
extern void lockext_queue_tag(LOCKTAG *tag, const LockName *name);
extern void lockext_live_tag(LOCKTAG *tag, const LockName *name, int64 token);
extern bool lockext_name_is_master(const LockName *name);
extern bool lockext_name_equals(const LockName *name, const text *domain, const text *key);
extern char *lockext_clip(const text *t);
extern char *lockext_name_display(const LockName *name);
extern void lockext_floor_name(LockName *name);
extern bool lockext_is_floor_key(const text *key);
extern void lockext_relation_tag(LOCKTAG *tag, Oid relid);
extern void lockext_database_tag(LOCKTAG *tag, Oid dboid);

#endif							/* LOCKEXT_NAMES_H */
