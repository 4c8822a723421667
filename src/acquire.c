/*
 * acquire.c
 *		Taking a lock: lock_acquire() and lock_try().
 *
 * A lock is claimed: KEY is taken, the row looked at, and if nobody holds the
 * lock then, written; with scope "transaction" KEY is all there is.  Where tries
 * have been refused of late (see seen.c), there is a look without any lock of ours
 * first: most refusals end there, with no transaction ID, no WAL and no
 * lock-manager traffic beyond the table's fast-path locks; or even before, if the
 * lock is known to be held, and it is known by whom or does not matter.  With scope
 * "transaction" no row is looked at if it is known that none says "held".  Nothing
 * on the way waits for another transaction; what cannot be had at once makes the
 * answer "busy".
 *
 * A try does not overtake those who wait: see wait.c.
 */
#include "postgres.h"

#include "acquire.h"
#include "args.h"
#include "caller.h"
#include "own.h"
#include "refused.h"
#include "seen.h"
#include "shared.h"
#include "store.h"
#include "token.h"
#include "wait.h"
#include "waiters.h"
#include "xact.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(lockext_acquire);
PG_FUNCTION_INFO_V1(lockext_try);

static bool look_first(Request *request, Outcome *outcome);
static Seen what_is_seen(const Request *request, SeenEntry *entry);
static bool try_knowing(Request *request, Outcome *outcome);
static bool try_acquire(Request *request, Seen seen, Outcome *outcome);
static bool no_queue(const LockName *name, Outcome *outcome);
static bool claim(Request *request, Outcome *outcome);
static bool refuse_busy(Outcome *outcome, const LOCKTAG *tag, LOCKMODE mode);
static bool claim_unlooked(Request *request, Outcome *outcome);
static void new_row(const Request *request, TimestampTz now, LockRow *new);
static bool grant(LockTable *table, Request *request, const LockRow *old, Outcome *outcome);

/*
 * The arguments key, timeout, wait_ms, scope, calling_fn, domain, master and data,
 * in this order.
 */
void
lockext_read_request(FunctionCallInfo fcinfo, char form, Request *request)
{
	memset(request, 0, sizeof(*request));
	request->fn_oid = fcinfo->flinfo->fn_oid;
	lockext_arg_name(fcinfo, 0, 5, 6, &request->name);
	request->scope = form == LOCKEXT_FORM_CALL ? lockext_arg_outlasting_scope(fcinfo, 3)
		: lockext_arg_scope(fcinfo, 3);
	request->timeout_ms = lockext_arg_timeout(fcinfo, 1, request->scope);
	request->wait_ms = lockext_arg_wait(fcinfo, 2);
	request->calling_fn = lockext_arg_calling_fn(fcinfo, 4);
	request->data = lockext_arg_data(fcinfo, 7);
}

/* Scope "transaction" changes no table. */
static void
must_be_able_to(const Request *request, const char *function)
{
	if (request->scope == LOCKEXT_SCOPE_TRANSACTION)
		lockext_must_be_able_to_lock(function);
	else
		lockext_must_be_able_to_write(function);
}

/*
 * lock_acquire(key, timeout, wait_ms, scope, calling_fn, domain, master, data)
 *
 * One row, whatever the outcome.  Raises 22023, 25006, 53400, XX001; if it
 * waits, what any lock wait may: 55P03 by lock_timeout, 40P01, 57014.
 */
Datum
lockext_acquire(PG_FUNCTION_ARGS)
{
	Request		request;
	Outcome		outcome;

	lockext_read_request(fcinfo, LOCKEXT_FORM_STATEMENT, &request);
	(void) lockext_acquire_now(&request, "lock_acquire()", &outcome);
	PG_RETURN_DATUM(lockext_form_result(fcinfo, &request.name, request.calling_fn, &outcome));
}

/* lock_try(key, timeout, scope, domain, master): the token, or null */
Datum
lockext_try(PG_FUNCTION_ARGS)
{
	Request		request = {.fn_oid = fcinfo->flinfo->fn_oid};
	Outcome		outcome;
	Seen		seen;

	lockext_arg_name(fcinfo, 0, 3, 4, &request.name);
	request.scope = lockext_arg_scope(fcinfo, 2);
	request.timeout_ms = lockext_arg_timeout(fcinfo, 1, request.scope);
	must_be_able_to(&request, "lock_try()");

	seen = what_is_seen(&request, NULL);
	if (seen == LOCKEXT_SEEN_HELD || !try_acquire(&request, seen, &outcome))
		PG_RETURN_NULL();
	PG_RETURN_INT64(outcome.row.token);
}

/*
 * Take the lock, waiting for it as long as the request says.  Raises 25006, with the
 * name of the function, where nothing can be written.
 */
bool
lockext_acquire_now(Request *request, const char *function, Outcome *outcome)
{
	Patience	patience;

	must_be_able_to(request, function);
	if (request->wait_ms == 0)
		return try_knowing(request, outcome);
	lockext_patience_begin(&patience, request->wait_ms);
	return lockext_wait_and_acquire(request, LOCKEXT_FORM_STATEMENT, &patience, outcome);
}

static Seen
what_is_seen(const Request *request, SeenEntry *entry)
{
	return lockext_seen(lockext_table_oid(request->fn_oid), &request->name, entry);
}

/*
 * Take the lock if it is free and nobody waits for it: without a look first if
 * nothing speaks against that.  What was then in the way may be somebody who works on
 * a lock that is held; so why it could not be had is for a look to say.
 */
bool
lockext_try_acquire(Request *request, Outcome *outcome)
{
	return try_acquire(request, what_is_seen(request, NULL), outcome);
}

/* The same, without a look if this session knows who holds the lock, and still does. */
static bool
try_knowing(Request *request, Outcome *outcome)
{
	SeenEntry	entry;
	Seen		seen = what_is_seen(request, &entry);
	bool		granted;

	if (seen == LOCKEXT_SEEN_HELD && lockext_refused_before(&entry, outcome))
		return false;
	granted = try_acquire(request, seen, outcome);
	if (seen == LOCKEXT_SEEN_HELD && outcome->row_valid)
		lockext_refused_remember(&entry, outcome);
	return granted;
}

static bool
try_acquire(Request *request, Seen seen, Outcome *outcome)
{
	const LockName *name = &request->name;

	memset(outcome, 0, sizeof(*outcome));
	if (seen == LOCKEXT_SEEN_NOTHING &&
		lockext_held_by_transaction(name) == NULL && lockext_key_fits(name))
	{
		lockext_xact_wal_begin();
		if (no_queue(name, outcome) && claim(request, outcome))
			return true;
		if (outcome->row_valid)
			return false;		/* it is held */
		lockext_seen_refused(name);
		memset(outcome, 0, sizeof(*outcome));
	}
	return look_first(request, outcome) &&
		no_queue(name, outcome) &&
		claim(request, outcome);
}

/*
 * The same for the one whose turn it is: all others wait for it.  Without a look
 * first if the lock is likely to be free.
 */
bool
lockext_try_at_head(Request *request, bool likely, Outcome *outcome)
{
	memset(outcome, 0, sizeof(*outcome));
	return (likely || look_first(request, outcome)) &&
		claim(request, outcome);
}

/*
 * A wait was in vain: find out what is in the way now.  If nothing is any more,
 * outcome stays as it was.
 */
void
lockext_why_not(Request *request, Outcome *outcome)
{
	Outcome		now;

	memset(&now, 0, sizeof(now));
	if (look_first(request, &now))
	{
		refuse_busy(&now, &request->name.tag, lockext_claim_mode(request));
		if (!now.blocker.found && no_queue(&request->name, &now))
			return;
	}
	*outcome = now;
}

/* ---------- refusing ---------- */

/* The given lock cannot be had at once in that mode. */
static bool
refuse_busy(Outcome *outcome, const LOCKTAG *tag, LOCKMODE mode)
{
	outcome->reason = LOCKEXT_REASON_BUSY;
	outcome->in_the_way = *tag;
	outcome->mode = mode;
	lockext_find_blocker(tag, mode, &outcome->blocker);
	return false;
}

/* The lock table is being rewritten, dropped or moved. */
static bool
refuse_table(const LockTable *table, Outcome *outcome)
{
	return refuse_busy(outcome, &table->refused, table->refused_mode);
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
look_first(Request *request, Outcome *outcome)
{
	const LockName *name = &request->name;
	const LockRow *mine = lockext_held_by_transaction(name);
	LockTable	table;
	LockRow		row;
	bool		found;
	bool		go_on = true;

	if (mine != NULL)
		return refuse_held(outcome, mine);

	lockext_xact_wal_begin();
	if (!lockext_table_open(&table, request->fn_oid, AccessShareLock, false))
		return refuse_table(&table, outcome);

	if (!lockext_row_look(&table, name, &row, &found))
		go_on = refuse_table(&table, outcome);
	else if (found)
	{
		lockext_row_must_be_sound(name, &row);
		if (lockext_row_holds(&row, GetCurrentTimestamp()))
			go_on = refuse_held(outcome, &row);
	}
	lockext_table_close(&table, false);
	lockext_xact_wal_is_minor();
	return go_on;
}

/*
 * Somebody who waits for the lock comes before us, unless this transaction keeps
 * KEY: then they wait for us.
 */
static bool
no_queue(const LockName *name, Outcome *outcome)
{
	LOCKTAG		tag;

	if (lockext_key_is_kept(name) || !lockext_is_waited_for(name, &tag))
		return true;
	return refuse_busy(outcome, &tag, ShareLock);
}

/* The mode in which KEY is kept if the lock is granted. */
LOCKMODE
lockext_claim_mode(const Request *request)
{
	return request->scope == LOCKEXT_SCOPE_TRANSACTION ? LOCKEXT_KEY_HOLD : LOCKEXT_KEY_CHANGE;
}

/* Take KEY and, if the lock is free then, the lock. */
static bool
claim(Request *request, Outcome *outcome)
{
	KeyLock		key;
	LOCKMODE	mode = lockext_claim_mode(request);

	bool		granted;

	if (!lockext_key_lock_to_look(&key, &request->name, mode))
		return refuse_busy(outcome, &request->name.tag, mode);
	granted = lockext_claim_with_key(request, &key, outcome);
	lockext_key_decided();
	return granted;
}

/*
 * Under KEY: if the lock is free, grant it.  KEY and, if a row was written, the
 * lock on the table stay until the end of the transaction if it is granted, and
 * are given back if not.
 */
bool
lockext_claim_with_key(Request *request, KeyLock *key, Outcome *outcome)
{
	LockTable	table;
	LockRow		row;
	bool		found;
	bool		writes = request->scope != LOCKEXT_SCOPE_TRANSACTION;
	bool		granted = false;

	if (!writes && claim_unlooked(request, outcome))
		return true;

	if (!lockext_table_open(&table, request->fn_oid,
							writes ? RowExclusiveLock : AccessShareLock, false))
		refuse_table(&table, outcome);
	else
	{
		if (!lockext_row_look(&table, &request->name, &row, &found))
			refuse_table(&table, outcome);
		else
			granted = grant(&table, request, found ? &row : NULL, outcome);

		/* what is new to this transaction was committed by another */
		if (outcome->row_valid && !granted && key->counted)
			lockext_seen_held(RelationGetRelid(table.rel), &request->name, &row);
		if (granted && !writes && key->counted)
			lockext_seen_free(RelationGetRelid(table.rel), &request->name,
							  outcome->row.acquired_at);
		lockext_table_close(&table, granted && writes);
	}
	if (!granted)
	{
		lockext_xact_wal_is_minor();
		lockext_key_give_back(key);
	}
	return granted;
}

/*
 * Under KEY, with scope "transaction": grant the lock if it is known that no row speaks
 * against it.  A snapshot that is older than the lock's last end calls for a warning,
 * and so for a look.
 */
static bool
claim_unlooked(Request *request, Outcome *outcome)
{
	Oid			relid = lockext_table_checked(request->fn_oid);
	TimestampTz now = GetCurrentTimestamp();

	if (IsolationUsesXactSnapshot() || !OidIsValid(relid) ||
		!lockext_seen_says_free(relid, &request->name, now))
		return false;

	if (request->waited)
		lockext_client_must_be_there();
	new_row(request, now, &outcome->row);
	outcome->row.token = lockext_next_token_by_clock(now);
	lockext_hold(&request->name, &outcome->row);
	return true;
}

/* Does the transaction's snapshot show how the lock in the table's slot ended? */
static bool
shows_the_end(LockTable *table, const LockName *name, const LockRow *old)
{
	bool		unused;
	HeapTuple	tuple = ExecFetchSlotHeapTuple(table->slot, false, &unused);

	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)) ||
		lockext_live_is_released(name, old->token))
		return true;
	return table_tuple_satisfies_snapshot(table->rel, table->slot, GetTransactionSnapshot()) &&
		lockext_row_idle_since(old) <= GetCurrentTransactionStartTimestamp();
}

/*
 * Under REPEATABLE READ and above the transaction goes on reading from a
 * snapshot that may be older than what the lock's last holder committed: if we
 * waited for it, if the snapshot does not show how the lock ended, or if it
 * expired only after this transaction began.
 */
static void
warn_if_snapshot_is_old(LockTable *table, const Request *request, const LockRow *old)
{
	if (!IsolationUsesXactSnapshot() || !FirstSnapshotSet)
		return;
	if (!request->waited && (old == NULL || shows_the_end(table, &request->name, old)))
		return;
	ereport(WARNING,
			(errmsg("%s changed hands after this transaction's snapshot was taken",
					lockext_name_display(&request->name)),
			 errdetail("What its last holder committed may not be visible to this transaction."),
			 errhint("Take the lock in a transaction before, or at READ COMMITTED.")));
}

/* Fill in the row of the new acquisition, all but its token. */
static void
new_row(const Request *request, TimestampTz now, LockRow *new)
{
	new->acquired_at = now;
	new->dboid = MyDatabaseId;
	new->owner = GetUserId();
	new->pid = MyProcPid;
	new->scope = request->scope;
	new->domain = request->name.domain;
	new->key = request->name.key;
	new->calling_fn = request->calling_fn != NULL ? request->calling_fn : lockext_caller_label();
	new->application_name = cstring_to_text(application_name ? application_name : "");
	new->timeout_ms = request->timeout_ms;
	new->expires_at = lockext_end_of(now, request->timeout_ms);
	new->released_at = DT_NOEND;
	new->client_addr = lockext_client_addr();
	new->data = request->data;
}

/* Write the new row, and what goes with it; false if somebody has locked the old one. */
static bool
write_row(LockTable *table, const LockRow *old, const LockName *name, LockRow *new)
{
	if (new->scope == LOCKEXT_SCOPE_SESSION)
	{
		lockext_live_sweep(table);
		new->token = lockext_live_take(name, new->token);
	}

	if (!lockext_row_write(table, old, new))
	{
		if (new->scope == LOCKEXT_SCOPE_SESSION)
			lockext_live_give_back(name, new->token);
		return false;
	}

	/* a lease must not be forgotten in a crash once its holder knows of it */
	if (new->scope == LOCKEXT_SCOPE_LEASE)
	{
		lockext_xact_durable();
		lockext_lease_taken(name);
	}
	else
		lockext_xact_wal_is_minor();
	lockext_xact_due(new->expires_at);
	return true;
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
		if (lockext_row_holds(old, now))
			return refuse_held(outcome, old);
	}

	if (request->waited)
		lockext_client_must_be_there();
	warn_if_snapshot_is_old(table, request, old);

	new_row(request, now, new);
	if (!lockext_next_token(table, old, now, &new->token))
		return refuse_table(table, outcome);
	if (request->scope == LOCKEXT_SCOPE_TRANSACTION)
	{
		lockext_hold(&request->name, new);
		lockext_shared_clock_passed(new->token);
	}
	else if (!write_row(table, old, &request->name, new))
	{
		outcome->reason = LOCKEXT_REASON_BUSY;
		return false;
	}
	return true;
}
