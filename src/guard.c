/*
 * guard.c
 *		Ownership enforced by the database: lock_guard().
 *
 * A guard looks whether the lock is ours and pins the acquisition: it keeps KEY, in a
 * mode that excludes whoever would take, end or remove the lock, until its transaction
 * ends.  What the transaction does is then done under the lock, whether or not the
 * lock's time runs out before the commit.  Guards pass each other, and renewals pass
 * guards.
 *
 * Nothing is remembered here: the lock manager knows what is pinned, and forgets it
 * with the savepoint in which it was.
 */
#include "postgres.h"

#include "args.h"
#include "keylock.h"
#include "own.h"
#include "release.h"
#include "result.h"
#include "store.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

/* The lock is not ours, or not any more. */
#define ERRCODE_LOCK_LOST MAKE_SQLSTATE('L', 'K', '0', '0', '1')

PG_FUNCTION_INFO_V1(lockext_guard);

/* Why it is not ours.  row: that of the lock, or NULL. */
static char *
why_lost(const LockName *name, const LockRow *row, int64 token)
{
	Outcome		holder = {.row_valid = true};
	Blocker		transaction;

	if (row == NULL || row->dboid != MyDatabaseId || row->released_at != DT_NOEND)
		return lockext_find_transaction_holder(&name->tag, &transaction)
			? lockext_describe_blocker(&transaction) : "Nobody holds it.";
	if (row->expires_at <= GetCurrentTimestamp() && !lockext_key_is_guarded(name))
		return psprintf("It expired at %s.", timestamptz_to_str(row->expires_at));
	if (!lockext_session_holds(row))
		return "The session that held it is gone.";
	if (token != -1 && token != row->token && has_privs_of_role(GetUserId(), row->owner))
		return "It is held with another token.";
	holder.row = *row;
	return lockext_describe_holder(NULL, &holder);
}

static void
fail_lost(const LockName *name, const LockRow *row, int64 token)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_LOST),
			 errmsg("could not guard %s", lockext_name_display(name)),
			 errdetail_internal("%s", why_lost(name, row, token)),
			 errhint("What was to be done under the lock must not be done now; take it again first.")));
}

/*
 * Raises LK001 unless the lock is ours; pinned tells whether this transaction has
 * found that before and kept it so.
 */
static void
must_be_ours(Oid fn_oid, const LockName *name, int64 token, bool pinned)
{
	LockTable	table;
	LockRow		row;
	bool		found;

	(void) lockext_table_open(&table, fn_oid, AccessShareLock, true);
	(void) lockext_row_find(&table, name, &row, &found);
	if (found)
		lockext_row_must_be_sound(name, &row);
	if (!found ||
		!(pinned ? lockext_is_ours_or_pinned : lockext_is_ours) (name, &row, token))
		fail_lost(name, found ? &row : NULL, token);
	lockext_table_close(&table, false);
}

/*
 * Pin the lock until the end of the transaction, or of the savepoint.  Looks first
 * without KEY, so that somebody who does not hold the lock is in nobody's way; then
 * waits, bounded by lock_timeout, for a transaction that ends the lock.  Raises LK001 if
 * it is not ours; the end of the (sub)transaction then gives KEY back.
 */
static void
pin(Oid fn_oid, const LockName *name, int64 token)
{
	bool		pinned = lockext_key_is_guarded(name);

	must_be_ours(fn_oid, name, token, pinned);
	if (!pinned)
	{
		KeyLock		key;
		ErrorContextCallback context = {
			error_context_stack, lockext_wait_context, unconstify(LockName *, name)
		};

		error_context_stack = &context;
		(void) lockext_key_lock(&key, name, LOCKEXT_KEY_GUARD, true);
		error_context_stack = context.previous;
		must_be_ours(fn_oid, name, token, false);
	}
}

/* A lock with scope "transaction" is held as long as its transaction lasts anyway. */
static void
must_be_held_by_transaction(const LockName *name, const LockRow *hold, int64 token)
{
	if (!lockext_is_ours(name, hold, token))
		fail_lost(name, hold, token);
}

/* lock_guard(key, token, domain, master) */
Datum
lockext_guard(PG_FUNCTION_ARGS)
{
	LockName	name;
	int64		token;
	const LockRow *hold;

	lockext_arg_name(fcinfo, 0, 2, 3, &name);
	token = lockext_arg_token(fcinfo, 1);
	hold = lockext_held_by_transaction(&name);
	if (hold != NULL)
		must_be_held_by_transaction(&name, hold, token);
	else
	{
		lockext_must_be_able_to_lock("lock_guard()");
		pin(fcinfo->flinfo->fn_oid, &name, token);
	}
	PG_RETURN_VOID();
}
