/*
 * result.c
 *		The rows that lockext's functions return: lock_result and lock_info.
 */
#include "postgres.h"

#include "json.h"
#include "own.h"
#include "result.h"
#include "waiters.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

enum
{
	RESULT_KEY,
	RESULT_DOMAIN,
	RESULT_ACQUIRED,
	RESULT_REASON,
	RESULT_CALLING_FN,
	RESULT_ACQUIRED_AT,
	RESULT_TIMEOUT,
	RESULT_EXPIRES_AT,
	RESULT_TOKEN,
	RESULT_WAITED_MS,
	RESULT_HOLDER,
	RESULT_COLUMNS
};

static void
set(Datum *values, bool *nulls, int column, Datum value)
{
	values[column] = value;
	nulls[column] = false;
}

/* Raises 42809 if somebody with the rights to do so has altered the row type. */
void
lockext_must_have_columns(TupleDesc desc, int columns)
{
	if (desc->natts != columns)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("type %s was altered", format_type_be(desc->tdtypeid)),
				 errhint("Drop and create the extension \"lockext\" again.")));
}

/*
 * The row type of the function being called, a named one; to be given back by
 * ReleaseTupleDesc().  get_call_result_type() would make a copy each time.
 */
static TupleDesc
result_desc(FunctionCallInfo fcinfo, int columns)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(get_func_rettype(fcinfo->flinfo->fn_oid), -1);

	lockext_must_have_columns(desc, columns);
	return desc;
}

/*
 * That of a procedure, made from its INOUT arguments.  It takes some time, which a call
 * that waits has before its turn.
 */
TupleDesc
lockext_call_result_desc(FunctionCallInfo fcinfo)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type is not a row type");
	return BlessTupleDesc(desc);
}

/* Milliseconds as seconds, exactly and without needless zeros. */
Numeric
lockext_seconds(int64 ms)
{
	if (ms % 1000 == 0)
		return int64_to_numeric(ms / 1000);
	return int64_div_fast_to_numeric(ms, 3);
}

/* The role's name; that of a dropped role is its number. */
char *
lockext_role_name(Oid roleid)
{
	char	   *name = GetUserNameFromId(roleid, true);

	return name != NULL ? name : psprintf("%u", roleid);
}

/* The scope as arguments and results have it. */
const char *
lockext_scope_name(char scope)
{
	switch (scope)
	{
		case LOCKEXT_SCOPE_LEASE:
			return "lease";
		case LOCKEXT_SCOPE_SESSION:
			return "session";
		default:
			Assert(scope == LOCKEXT_SCOPE_TRANSACTION);
			return "transaction";
	}
}

/*
 * Keep what lock_result shows of a row, which may go away with the slot it was
 * read from.
 */
void
lockext_outcome_row(Outcome *outcome, const LockRow *row)
{
	outcome->row = *row;
	outcome->row.domain = outcome->row.key = NULL;
	outcome->row.client_addr = NULL;
	outcome->row.data = NULL;
	outcome->row.calling_fn = DatumGetTextPCopy(PointerGetDatum(row->calling_fn));
	outcome->row.application_name =
		DatumGetTextPCopy(PointerGetDatum(row->application_name));
	outcome->row_valid = true;
}

/* lock_result */
static HeapTuple
form_result(TupleDesc desc, const LockName *name, text *calling_fn, const Outcome *outcome)
{
	const LockRow *row = &outcome->row;
	Datum		values[RESULT_COLUMNS];
	bool		nulls[RESULT_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	if (!lockext_name_is_master(name))
		set(values, nulls, RESULT_KEY, PointerGetDatum(name->key));
	set(values, nulls, RESULT_DOMAIN, PointerGetDatum(name->domain));
	set(values, nulls, RESULT_ACQUIRED, BoolGetDatum(outcome->reason == NULL));
	set(values, nulls, RESULT_CALLING_FN, PointerGetDatum(calling_fn));
	set(values, nulls, RESULT_WAITED_MS, Int64GetDatum(outcome->waited_ms));

	if (outcome->reason == NULL)
	{
		set(values, nulls, RESULT_ACQUIRED_AT, TimestampTzGetDatum(row->acquired_at));
		set(values, nulls, RESULT_TOKEN, Int64GetDatum(row->token));
		if (row->timeout_ms != -1)
		{
			set(values, nulls, RESULT_TIMEOUT, NumericGetDatum(lockext_seconds(row->timeout_ms)));
			set(values, nulls, RESULT_EXPIRES_AT, TimestampTzGetDatum(row->expires_at));
		}
	}
	else
	{
		Jsonb	   *holder = lockext_holder(outcome);

		set(values, nulls, RESULT_REASON, CStringGetTextDatum(outcome->reason));
		if (holder != NULL)
			set(values, nulls, RESULT_HOLDER, JsonbPGetDatum(holder));
	}
	return heap_form_tuple(desc, values, nulls);
}

/* lock_result */
Datum
lockext_form_result(FunctionCallInfo fcinfo, const LockName *name,
					text *calling_fn, const Outcome *outcome)
{
	TupleDesc	desc = result_desc(fcinfo, RESULT_COLUMNS);
	HeapTuple	tuple = form_result(desc, name, calling_fn, outcome);

	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(tuple);
}

/* The result row of a procedure, whose only column is a lock_result. */
Datum
lockext_form_call_result(TupleDesc desc, const LockName *name,
						 text *calling_fn, const Outcome *outcome)
{
	TupleDesc	inner = lookup_rowtype_tupdesc(TupleDescAttr(desc, 0)->atttypid, -1);
	Datum		value;
	bool		null = false;

	lockext_must_have_columns(inner, RESULT_COLUMNS);
	value = HeapTupleGetDatum(form_result(inner, name, calling_fn, outcome));
	ReleaseTupleDesc(inner);
	return HeapTupleGetDatum(heap_form_tuple(desc, &value, &null));
}

/*
 * lock_info of a lock; row is NULL if nobody holds it.  A row that comes from
 * lockext_row_of_blocker() has no more than owner, pid and scope.
 *
 * A token is a capability, and data and client address are the holder's
 * business: they are shown to roles with the privileges of the owner or of
 * pg_read_all_stats.
 */
void
lockext_fill_info(const LockName *name, const LockRow *row, Datum *values, bool *nulls)
{
	int			n;

	memset(nulls, true, LOCKEXT_INFO_COLUMNS * sizeof(bool));
	if (!lockext_name_is_master(name))
		set(values, nulls, LOCKEXT_INFO_KEY, PointerGetDatum(name->key));
	set(values, nulls, LOCKEXT_INFO_DOMAIN, PointerGetDatum(name->domain));
	set(values, nulls, LOCKEXT_INFO_MASTER, BoolGetDatum(lockext_name_is_master(name)));
	set(values, nulls, LOCKEXT_INFO_HELD, BoolGetDatum(row != NULL));
	n = lockext_count_waiters(name);
	if (n >= 0)
		set(values, nulls, LOCKEXT_INFO_WAITERS, Int32GetDatum(n));
	if (row == NULL)
		return;

	set(values, nulls, LOCKEXT_INFO_SCOPE, CStringGetTextDatum(lockext_scope_name(row->scope)));
	if (OidIsValid(row->owner))
		set(values, nulls, LOCKEXT_INFO_OWNER, CStringGetTextDatum(lockext_role_name(row->owner)));
	if (row->pid != 0)
		set(values, nulls, LOCKEXT_INFO_PID, Int32GetDatum(row->pid));
	if (row->token == 0)
		return;					/* of another's transaction no more is known */

	set(values, nulls, LOCKEXT_INFO_CALLING_FN, PointerGetDatum(row->calling_fn));
	set(values, nulls, LOCKEXT_INFO_ACQUIRED_AT, TimestampTzGetDatum(row->acquired_at));
	set(values, nulls, LOCKEXT_INFO_APPLICATION_NAME, PointerGetDatum(row->application_name));
	if (row->timeout_ms != -1)
	{
		set(values, nulls, LOCKEXT_INFO_TIMEOUT, NumericGetDatum(lockext_seconds(row->timeout_ms)));
		set(values, nulls, LOCKEXT_INFO_EXPIRES_AT, TimestampTzGetDatum(row->expires_at));
	}
	if (has_privs_of_role(GetUserId(), row->owner) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
	{
		set(values, nulls, LOCKEXT_INFO_TOKEN, Int64GetDatum(row->token));
		if (row->client_addr != NULL)
			set(values, nulls, LOCKEXT_INFO_CLIENT_ADDR, PointerGetDatum(row->client_addr));
		if (row->data != NULL)
			set(values, nulls, LOCKEXT_INFO_DATA, JsonbPGetDatum(row->data));
	}
}

/* What is known of a transaction that holds a lock with scope "transaction". */
void
lockext_row_of_blocker(LockRow *row, const Blocker *blocker)
{
	memset(row, 0, sizeof(*row));
	row->scope = LOCKEXT_SCOPE_TRANSACTION;
	row->owner = blocker->roleid;
	row->pid = blocker->pid;
}

Datum
lockext_form_info(FunctionCallInfo fcinfo, const LockName *name, const LockRow *row)
{
	Datum		values[LOCKEXT_INFO_COLUMNS];
	bool		nulls[LOCKEXT_INFO_COLUMNS];
	TupleDesc	desc = result_desc(fcinfo, LOCKEXT_INFO_COLUMNS);
	HeapTuple	tuple;

	lockext_fill_info(name, row, values, nulls);
	tuple = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(tuple);
}

/* ---------- the holder, as jsonb ---------- */

/* In the order that jsonb has them in, which saves it from sorting them. */
static Jsonb *
holder_of_row(const LockRow *row)
{
	JsonbParseState *state;

	lockext_json_begin(&state);
	lockext_json_int(&state, "pid", row->pid);
	lockext_json_string(&state, "owner", lockext_role_name(row->owner));
	lockext_json_string(&state, "scope", lockext_scope_name(row->scope));
	lockext_json_timestamp(&state, "since", row->acquired_at);
	lockext_json_text(&state, "calling_fn", row->calling_fn);
	lockext_json_timestamp(&state, "expires_at", row->expires_at);
	lockext_json_text(&state, "application_name", row->application_name);
	return lockext_json_end(&state);
}

/* Of an open transaction only process and role are known; of a prepared one, nothing. */
static Jsonb *
holder_of_blocker(const Blocker *blocker)
{
	JsonbParseState *state;

	lockext_json_begin(&state);
	if (blocker->prepared)
	{
		lockext_json_string(&state, "owner", NULL);
		lockext_json_string(&state, "pid", NULL);
	}
	else
	{
		lockext_json_string(&state, "owner", lockext_role_name(blocker->roleid));
		lockext_json_int(&state, "pid", blocker->pid);
	}
	if (blocker->holds)
		lockext_json_string(&state, "scope", "transaction");
	return lockext_json_end(&state);
}

/* Who stands in the way; NULL if that is not known. */
Jsonb *
lockext_holder(const Outcome *outcome)
{
	if (outcome->holder != NULL)
		return outcome->holder;
	if (outcome->row_valid)
		return holder_of_row(&outcome->row);
	return outcome->blocker.found ? holder_of_blocker(&outcome->blocker) : NULL;
}

/* ---------- the holder, in messages ---------- */

char *
lockext_describe_blocker(const Blocker *blocker)
{
	if (!blocker->found)
		return "A transaction that used it has just ended.";
	if (blocker->prepared)
		return "A prepared transaction uses it.";
	return psprintf("An open transaction of process %d, role \"%s\", uses it.",
					blocker->pid, lockext_role_name(blocker->roleid));
}

/* Who stands in the way, for a detail.  name: of a lock that was to be taken, or NULL. */
char *
lockext_describe_holder(const LockName *name, const Outcome *outcome)
{
	const LockRow *row = &outcome->row;

	if (!outcome->row_valid)
		return lockext_describe_blocker(&outcome->blocker);
	if (name != NULL && lockext_row_is_mine(name, row))
		return psprintf("This session took it (%s) at %s; it does not wait for itself.",
						lockext_clip(row->calling_fn), timestamptz_to_str(row->acquired_at));
	return psprintf("Role \"%s\" holds it (%s, process %d) since %s.",
					lockext_role_name(row->owner), lockext_clip(row->calling_fn),
					row->pid, timestamptz_to_str(row->acquired_at));
}
