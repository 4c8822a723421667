/*
 * keylock.c
 *		The KEY lock: one transaction at a time changes a lock's row.
 *
 * KEY is an advisory lock of transaction level, so it ends with the
 * transaction or savepoint that took it, after the change is visible to
 * others, survives PREPARE TRANSACTION, and is seen by the deadlock detector.
 *
 * It belongs to the current subtransaction, as the row version written under
 * it does, and not to CurrentResourceOwner: inside a cursor that is the
 * cursor's, which may end with another subtransaction.
 */
#include "postgres.h"

#include "compat.h"
#include "keylock.h"
#include "settings.h"
#include "shared.h"
#include "waiters.h"
#include "xact.h"

#include <limits.h>

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lmgr.h"
#include "storage/shmem.h"
#include "utils/resowner.h"

/*
 * How often a KEY lock that cannot be had is tried again after its holder
 * turned out to be the worker, undecided, or gone, and the longest pause in between.  More
 * often while a worker runs: it may have lost the CPU with its locks half
 * released.
 */
#define MAX_ROUNDS 100
#define MAX_ROUNDS_WORKER 2000
#define MAX_PAUSE_US 1000L

/*
 * In shared memory, for each process: the KEY that it has only to find out whether it
 * may take or end the lock, by a mark made of its hash; or 0.  Others outwait such a
 * one, as it makes up its mind within microseconds.
 */
static pg_atomic_uint32 *undecided = NULL;
static bool am_undecided = false;

static bool worth_another_try(const LOCKTAG *tag, LOCKMODE mode);

Size
lockext_undecided_size(void)
{
	return mul_size(compat_proc_count(), sizeof(pg_atomic_uint32));
}

/* At the start of the server, and in each process where those don't inherit memory. */
void
lockext_undecided_attach(void *memory, bool found)
{
	undecided = memory;
	for (int i = 0; !found && i < compat_proc_count(); i++)
		pg_atomic_init_u32(&undecided[i], 0);
}

static uint32
mark_of(const LOCKTAG *tag)
{
	return tag->locktag_field3 | 1;
}

/*
 * Take a lock on behalf of the current subtransaction.  False if it cannot be
 * had at once and wait is false.
 */
bool
lockext_lock(const LOCKTAG *tag, LOCKMODE mode, bool wait)
{
	ResourceOwner owner = CurrentResourceOwner;
	LockAcquireResult result;

	/* an error need not put it back: the end of the (sub)transaction does */
	CurrentResourceOwner = CurTransactionResourceOwner;
	result = LockAcquire(tag, mode, false, !wait);
	CurrentResourceOwner = owner;
	return result != LOCKACQUIRE_NOT_AVAIL;
}

/* Give back a lock taken by lockext_lock() in the same subtransaction. */
void
lockext_unlock(const LOCKTAG *tag, LOCKMODE mode)
{
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = CurTransactionResourceOwner;
	LockRelease(tag, mode, false);
	CurrentResourceOwner = owner;
}

/* Does anybody wait for the lock?  Leaves in *queue the tag of what they wait in. */
bool
lockext_is_waited_for(const LockName *name, LOCKTAG *queue)
{
	lockext_queue_tag(queue, name);
	if (lockext_nobody_waits(name))
		return false;
	if (!lockext_lock(queue, ShareLock, false))
		return true;
	lockext_unlock(queue, ShareLock);
	return false;
}

/* Error context of a wait; arg is the LockName. */
void
lockext_wait_context(void *arg)
{
	errcontext("waiting for %s", lockext_name_display(arg));
}

/* Does this transaction keep the key already, in whatever mode? */
bool
lockext_key_is_kept(const LockName *name)
{
	const LOCKTAG *tag = &name->tag;

	return lockext_xact_keys() > 0 &&
		(compat_lock_held_by_me(tag, LOCKEXT_KEY_CHANGE) ||
		 compat_lock_held_by_me(tag, LOCKEXT_KEY_HOLD) ||
		 compat_lock_held_by_me(tag, LOCKEXT_KEY_RENEW) ||
		 compat_lock_held_by_me(tag, LOCKEXT_KEY_GUARD));
}

/* Does it guard it? */
bool
lockext_key_is_guarded(const LockName *name)
{
	return lockext_xact_keys() > 0 &&
		compat_lock_held_by_me(&name->tag, LOCKEXT_KEY_GUARD);
}

static void
fail_too_many_keys(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many lock keys in one transaction"),
			 errdetail_plural("This transaction already keeps %d key.",
							  "This transaction already keeps %d keys.",
							  lockext_xact_keys(), lockext_xact_keys()),
			 errhint("Commit in between, or have a superuser raise \"lockext.max_keys_per_transaction\".")));
}

/* Can the transaction keep this key too? */
bool
lockext_key_fits(const LockName *name)
{
	return lockext_xact_keys() < lockext_max_keys || lockext_key_is_kept(name);
}

/* Raises 53400 if not: before a wait for it. */
void
lockext_key_must_fit(const LockName *name)
{
	if (!lockext_key_fits(name))
		fail_too_many_keys();
}

/* What is to be locked, and how many keys this transaction may keep. */
static void
prepare(KeyLock *key, const LockName *name, LOCKMODE mode, int max_keys)
{
	key->name = name;
	key->mode = mode;
	key->counted = !lockext_key_is_kept(name);
	if (key->counted && lockext_xact_keys() >= max_keys)
		fail_too_many_keys();
}

/* It is locked, or not. */
static bool
taken(KeyLock *key, bool locked)
{
	if (locked && key->counted)
		lockext_xact_key_taken();
	return locked;
}

static bool
take(KeyLock *key, const LockName *name, LOCKMODE mode, bool wait, int max_keys)
{
	prepare(key, name, mode, max_keys);
	return taken(key, lockext_lock(&name->tag, mode, wait));
}

/*
 * Nobody else holds KEY, and we do, in another mode: then those who wait for us are in
 * the way, and a request that is ready to wait passes them at once.  Unless a guard
 * comes in between, for which this does not wait long.
 */
static bool
pass_waiters(KeyLock *key, const LockName *name, LOCKMODE mode)
{
	Patience	patience;

	lockext_patience_begin(&patience, 1);
	return lockext_key_lock_until(key, name, mode, &patience);
}

/*
 * Take KEY in the given mode for the rest of the transaction, or until
 * lockext_key_give_back().
 *
 * With wait, sleeps until it is there (bounded by lock_timeout; 40P01 on a
 * deadlock) and returns true.  Without, returns false where somebody else's
 * transaction holds it.  The worker counts as nobody: it holds KEY locks for a
 * few milliseconds only and never sleeps meanwhile, so it is outwaited; and so is
 * whoever took KEY by lockext_key_lock_to_look().
 *
 * Raises 53400 if the transaction would keep too many keys.
 */
bool
lockext_key_lock(KeyLock *key, const LockName *name, LOCKMODE mode, bool wait)
{
	for (int round = 0;
		 round < (lockext_worker_pid() == 0 ? MAX_ROUNDS : MAX_ROUNDS_WORKER);
		 round++)
	{
		if (take(key, name, mode, wait, lockext_max_keys))
			return true;
		if (!worth_another_try(&name->tag, mode))
			return false;
		if (lockext_key_is_kept(name) && pass_waiters(key, name, mode))
			return true;

		/*
		 * Polled, not slept on, so that lock_timeout has no say.  A transaction
		 * ends for others before its locks are free: microseconds before, unless
		 * its process has lost the CPU.
		 */
		CHECK_FOR_INTERRUPTS();
		pg_usleep(Min(10L << Min(round, 10), MAX_PAUSE_US));
	}
	return false;
}

/*
 * The same, without waiting, for one who has yet to look whether the lock is to be had
 * or is his: until lockext_key_decided(), or the end of the (sub)transaction.
 */
bool
lockext_key_lock_to_look(KeyLock *key, const LockName *name, LOCKMODE mode)
{
	bool		locked;

	if (undecided != NULL && !lockext_key_is_kept(name))
	{
		pg_atomic_write_u32(&undecided[compat_my_proc_number()], mark_of(&name->tag));
		am_undecided = true;
	}
	locked = lockext_key_lock(key, name, mode, false);
	if (!locked)
		lockext_key_decided();
	return locked;
}

/* KEY is kept for what it is, or given back. */
void
lockext_key_decided(void)
{
	if (am_undecided)
		pg_atomic_write_u32(&undecided[compat_my_proc_number()], 0);
	am_undecided = false;
}

/*
 * The same for the worker: one attempt, no waiting at all, and no limit, as its
 * batches have their own.
 */
bool
lockext_key_lock_once(KeyLock *key, const LockName *name, LOCKMODE mode)
{
	return take(key, name, mode, false, INT_MAX);
}

/* The same, asleep until it is there or patience is at its end: then false. */
bool
lockext_key_lock_until(KeyLock *key, const LockName *name, LOCKMODE mode,
					   Patience *patience)
{
	prepare(key, name, mode, lockext_max_keys);
	return taken(key, lockext_lock_until(patience, &name->tag, mode, patience->deadline));
}

/*
 * Give back a KEY lock taken by the same call.  What the transaction held
 * before stays.
 */
void
lockext_key_give_back(KeyLock *key)
{
	lockext_unlock(&key->name->tag, key->mode);
	if (key->counted)
		lockext_xact_key_given_back();
	key->counted = false;
}

/*
 * The process that runs this transaction; NULL if it is prepared, or over.  A
 * prepared transaction still carries the number of the process that made it,
 * where another may run by now.  fpLocalTransactionId is what VirtualXactLock()
 * goes by: it lasts a little longer than the process's lxid.
 */
static PGPROC *
transaction_process(VirtualTransactionId vxid)
{
	PGPROC	   *proc;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return NULL;
	proc = compat_vxid_get_proc(vxid);
	if (proc == NULL || proc->fpLocalTransactionId != vxid.localTransactionId)
		return NULL;
	return proc;
}

/* Will this transaction give the lock back in a moment, or else have it for good? */
static bool
is_momentary(VirtualTransactionId vxid, const LOCKTAG *tag)
{
	PGPROC	   *proc = undecided == NULL ? NULL : transaction_process(vxid);

	return proc != NULL &&
		(proc->pid == lockext_worker_pid() ||
		 (tag->locktag_field4 == LOCKEXT_KEY_CLASS &&
		  pg_atomic_read_u32(&undecided[compat_proc_number(proc)]) == mark_of(tag)));
}

static bool
is_in_the_way(VirtualTransactionId vxid, const LOCKTAG *tag, LOCKMODE mode)
{
	VirtualTransactionId *vxids;
	int			n;
	bool		found = false;

	vxids = GetLockConflicts(tag, mode, &n);
	for (int i = 0; i < n && !found; i++)
		found = VirtualTransactionIdEquals(vxids[i], vxid);
	pfree(vxids);
	return found;
}

/*
 * Was a transaction that was found in the way just now there to stay?  Who is undecided
 * says so before he takes KEY and until he has given it back; so who does not say so and
 * has it still is decided, unless he has begun anew meanwhile.
 */
static bool
is_there_to_stay(VirtualTransactionId vxid, const LOCKTAG *tag, LOCKMODE mode)
{
	return !VirtualXactLock(vxid, false) &&
		!is_momentary(vxid, tag) &&
		is_in_the_way(vxid, tag, mode) &&
		!is_momentary(vxid, tag);
}

/*
 * The lock could not be had a moment ago.  Returns true if it is worth another
 * try: nobody holds it any more, or only for a moment.  False if somebody's
 * transaction has it.
 */
static bool
worth_another_try(const LOCKTAG *tag, LOCKMODE mode)
{
	VirtualTransactionId *vxids;
	int			n;

	vxids = GetLockConflicts(tag, mode, &n);
	for (int i = 0; i < n; i++)
	{
		if (is_there_to_stay(vxids[i], tag, mode))
		{
			pfree(vxids);
			return false;
		}
	}
	pfree(vxids);
	return true;
}

/* The first one found; blocker->found is false if there is none. */
static void
find_blocker(const LOCKTAG *tag, LOCKMODE mode, Blocker *blocker)
{
	VirtualTransactionId *vxids;
	int			n;

	memset(blocker, 0, sizeof(*blocker));
	vxids = GetLockConflicts(tag, mode, &n);
	for (int i = 0; i < n && !blocker->found; i++)
	{
		PGPROC	   *proc = transaction_process(vxids[i]);

		if (proc != NULL)
		{
			blocker->pid = proc->pid;
			blocker->roleid = proc->roleId;
		}
		if (VirtualXactLock(vxids[i], false))
			continue;			/* it has ended */
		blocker->found = true;
		blocker->prepared = proc == NULL;
	}
	pfree(vxids);
}

/*
 * Who holds a lock that conflicts with the given mode?  The first one found;
 * blocker->found is false if nobody does any more.  Of a KEY, rather the one
 * who holds the lock itself, with scope "transaction".
 */
void
lockext_find_blocker(const LOCKTAG *tag, LOCKMODE mode, Blocker *blocker)
{
	if (tag->locktag_field4 == LOCKEXT_KEY_CLASS &&
		lockext_find_transaction_holder(tag, blocker))
		return;
	find_blocker(tag, mode, blocker);
}

/*
 * Sleep until one of the transactions that hold a conflicting lock has ended, or
 * the time has come: then false.  Unlike a wait for the lock itself, this holds up
 * nobody who would pass those.
 */
bool
lockext_wait_for_holder(const LOCKTAG *tag, LOCKMODE mode, Patience *patience, Moment until)
{
	VirtualTransactionId *vxids = GetLockConflicts(tag, mode, NULL);
	bool		ended = true;

	if (VirtualTransactionIdIsValid(vxids[0]))
		ended = lockext_wait_for_end_until(patience, vxids[0], until);
	pfree(vxids);
	return ended;
}

/* Does anybody else hold a lock that conflicts with the given mode? */
bool
lockext_is_locked(const LOCKTAG *tag, LOCKMODE mode)
{
	Blocker		blocker;

	find_blocker(tag, mode, &blocker);
	return blocker.found;
}

/* Who holds the lock of this KEY with scope "transaction"? */
bool
lockext_find_transaction_holder(const LOCKTAG *tag, Blocker *blocker)
{
	/* nobody else has KEY in a mode that conflicts with this one */
	find_blocker(tag, AccessShareLock, blocker);
	blocker->holds = blocker->found;
	return blocker->found;
}
