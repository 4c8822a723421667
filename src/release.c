/*
 * release.c
 *		Keeping and ending a lock: lock_release(), lock_renew(), lock_break().
 *
 * Release and renew look first without KEY, so that somebody who does not hold
 * the lock learns so at once and disturbs nobody.  The holder then waits for
 * KEY, if it has to: for another transaction of the same owner that works on
 * the lock, or a break.  Such a wait is an ordinary lock wait (lock_timeout,
 * deadlock detection).  It is begun without a lock on the table, unless the
 * transaction has changed another lock before.
 */
#include "postgres.h"

#include "args.h"
#include "caller.h"
#include "keylock.h"
#include "result.h"
#include "store.h"
#include "token.h"
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
	lockext_table_close(&table, false);
	return ours;
}

/*
 * Take KEY and the table, and find our row in the table's slot.  True if it is
 * still ours; both are then kept to the end of the transaction.  False if not;
 * then both were given back, and outcome, if given, tells who holds the lock.
 */
static bool
take_ours(Oid fn_oid, const LockName *name, int64 token, LOCKMODE mode,
		  LockTable *table, LockRow *row, Outcome *outcome)
{
	KeyLock		key;
	bool		found;

	(void) lockext_key_lock(&key, name, mode, true);
	(void) lockext_table_open(table, fn_oid, RowExclusiveLock, true);
	(void) lockext_row_look(table, name, row, &found);
	if (found)
		lockext_row_must_be_sound(name, row);
	if (found && is_ours(row, token))
		return true;

	if (found && outcome != NULL && lockext_row_live(row, GetCurrentTimestamp()))
		lockext_outcome_row(outcome, row);
	lockext_table_close(table, false);
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
	lockext_table_close(table, true);
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
		!take_ours(fn_oid, &name, token, LOCKEXT_KEY_CHANGE, &table, &old, NULL))
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
		!take_ours(fn_oid, &name, token, LOCKEXT_KEY_RENEW, &table, &old, &outcome))
	{
		outcome.reason = LOCKEXT_REASON_LOST;
		PG_RETURN_DATUM(lockext_form_result(fcinfo, &name, lockext_caller_label(), &outcome));
	}

	new = old;
	new.timeout_ms = timeout_ms;
	new.expires_at = lockext_end_of(GetCurrentTimestamp(), timeout_ms);
	lockext_outcome_row(&outcome, &new);
	must_write(&table, &name, &old, &new);

	/* as for an acquire: its holder relies on it */
	lockext_xact_durable();
	lockext_xact_due(new.expires_at);
	PG_RETURN_DATUM(lockext_form_result(fcinfo, &name, outcome.row.calling_fn, &outcome));
}

/* ---------- break ---------- */

static void
refuse_break(const LockName *name, const Blocker *blocker)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not break lock %s", lockext_name_display(name)),
			 !blocker->found ? errdetail("A transaction that used it has just ended.")
			 : blocker->prepared ? errdetail("A prepared transaction uses it.")
			 : errdetail("An open transaction of process %d, role \"%s\", uses it.",
						 blocker->pid, GetUserNameFromId(blocker->roleid, true)),
			 !blocker->found ? errhint("Try again.")
			 : blocker->prepared ? errhint("End it with COMMIT PREPARED or ROLLBACK PREPARED; pg_prepared_xacts lists it.")
			 : errhint("End that transaction, for example with pg_terminate_backend(%d), and try again.",
					   blocker->pid)));
}

/* The lock table is being rewritten, dropped or moved. */
static void
refuse_break_of_table(Oid fn_oid, const LockName *name)
{
	LOCKTAG		tag;
	Blocker		blocker;

	lockext_relation_tag(&tag, lockext_table_oid(fn_oid));
	lockext_find_blocker(&tag, RowExclusiveLock, &blocker);
	refuse_break(name, &blocker);
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
 * Look without KEY: is there something to break?  A lock that is free, but
 * that an open transaction is about to take, is in that transaction's way.
 */
static bool
seems_breakable(Oid fn_oid, const LockName *name)
{
	LockTable	table;
	LockRow		row;
	Blocker		blocker;
	bool		found;
	bool		free;

	if (!lockext_table_open(&table, fn_oid, AccessShareLock, false) ||
		!lockext_row_look(&table, name, &row, &found))
		refuse_break_of_table(fn_oid, name);
	free = found && row.damage == NULL && !lockext_row_live(&row, GetCurrentTimestamp());
	lockext_table_close(&table, false);
	if (!free)
		return true;			/* or not found, which says nothing */

	lockext_find_blocker(&name->tag, LOCKEXT_KEY_CHANGE, &blocker);
	if (blocker.found)
		refuse_break(name, &blocker);
	return false;
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
	Blocker		blocker;
	bool		found;

	lockext_arg_name(fcinfo, 0, 2, 3, &name);
	lockext_arg_wait(fcinfo, 1);
	lockext_must_be_able_to_write("lock_break()");

	if (!seems_breakable(fn_oid, &name))
		PG_RETURN_BOOL(false);

	if (!lockext_key_lock(&key, &name, LOCKEXT_KEY_CHANGE, false))
	{
		lockext_find_blocker(&name.tag, LOCKEXT_KEY_CHANGE, &blocker);
		refuse_break(&name, &blocker);
	}
	if (!lockext_table_open(&table, fn_oid, RowExclusiveLock, false) ||
		!lockext_row_look(&table, &name, &old, &found))
		refuse_break_of_table(fn_oid, &name);

	if (!found || (old.damage == NULL && !lockext_row_live(&old, GetCurrentTimestamp())))
	{
		lockext_table_close(&table, false);
		lockext_key_give_back(&key);
		PG_RETURN_BOOL(false);
	}
	broken_row(&table, &name, &old, &new);
	must_write(&table, &name, &old, &new);
	lockext_xact_due(new.released_at);
	PG_RETURN_BOOL(true);
}
