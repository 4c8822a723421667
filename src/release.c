/*
 * release.c
 *		Keeping and ending a lock: lock_release(), lock_renew(), lock_break().
 *
 * Release and renew look first without KEY, so that somebody who does not hold
 * the lock learns so at once and disturbs nobody.  The holder then waits for
 * KEY, if it has to: for another transaction of the same owner that works on
 * the lock, or a break.  Such a wait is an ordinary lock wait (lock_timeout,
 * deadlock detection).  It is begun without a lock on the table.
 */
#include "postgres.h"

#include "args.h"
#include "caller.h"
#include "keylock.h"
#include "result.h"
#include "store.h"
#include "xact.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(lockext_release);
PG_FUNCTION_INFO_V1(lockext_renew);
PG_FUNCTION_INFO_V1(lockext_break);

/*
 * Is the lock live, and the caller its holder: with the privileges of its
 * owner and, if a token is given, for exactly that acquisition?
 */
static bool
is_ours(const LockRow *row, int64 token)
{
	return lockext_row_live(row, GetCurrentTimestamp()) &&
		has_privs_of_role(GetUserId(), row->owner) &&
		(token == -1 || token == row->token);
}

/*
 * Look without KEY: does it seem to be ours?  If not, and outcome is given, it
 * tells who holds the lock.
 */
static bool
seems_ours(Oid fn_oid, const LockName *name, int64 token, Outcome *outcome)
{
	LockTable	table;
	LockRow		row;
	bool		ours = false;

	(void) lockext_table_open(&table, fn_oid, AccessShareLock, true);
	if (lockext_row_find(&table, name, &row))
	{
		lockext_row_must_be_sound(name, &row);
		ours = is_ours(&row, token);
		if (!ours && outcome != NULL && lockext_row_live(&row, GetCurrentTimestamp()))
			lockext_outcome_row(outcome, &row);
	}
	lockext_table_close(&table, AccessShareLock);
	return ours;
}

/*
 * Take KEY and the table, and find our row in the table's slot.  True if it is
 * still ours; both are then kept to the end of the transaction.  False if not;
 * then both were given back.
 */
static bool
take_ours(Oid fn_oid, const LockName *name, int64 token, LOCKMODE mode,
		  LockTable *table, LockRow *row)
{
	KeyLock		key;
	bool		found;

	(void) lockext_key_lock(&key, name, mode, true);
	(void) lockext_table_open(table, fn_oid, RowExclusiveLock, true);
	(void) lockext_row_look(table, name, true, row, &found);
	if (found)
		lockext_row_must_be_sound(name, row);
	if (found && is_ours(row, token))
		return true;

	lockext_table_close(table, RowExclusiveLock);
	lockext_key_give_back(&key);
	return false;
}

/* Write over the row in the table's slot, or raise 55P03. */
static void
must_write(LockTable *table, const LockName *name, const LockRow *old, LockRow *new)
{
	if (!lockext_row_write(table, old, new))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not change the row of lock %s", lockext_name_display(name)),
				 errdetail("Another transaction has locked the row itself.")));
	lockext_table_close(table, NoLock);
}

/*
 * lock_release(key, token, domain, master) -> boolean
 *
 * True: the lock ends when this transaction commits.  False: it is not there,
 * has expired, or is another owner's or another token's; nothing changes.
 */
Datum
lockext_release(PG_FUNCTION_ARGS)
{
	Oid			fn_oid = fcinfo->flinfo->fn_oid;
	LockName	name;
	LockTable	table;
	LockRow		old;
	LockRow		new;
	int64		token;

	lockext_arg_name(fcinfo, 0, 2, 3, &name);
	token = lockext_arg_token(fcinfo, 1);
	lockext_must_be_able_to_write("lock_release()");

	if (!seems_ours(fn_oid, &name, token, NULL) ||
		!take_ours(fn_oid, &name, token, LOCKEXT_KEY_CHANGE, &table, &old))
		PG_RETURN_BOOL(false);

	new = old;
	new.released_at = GetCurrentTimestamp();
	new.data = NULL;
	must_write(&table, &name, &old, &new);
	lockext_xact_due(new.released_at);
	PG_RETURN_BOOL(true);
}

/*
 * lock_renew(key, timeout, token, domain, master) -> lock_result
 *
 * The lock's lifetime begins anew, now.  Reason "lost" if it is no longer
 * ours; then the holder, if there is one, is given.
 */
Datum
lockext_renew(PG_FUNCTION_ARGS)
{
	Oid			fn_oid = fcinfo->flinfo->fn_oid;
	LockName	name;
	LockTable	table;
	LockRow		old;
	LockRow		new;
	Outcome		outcome;
	int64		timeout_ms;
	int64		token;

	lockext_arg_name(fcinfo, 0, 3, 4, &name);
	timeout_ms = lockext_arg_timeout(fcinfo, 1);
	token = lockext_arg_token(fcinfo, 2);
	lockext_must_be_able_to_write("lock_renew()");

	memset(&outcome, 0, sizeof(outcome));
	if (!seems_ours(fn_oid, &name, token, &outcome) ||
		!take_ours(fn_oid, &name, token, LOCKEXT_KEY_RENEW, &table, &old))
	{
		outcome.reason = LOCKEXT_REASON_LOST;
		PG_RETURN_DATUM(lockext_form_result(fcinfo, &name, lockext_caller_label(), &outcome));
	}

	new = old;
	new.timeout_ms = timeout_ms;
	new.expires_at = timeout_ms == -1 ? DT_NOEND
		: GetCurrentTimestamp() + timeout_ms * 1000;
	lockext_outcome_row(&outcome, &new);
	must_write(&table, &name, &old, &new);

	/* as for an acquire: its holder relies on it */
	ForceSyncCommit();
	lockext_xact_due(new.expires_at);
	PG_RETURN_DATUM(lockext_form_result(fcinfo, &name, outcome.row.calling_fn, &outcome));
}

/* ---------- break ---------- */

static void
refuse_break(const LockName *name, const LOCKTAG *tag, LOCKMODE mode)
{
	Blocker		blocker;

	lockext_find_blocker(tag, mode, &blocker);
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not break lock %s", lockext_name_display(name)),
			 !blocker.found ? errdetail("A transaction that used it has just ended.")
			 : blocker.prepared ? errdetail("A prepared transaction uses it.")
			 : errdetail("An open transaction of process %d, role \"%s\", uses it.",
						 blocker.pid, GetUserNameFromId(blocker.roleid, true)),
			 !blocker.found ? errhint("Try again.")
			 : blocker.prepared ? errhint("End it with COMMIT PREPARED or ROLLBACK PREPARED; pg_prepared_xacts lists it.")
			 : errhint("End that transaction, for example with pg_terminate_backend(%d), and try again.",
					   blocker.pid)));
}

/*
 * The row that a broken lock leaves.  All that is kept of the old one is the
 * token, and that only if the row is sound.
 */
static void
broken_row(LockTable *table, const LockName *name, const LockRow *old, LockRow *new)
{
	TimestampTz now = GetCurrentTimestamp();

	*new = *old;
	new->released_at = now;
	new->data = NULL;
	if (old->damage == NULL)
		return;

	new->token = lockext_next_token(table, old, now);
	new->acquired_at = now;
	new->dboid = MyDatabaseId;
	new->owner = GetUserId();
	new->pid = 0;
	new->scope = LOCKEXT_SCOPE_LEASE;
	new->domain = name->domain;
	new->key = name->key;
	new->calling_fn = new->application_name = cstring_to_text("");
	new->timeout_ms = -1;
	new->expires_at = DT_NOEND;
	new->client_addr = NULL;
}

/*
 * lock_break(key, wait_ms, domain, master) -> boolean
 *
 * True: whoever held the lock holds it no more when this transaction commits.
 * False: nobody did.  55P03 if an open transaction is in the way.  A damaged
 * row is replaced by a sound one.
 */
Datum
lockext_break(PG_FUNCTION_ARGS)
{
	Oid			fn_oid = fcinfo->flinfo->fn_oid;
	LockName	name;
	LockTable	table;
	LockRow		old;
	LockRow		new;
	KeyLock		key;
	LOCKTAG		tag;
	bool		found;

	lockext_arg_name(fcinfo, 0, 2, 3, &name);
	lockext_arg_wait(fcinfo, 1);
	lockext_must_be_able_to_write("lock_break()");

	lockext_relation_tag(&tag, lockext_table_oid(fn_oid));
	if (!lockext_key_lock(&key, &name, LOCKEXT_KEY_CHANGE, false))
		refuse_break(&name, &name.tag, LOCKEXT_KEY_CHANGE);
	if (!lockext_table_open(&table, fn_oid, RowExclusiveLock, false) ||
		!lockext_row_look(&table, &name, false, &old, &found))
		refuse_break(&name, &tag, RowExclusiveLock);

	if (!found || (old.damage == NULL && !lockext_row_live(&old, GetCurrentTimestamp())))
	{
		lockext_table_close(&table, RowExclusiveLock);
		lockext_key_give_back(&key);
		PG_RETURN_BOOL(false);
	}
	broken_row(&table, &name, &old, &new);
	must_write(&table, &name, &old, &new);
	lockext_xact_due(new.released_at);
	PG_RETURN_BOOL(true);
}
