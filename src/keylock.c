/*
 * keylock.c
 *		The KEY lock: one transaction at a time changes a lock's row.
 *
 * KEY is an advisory lock of transaction level, so it ends with the
 * transaction or savepoint that took it, after the change is visible to
 * others, survives PREPARE TRANSACTION, and is seen by the deadlock detector.
 */
#include "postgres.h"

#include "compat.h"
#include "keylock.h"
#include "settings.h"
#include "shared.h"
#include "xact.h"

#include "storage/lmgr.h"

/*
 * How often a KEY lock that cannot be had is tried again after its holder
 * turned out to be the worker, or gone.
 */
#define MAX_ROUNDS 20

static bool outlive_broom(const LOCKTAG *tag, LOCKMODE mode);

static bool
take(KeyLock *key, const LockName *name, LOCKMODE mode, bool wait)
{
	key->name = name;
	key->mode = mode;
	key->counted = !compat_lock_held_by_me(&name->tag, mode);

	if (key->counted && lockext_xact_keys() >= lockext_max_keys)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many lock keys in one transaction"),
				 errdetail("This transaction already keeps %d keys.", lockext_xact_keys()),
				 errhint("Commit in between, or have a superuser raise \"lockext.max_keys_per_transaction\".")));

	if (LockAcquire(&name->tag, mode, false, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	if (key->counted)
		lockext_xact_key_taken();
	return true;
}

/*
 * Take KEY in the given mode for the rest of the transaction, or until
 * lockext_key_give_back().
 *
 * With wait, sleeps until it is there (bounded by lock_timeout; 40P01 on a
 * deadlock) and returns true.  Without, returns false where somebody else's
 * transaction holds it.  The worker counts as nobody: it holds KEY locks for a
 * few milliseconds only and never sleeps meanwhile, so it is outwaited.
 *
 * Raises 53400 if the transaction would keep too many keys.
 */
bool
lockext_key_lock(KeyLock *key, const LockName *name, LOCKMODE mode, bool wait)
{
	for (int round = 0; round < MAX_ROUNDS; round++)
	{
		if (take(key, name, mode, wait))
			return true;
		if (!outlive_broom(&name->tag, mode))
			return false;
	}
	return false;
}

/* The same for the worker: one attempt, no waiting at all. */
bool
lockext_key_lock_once(KeyLock *key, const LockName *name, LOCKMODE mode)
{
	return take(key, name, mode, false);
}

/*
 * Give back a KEY lock taken by the same call.  What the transaction held
 * before stays.
 */
void
lockext_key_give_back(KeyLock *key)
{
	LockRelease(&key->name->tag, key->mode, false);
	if (key->counted)
		lockext_xact_key_given_back();
	key->counted = false;
}

/* Is this the transaction of our worker? */
static bool
is_worker(VirtualTransactionId vxid)
{
	int			worker = lockext_worker_pid();
	PGPROC	   *proc;

	if (worker == 0 || VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return false;
	proc = compat_vxid_get_proc(vxid);
	return proc != NULL && proc->pid == worker;
}

/*
 * The lock could not be had a moment ago.  Returns true if it is worth another
 * try: nobody holds it any more, or the worker did and has now ended its
 * transaction.  False if somebody's transaction has it.
 */
static bool
outlive_broom(const LOCKTAG *tag, LOCKMODE mode)
{
	VirtualTransactionId *vxids;
	int			n;

	vxids = GetLockConflicts(tag, mode, &n);
	for (int i = 0; i < n; i++)
	{
		bool		over = VirtualXactLock(vxids[i], is_worker(vxids[i]));

		if (!over)
		{
			pfree(vxids);
			return false;
		}
	}
	pfree(vxids);
	return true;
}

/*
 * Who holds a lock that conflicts with the given mode?  The first one found;
 * blocker->found is false if nobody does any more.
 */
void
lockext_find_blocker(const LOCKTAG *tag, LOCKMODE mode, Blocker *blocker)
{
	VirtualTransactionId *vxids;
	int			n;

	memset(blocker, 0, sizeof(*blocker));
	vxids = GetLockConflicts(tag, mode, &n);
	for (int i = 0; i < n && !blocker->found; i++)
	{
		PGPROC	   *proc = NULL;

		if (VirtualXactLock(vxids[i], false))
			continue;			/* it has ended */
		if (!VirtualTransactionIdIsRecoveredPreparedXact(vxids[i]))
			proc = compat_vxid_get_proc(vxids[i]);

		blocker->found = true;
		if (proc != NULL && compat_proc_lxid(proc) == vxids[i].localTransactionId)
		{
			blocker->pid = proc->pid;
			blocker->roleid = proc->roleId;
		}
		else
			blocker->prepared = true;
	}
	pfree(vxids);
}
