/*
 * acquire.c
 *		Taking a lock: lock_acquire() and lock_try().
 *
 * First a look without any lock of ours: most refusals end there, with no
 * transaction ID, no WAL and no lock-manager traffic beyond the table's
 * fast-path lock.  A lock that looks free is then claimed: KEY is taken, the
 * row looked at again, and only then written.  Nothing on the way waits for
 * another transaction; what cannot be had at once makes the answer "busy".
 */
#include "postgres.h"

#include "args.h"
#include "caller.h"
#include "keylock.h"
#include "result.h"
#include "store.h"
#include "token.h"
#include "xact.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* What is asked for. */
typedef struct Request
{
	LockName	name;
	int64		timeout_ms;		/* -1: never */
	text	   *calling_fn;		/* NULL: find out when the lock is granted */
	Jsonb	   *data;			/* may be NULL */
} Request;

PG_FUNCTION_INFO_V1(lockext_acquire);
PG_FUNCTION_INFO_V1(lockext_try);

static bool acquire(Oid fn_oid, Request *request, Outcome *outcome);
static bool look_first(Oid fn_oid, const LockName *name, Outcome *outcome);
static bool claim(Oid fn_oid, Request *request, Outcome *outcome);
static bool grant(LockTable *table, Request *request, const LockRow *old, Outcome *outcome);

/*
 * lock_acquire(key, timeout, wait_ms, scope, calling_fn, domain, master, data)
 *
 * One row, whatever the outcome.  Raises 22023, 25006, 53400, XX001.
 */
Datum
lockext_acquire(PG_FUNCTION_ARGS)
{
	Request		request;
	Outcome		outcome;

	lockext_arg_name(fcinfo, 0, 5, 6, &request.name);
	request.timeout_ms = lockext_arg_timeout(fcinfo, 1);
	lockext_arg_wait(fcinfo, 2);
	lockext_arg_scope(fcinfo, 3);
	request.calling_fn = lockext_arg_calling_fn(fcinfo, 4);
	request.data = lockext_arg_data(fcinfo, 7);
	lockext_must_be_able_to_write("lock_acquire()");

	acquire(fcinfo->flinfo->fn_oid, &request, &outcome);
	PG_RETURN_DATUM(lockext_form_result(fcinfo, &request.name, request.calling_fn, &outcome));
}

/* lock_try(key, timeout, scope, domain, master): the token, or null */
Datum
lockext_try(PG_FUNCTION_ARGS)
{
	Request		request;
	Outcome		outcome;

	lockext_arg_name(fcinfo, 0, 3, 4, &request.name);
	request.timeout_ms = lockext_arg_timeout(fcinfo, 1);
	lockext_arg_scope(fcinfo, 2);
	request.calling_fn = NULL;
	request.data = NULL;
	lockext_must_be_able_to_write("lock_try()");

	if (!acquire(fcinfo->flinfo->fn_oid, &request, &outcome))
		PG_RETURN_NULL();
	PG_RETURN_INT64(outcome.row.token);
}

static bool
acquire(Oid fn_oid, Request *request, Outcome *outcome)
{
	memset(outcome, 0, sizeof(*outcome));
	return look_first(fn_oid, &request->name, outcome) &&
		claim(fn_oid, request, outcome);
}

/* ---------- refusing ---------- */

static bool
refuse_busy(Outcome *outcome, const LOCKTAG *tag, LOCKMODE mode)
{
	outcome->reason = LOCKEXT_REASON_BUSY;
	lockext_find_blocker(tag, mode, &outcome->blocker);
	return false;
}

/* The lock table is being rewritten, dropped or moved. */
static bool
refuse_table(Oid fn_oid, Outcome *outcome, LOCKMODE mode)
{
	LOCKTAG		tag;

	lockext_relation_tag(&tag, lockext_table_oid(fn_oid));
	return refuse_busy(outcome, &tag, mode);
}

static bool
refuse_held(Outcome *outcome, const LockRow *row)
{
	outcome->reason = LOCKEXT_REASON_HELD;
	lockext_outcome_row(outcome, row);
	return false;
}

/* ---------- trying ---------- */

/*
 * Look without KEY.  True if the lock may be free; false if it is refused.
 * A row that is seen here was the newest committed one (or our own) at that
 * instant; not seeing one settles nothing.
 */
static bool
look_first(Oid fn_oid, const LockName *name, Outcome *outcome)
{
	LockTable	table;
	LockRow		row;
	bool		found;
	bool		go_on = true;

	if (!lockext_table_open(&table, fn_oid, AccessShareLock, false))
		return refuse_table(fn_oid, outcome, AccessShareLock);

	if (!lockext_row_look(&table, name, &row, &found))
		go_on = refuse_table(fn_oid, outcome, RowExclusiveLock);
	else if (found)
	{
		lockext_row_must_be_sound(name, &row);
		if (lockext_row_live(&row, GetCurrentTimestamp()))
			go_on = refuse_held(outcome, &row);
	}
	lockext_table_close(&table, false);
	return go_on;
}

/*
 * Take KEY and, if the lock is free then, write its row.  KEY and the lock on
 * the table stay until the end of the transaction if the lock is granted, and
 * are given back if not.
 */
static bool
claim(Oid fn_oid, Request *request, Outcome *outcome)
{
	LockTable	table;
	LockRow		row;
	KeyLock		key;
	bool		found;
	bool		granted = false;

	if (!lockext_key_lock(&key, &request->name, LOCKEXT_KEY_CHANGE, false))
		return refuse_busy(outcome, &request->name.tag, LOCKEXT_KEY_CHANGE);

	if (!lockext_table_open(&table, fn_oid, RowExclusiveLock, false))
		refuse_table(fn_oid, outcome, RowExclusiveLock);
	else
	{
		if (!lockext_row_look(&table, &request->name, &row, &found))
			refuse_table(fn_oid, outcome, RowExclusiveLock);
		else
			granted = grant(&table, request, found ? &row : NULL, outcome);
		lockext_table_close(&table, granted);
	}
	if (!granted)
		lockext_key_give_back(&key);
	return granted;
}

/*
 * Under REPEATABLE READ and above the transaction goes on reading from a
 * snapshot that may be older than what the lock's last holder committed: if the
 * snapshot does not show how the lock ended, or if it expired only after this
 * transaction began.
 */
static void
warn_if_snapshot_is_old(LockTable *table, const LockName *name, const LockRow *old)
{
	HeapTuple	tuple;
	bool		unused;

	if (!IsolationUsesXactSnapshot())
		return;
	tuple = ExecFetchSlotHeapTuple(table->slot, false, &unused);
	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)))
		return;
	if (table_tuple_satisfies_snapshot(table->rel, table->slot, GetTransactionSnapshot()) &&
		lockext_row_idle_since(old) <= GetCurrentTransactionStartTimestamp())
		return;
	ereport(WARNING,
			(errmsg("lock %s changed hands after this transaction's snapshot was taken",
					lockext_name_display(name)),
			 errdetail("What its last holder committed may not be visible to this transaction."),
			 errhint("Take the lock before the first query, in a transaction of its own, or at READ COMMITTED.")));
}

/* Under KEY: old is the name's row, or NULL; it is in the table's slot. */
static bool
grant(LockTable *table, Request *request, const LockRow *old, Outcome *outcome)
{
	TimestampTz now = GetCurrentTimestamp();
	LockRow    *new = &outcome->row;

	if (old != NULL)
	{
		lockext_row_must_be_sound(&request->name, old);
		if (lockext_row_live(old, now))
			return refuse_held(outcome, old);
	}

	if (request->calling_fn == NULL)
		request->calling_fn = lockext_caller_label();

	new->token = lockext_next_token(table, old, now);
	new->acquired_at = now;
	new->dboid = MyDatabaseId;
	new->owner = GetUserId();
	new->pid = MyProcPid;
	new->scope = LOCKEXT_SCOPE_LEASE;
	new->domain = request->name.domain;
	new->key = request->name.key;
	new->calling_fn = request->calling_fn;
	new->application_name = cstring_to_text(application_name ? application_name : "");
	new->timeout_ms = request->timeout_ms;
	new->expires_at = lockext_end_of(now, request->timeout_ms);
	new->released_at = DT_NOEND;
	new->client_addr = lockext_client_addr();
	new->data = request->data;

	if (old != NULL)
		warn_if_snapshot_is_old(table, &request->name, old);
	if (!lockext_row_write(table, old, new))
	{
		outcome->reason = LOCKEXT_REASON_BUSY;
		return false;
	}

	/* a lease must not be forgotten in a crash once its holder knows of it */
	lockext_xact_durable();
	lockext_xact_due(new->expires_at);
	return true;
}
