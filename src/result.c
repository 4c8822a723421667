/*
 * result.c
 *		The rows that lockext's functions return: lock_result and lock_info.
 */
#include "postgres.h"

#include "result.h"
#include "waiters.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
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

enum
{
	INFO_KEY,
	INFO_DOMAIN,
	INFO_MASTER,
	INFO_HELD,
	INFO_OWNER,
	INFO_SCOPE,
	INFO_CALLING_FN,
	INFO_ACQUIRED_AT,
	INFO_TIMEOUT,
	INFO_EXPIRES_AT,
	INFO_TOKEN,
	INFO_PID,
	INFO_APPLICATION_NAME,
	INFO_CLIENT_ADDR,
	INFO_DATA,
	INFO_WAITERS
};

StaticAssertDecl(INFO_WAITERS + 1 == LOCKEXT_INFO_COLUMNS, "lock_info has 16 columns");

static Jsonb *holder_of_row(const LockRow *row);
static Jsonb *holder_of_blocker(const Blocker *blocker);

static void
set(Datum *values, bool *nulls, int column, Datum value)
{
	values[column] = value;
	nulls[column] = false;
}

/* The row type of the function being called. */
static TupleDesc
result_desc(FunctionCallInfo fcinfo)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type is not a row type");
	return BlessTupleDesc(desc);
}

/* Milliseconds as seconds, exactly and without needless zeros. */
static Datum
seconds(int64 ms)
{
	if (ms % 1000 == 0)
		return NumericGetDatum(int64_to_numeric(ms / 1000));
	return NumericGetDatum(int64_div_fast_to_numeric(ms, 3));
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
			set(values, nulls, RESULT_TIMEOUT, seconds(row->timeout_ms));
			set(values, nulls, RESULT_EXPIRES_AT, TimestampTzGetDatum(row->expires_at));
		}
	}
	else
	{
		set(values, nulls, RESULT_REASON, CStringGetTextDatum(outcome->reason));
		if (outcome->row_valid)
			set(values, nulls, RESULT_HOLDER, JsonbPGetDatum(holder_of_row(row)));
		else if (outcome->blocker.found)
			set(values, nulls, RESULT_HOLDER,
				JsonbPGetDatum(holder_of_blocker(&outcome->blocker)));
	}
	return heap_form_tuple(desc, values, nulls);
}

/* lock_result */
Datum
lockext_form_result(FunctionCallInfo fcinfo, const LockName *name,
					text *calling_fn, const Outcome *outcome)
{
	return HeapTupleGetDatum(form_result(result_desc(fcinfo), name, calling_fn, outcome));
}

/* The result row of a procedure, whose only column is a lock_result. */
Datum
lockext_form_call_result(FunctionCallInfo fcinfo, const LockName *name,
						 text *calling_fn, const Outcome *outcome)
{
	TupleDesc	desc = result_desc(fcinfo);
	TupleDesc	inner = lookup_rowtype_tupdesc_copy(TupleDescAttr(desc, 0)->atttypid, -1);
	Datum		value = HeapTupleGetDatum(form_result(inner, name, calling_fn, outcome));
	bool		null = false;

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
		set(values, nulls, INFO_KEY, PointerGetDatum(name->key));
	set(values, nulls, INFO_DOMAIN, PointerGetDatum(name->domain));
	set(values, nulls, INFO_MASTER, BoolGetDatum(lockext_name_is_master(name)));
	set(values, nulls, INFO_HELD, BoolGetDatum(row != NULL));
	n = lockext_count_waiters(name);
	if (n >= 0)
		set(values, nulls, INFO_WAITERS, Int32GetDatum(n));
	if (row == NULL)
		return;

	set(values, nulls, INFO_SCOPE, CStringGetTextDatum(lockext_scope_name(row->scope)));
	if (OidIsValid(row->owner))
		set(values, nulls, INFO_OWNER, CStringGetTextDatum(lockext_role_name(row->owner)));
	if (row->pid != 0)
		set(values, nulls, INFO_PID, Int32GetDatum(row->pid));
	if (row->token == 0)
		return;					/* of another's transaction no more is known */

	set(values, nulls, INFO_CALLING_FN, PointerGetDatum(row->calling_fn));
	set(values, nulls, INFO_ACQUIRED_AT, TimestampTzGetDatum(row->acquired_at));
	set(values, nulls, INFO_APPLICATION_NAME, PointerGetDatum(row->application_name));
	if (row->timeout_ms != -1)
	{
		set(values, nulls, INFO_TIMEOUT, seconds(row->timeout_ms));
		set(values, nulls, INFO_EXPIRES_AT, TimestampTzGetDatum(row->expires_at));
	}
	if (has_privs_of_role(GetUserId(), row->owner) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
	{
		set(values, nulls, INFO_TOKEN, Int64GetDatum(row->token));
		if (row->client_addr != NULL)
			set(values, nulls, INFO_CLIENT_ADDR, PointerGetDatum(row->client_addr));
		if (row->data != NULL)
			set(values, nulls, INFO_DATA, JsonbPGetDatum(row->data));
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

	lockext_fill_info(name, row, values, nulls);
	return HeapTupleGetDatum(heap_form_tuple(result_desc(fcinfo), values, nulls));
}

/* ---------- the holder, as jsonb ---------- */

static void
push_value(JsonbParseState **state, const char *member, JsonbValue *value)
{
	JsonbValue	name;

	name.type = jbvString;
	name.val.string.val = unconstify(char *, member);
	name.val.string.len = strlen(member);
	pushJsonbValue(state, WJB_KEY, &name);
	pushJsonbValue(state, WJB_VALUE, value);
}

static void
push_text(JsonbParseState **state, const char *member, const char *s, int len)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, s);
	value.val.string.len = len;
	push_value(state, member, &value);
}

static void
push_int(JsonbParseState **state, const char *member, int64 n)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(n);
	push_value(state, member, &value);
}

static void
push_null(JsonbParseState **state, const char *member)
{
	JsonbValue	value;

	value.type = jbvNull;
	push_value(state, member, &value);
}

/* ISO 8601 in UTC with milliseconds, whatever DateStyle and TimeZone say. */
static void
push_timestamp(JsonbParseState **state, const char *member, TimestampTz t)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char	   *s;

	if (t == DT_NOEND)
	{
		push_null(state, member);
		return;
	}
	if (timestamp2tm(t, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	s = psprintf("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
				 tm.tm_year, tm.tm_mon, tm.tm_mday,
				 tm.tm_hour, tm.tm_min, tm.tm_sec, (int) (fsec / 1000));
	push_text(state, member, s, strlen(s));
}

static Jsonb *
holder_of_row(const LockRow *row)
{
	JsonbParseState *state = NULL;
	char	   *owner = lockext_role_name(row->owner);
	const char *scope = lockext_scope_name(row->scope);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "owner", owner, strlen(owner));
	push_text(&state, "calling_fn", VARDATA_ANY(row->calling_fn),
			  VARSIZE_ANY_EXHDR(row->calling_fn));
	push_timestamp(&state, "since", row->acquired_at);
	push_timestamp(&state, "expires_at", row->expires_at);
	push_text(&state, "scope", scope, strlen(scope));
	push_int(&state, "pid", row->pid);
	push_text(&state, "application_name", VARDATA_ANY(row->application_name),
			  VARSIZE_ANY_EXHDR(row->application_name));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Of an open transaction only process and role are known; of a prepared one, nothing. */
static Jsonb *
holder_of_blocker(const Blocker *blocker)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (blocker->prepared)
	{
		push_null(&state, "owner");
		push_null(&state, "pid");
	}
	else
	{
		char	   *owner = lockext_role_name(blocker->roleid);

		push_text(&state, "owner", owner, strlen(owner));
		push_int(&state, "pid", blocker->pid);
	}
	if (blocker->holds)
		push_text(&state, "scope", "transaction", strlen("transaction"));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
