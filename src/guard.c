/*
 * guard.c
 *		Ownership enforced by the database: lock_guard(), and the question behind
 *		guarded tables and schemas.
 *
 * A guard looks whether the lock is ours and pins the acquisition: it keeps KEY, in a
 * mode that excludes whoever would take, end or remove the lock, until its transaction
 * ends.  What the transaction does is then done under the lock, whether or not the
 * lock's time runs out before the commit.  Guards pass each other, and renewals pass
 * guards.
 *
 * lock_guard() goes by role and token, like lock_release().  Guarded tables and schemas
 * must not ask for the current role, which is another in a SECURITY DEFINER function
 * or a foreign key's action: there a lock is had by the transaction that took, renewed
 * or pinned it, by the session that holds it with scope "session", and by whoever
 * presents its token.
 *
 * Nothing is remembered here: the lock manager knows what is pinned, and forgets it
 * with the savepoint in which it was.
 */
#include "postgres.h"

#include "args.h"
#include "guard.h"
#include "keylock.h"
#include "own.h"
#include "presented.h"
#include "release.h"
#include "result.h"
#include "settings.h"
#include "store.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

/* The lock is not ours, or not any more. */
#define ERRCODE_LOCK_LOST MAKE_SQLSTATE('L', 'K', '0', '0', '1')

/* Something guarded was touched without its lock. */
#define ERRCODE_GUARDED MAKE_SQLSTATE('L', 'K', '0', '0', '2')

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
 * Take KEY for a guard, waiting, bounded by lock_timeout, for a transaction that ends
 * the lock.
 */
static void
lock_key(const LockName *name)
{
	KeyLock		key;
	ErrorContextCallback context = {
		error_context_stack, lockext_wait_context, unconstify(LockName *, name)
	};

	error_context_stack = &context;
	(void) lockext_key_lock(&key, name, LOCKEXT_KEY_GUARD, true);
	error_context_stack = context.previous;
}

/*
 * Pin the lock until the end of the transaction, or of the savepoint.  Looks first
 * without KEY, so that somebody who does not hold the lock is in nobody's way.  Raises
 * LK001 if it is not ours; the end of the (sub)transaction then gives KEY back.
 */
static void
pin(Oid fn_oid, const LockName *name, int64 token)
{
	bool		pinned = lockext_key_is_guarded(name);

	must_be_ours(fn_oid, name, token, pinned);
	if (!pinned)
	{
		lock_key(name);
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

/* lock_guard(key, token, domain, master); without token the one of lockext.token */
Datum
lockext_guard(PG_FUNCTION_ARGS)
{
	LockName	name;
	int64		token;
	const LockRow *hold;

	lockext_arg_name(fcinfo, 0, 2, 3, &name);
	token = lockext_arg_token(fcinfo, 1);
	if (token == -1)
		token = lockext_presented_token(&name);
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

/* ---------- what guarded tables and schemas ask ---------- */

/*
 * Does the row say that we have the lock?  kept: this transaction keeps KEY for it, so
 * that the lock is ours unless the transaction has ended it.
 */
static bool
row_is_had(const LockName *name, const LockRow *row, bool kept)
{
	if (row->dboid != MyDatabaseId || row->released_at != DT_NOEND ||
		!lockext_session_holds(row))
		return false;
	if (kept)
		return true;
	return row->expires_at > GetCurrentTimestamp() &&
		((row->scope == LOCKEXT_SCOPE_SESSION && lockext_row_is_mine(name, row)) ||
		 lockext_presented_token(name) == row->token);
}

/* Look at the row; if the lock is not had, and why is given, that says why. */
static bool
look_is_had(Oid fn_oid, const LockName *name, bool kept, const char **why)
{
	LockTable	table;
	LockRow		row;
	bool		found;
	bool		had;

	(void) lockext_table_open(&table, fn_oid, AccessShareLock, true);
	(void) lockext_row_find(&table, name, &row, &found);
	if (found)
		lockext_row_must_be_sound(name, &row);
	had = found && row_is_had(name, &row, kept);
	if (!had)
		*why = why_lost(name, found ? &row : NULL, lockext_presented_token(name));
	lockext_table_close(&table, false);
	return had;
}

/*
 * Does this transaction have the lock, as told in the header?  Then it is pinned until
 * the end of the (sub)transaction; else *why says what is the matter.  May wait, bounded
 * by lock_timeout, for a transaction that ends the lock.
 *
 * Nobody else can have changed a lock that is pinned, and this transaction would keep
 * KEY in another mode if it had.
 */
bool
lockext_transaction_has(Oid fn_oid, const LockName *name, const char **why)
{
	bool		kept;

	if (lockext_held_by_transaction(name) != NULL || lockext_key_is_only_guarded(name))
		return true;
	kept = lockext_key_is_kept_for_row(name);
	if (!look_is_had(fn_oid, name, kept, why))
		return false;
	if (kept)
		return true;
	lock_key(name);
	return look_is_had(fn_oid, name, false, why);
}

/* Log it, but once for all rows of a statement. */
static void
log_bypass(const LockName *name, const char *what)
{
	static TimestampTz last_statement = 0;
	static uint32 last_what = 0;
	TimestampTz statement = GetCurrentStatementStartTimestamp();
	uint32		hash = hash_bytes((const unsigned char *) what, strlen(what));

	if (statement == last_statement && hash == last_what)
		return;
	last_statement = statement;
	last_what = hash;
	ereport(LOG,
			(errmsg("guard bypassed: %s without %s", what, lockext_name_display(name)),
			 errhidestmt(true),
			 errdetail("Role \"%s\" (session role \"%s\"); reason: %s; command: %s",
					   lockext_role_name(GetUserId()), lockext_role_name(GetSessionUserId()),
					   lockext_bypass_guards,
					   debug_query_string == NULL ? "" : debug_query_string)));
}

/*
 * Raises LK002: what, like "write to table t", is not to be done without the lock.
 * Returns if a superuser has bypassed the guards.
 */
void
lockext_refuse_unless_bypassed(const LockName *name, const char *why, const char *what)
{
	if (lockext_bypass_guards[0] != '\0')
	{
		log_bypass(name, what);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_GUARDED),
			 errmsg("cannot %s without %s", what, lockext_name_display(name)),
			 errdetail_internal("%s", why),
			 errhint("Take the lock in this transaction, or in this session with scope \"session\"; a lock taken elsewhere counts once lock_guard() has pinned it, or with its token in \"lockext.token\".")));
}

void
lockext_must_have(Oid fn_oid, const LockName *name, const char *what)
{
	const char *why;

	if (!lockext_transaction_has(fn_oid, name, &why))
		lockext_refuse_unless_bypassed(name, why, what);
}
