/*
 * request.c
 *		lock_request(): locks by JSON objects (requirements, acquire-lock.md).
 *
 * The reply says how it went, whatever that is: a request that is refused, wrong or
 * fails raises nothing.  It is a subtransaction, so that one that fails leaves
 * nothing behind.  Raised is only what ends the statement or the session: a cancel,
 * a shutdown, a connection that is lost.
 */
#include "postgres.h"

#include "acquire.h"
#include "args.h"
#include "caller.h"
#include "inspect.h"
#include "json.h"
#include "privilege.h"
#include "release.h"
#include "result.h"
#include "rules.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define MEMBER(name) "member \"" name "\""

typedef enum Operation
{
	ACQUIRE,
	RELEASE,
	CHECK,
	OPERATIONS
} Operation;

static Jsonb *acquire(Oid fn_oid, const Member *members);
static Jsonb *release(Oid fn_oid, const Member *members);
static Jsonb *check(Oid fn_oid, const Member *members);

/* The operations, and the documented replies to their failure. */
static const struct
{
	const char *name;
	Privilege	privilege;
	Jsonb	   *(*perform) (Oid fn_oid, const Member *members);
	const char *error;
	const char *code;
}			operations[] = {
	[ACQUIRE] = {"acquire", LOCKEXT_MAY_ACQUIRE, acquire, "Failed to acquire lock", "LOCK_ACQUISITION_ERROR"},
	[RELEASE] = {"release", LOCKEXT_MAY_RELEASE, release, "Failed to release lock", "LOCK_RELEASE_ERROR"},
	[CHECK] = {"check", LOCKEXT_MAY_CHECK, check, "Failed to check lock", "LOCK_CHECK_ERROR"}
};

enum
{
	OPERATION,
	KEY,
	DOMAIN,
	MASTER,
	TIMEOUT,
	CALLING_FN,
	WAIT,
	SCOPE,
	DATA,
	ON_CONFLICT,
	TOKEN,
	MEMBERS
};

#define FOR(operation) (1 << (operation))
#define FOR_ALL (FOR(ACQUIRE) | FOR(RELEASE) | FOR(CHECK))

/* The members of a request, and the operations that have them. */
static const struct
{
	const char *name;
	MemberType	type;
	int			operations;
}			request_members[] = {
	[OPERATION] = {"operation", MEMBER_TEXT, FOR_ALL},
	[KEY] = {"key", MEMBER_TEXT, FOR_ALL},
	[DOMAIN] = {"domain", MEMBER_TEXT, FOR_ALL},
	[MASTER] = {"master", MEMBER_BOOLEAN, FOR_ALL},
	[TIMEOUT] = {"timeout", MEMBER_INTEGER, FOR(ACQUIRE)},
	[CALLING_FN] = {"callingFn", MEMBER_TEXT, FOR(ACQUIRE)},
	[WAIT] = {"waitMs", MEMBER_INTEGER, FOR(ACQUIRE)},
	[SCOPE] = {"scope", MEMBER_TEXT, FOR(ACQUIRE)},
	[DATA] = {"data", MEMBER_ANY, FOR(ACQUIRE)},
	[ON_CONFLICT] = {"onConflict", MEMBER_TEXT, FOR(ACQUIRE)},
	[TOKEN] = {"token", MEMBER_INTEGER, FOR(RELEASE)}
};

PG_FUNCTION_INFO_V1(lockext_request);

/* ---------- reading ---------- */

static Operation
read_operation(Jsonb *request)
{
	static const char rule[] = "It is \"acquire\", \"release\" or \"check\".";
	JsonbValue *value = lockext_json_get(request, "operation", strlen("operation"));

	if (value == NULL || value->type == jbvNull)
		lockext_bad_value(MEMBER("operation"), NULL, rule, NULL);
	for (Operation o = 0; o < OPERATIONS; o++)
		if (value->type == jbvString &&
			value->val.string.len == strlen(operations[o].name) &&
			memcmp(value->val.string.val, operations[o].name, value->val.string.len) == 0)
			return o;
	lockext_bad_value(MEMBER("operation"), lockext_json_show_value(value), rule, NULL);
}

static void
read_members(Jsonb *request, Operation operation, Member *members)
{
	for (int i = 0; i < MEMBERS; i++)
	{
		bool		applies = request_members[i].operations & FOR(operation);

		members[i] = (Member) {
			.name = request_members[i].name,
				.type = applies ? request_members[i].type : MEMBER_NONE
		};
	}
	lockext_json_read(&request->root, "", members, MEMBERS);
}

static void
read_name(const Member *members, LockName *name)
{
	text	   *domain = members[DOMAIN].given ? members[DOMAIN].text : cstring_to_text("");
	text	   *key = members[KEY].text;

	lockext_rule_domain(MEMBER("domain"), domain);
	if (members[MASTER].given && members[MASTER].boolean)
	{
		if (members[KEY].given)
			lockext_bad_value(MEMBER("key"), lockext_show_text(key),
							  "A request names a lock by its key, or with \"master\" the domain's own.", NULL);
		key = cstring_to_text("");
	}
	else if (!members[KEY].given)
		lockext_bad_value(MEMBER("key"), NULL, NULL,
						  "A domain's master lock is named by \"master\": true.");
	else
		lockext_rule_key(MEMBER("key"), key);
	lockext_name_set(name, domain, key);
}

/* Is a refusal to be replied to by an error? */
static bool
read_on_conflict(const Member *member)
{
	if (!member->given || strcmp(text_to_cstring(member->text), "return") == 0)
		return false;
	if (strcmp(text_to_cstring(member->text), "error") != 0)
		lockext_bad_value(MEMBER("onConflict"), lockext_show_text(member->text),
						  "It is \"return\" or \"error\".", NULL);
	return true;
}

static void
read_acquire(const Member *members, Request *request)
{
	read_name(members, &request->name);
	request->scope = members[SCOPE].given
		? lockext_rule_scope(MEMBER("scope"), members[SCOPE].text) : LOCKEXT_SCOPE_LEASE;
	request->timeout_ms = lockext_rule_timeout(MEMBER("timeout"), members[TIMEOUT].given,
											   members[TIMEOUT].integer, request->scope);
	request->wait_ms = members[WAIT].given
		? lockext_rule_wait(MEMBER("waitMs"), members[WAIT].integer) : 0;
	if (members[CALLING_FN].given)
		lockext_rule_label(MEMBER("callingFn"), members[CALLING_FN].text);
	request->calling_fn = members[CALLING_FN].given
		? members[CALLING_FN].text : lockext_caller_label();
	if (members[DATA].given)
		lockext_rule_data(MEMBER("data"), members[DATA].json);
	request->data = members[DATA].json;
}

/* ---------- replies ---------- */

/* A reply begins with the key, which is null for a master lock. */
static void
begin_reply(JsonbParseState **reply, const LockName *name)
{
	lockext_json_begin(reply);
	lockext_json_text(reply, "key", lockext_name_is_master(name) ? NULL : name->key);
}

static Jsonb *
error_reply(const char *error, const char *code, Jsonb *data)
{
	JsonbParseState *reply;

	lockext_json_begin(&reply);
	lockext_json_bool(&reply, "success", false);
	lockext_json_string(&reply, "error", error);
	lockext_json_string(&reply, "code", code);
	if (data != NULL)
		lockext_json_jsonb(&reply, "data", data);
	return lockext_json_end(&reply);
}

static Jsonb *
validation_reply(const ErrorData *error)
{
	JsonbParseState *data;

	if (error->detail == NULL && error->hint == NULL)
		return error_reply(error->message, "VALIDATION_ERROR", NULL);
	lockext_json_begin(&data);
	if (error->detail != NULL)
		lockext_json_string(&data, "detail", error->detail);
	if (error->hint != NULL)
		lockext_json_string(&data, "hint", error->hint);
	return error_reply(error->message, "VALIDATION_ERROR", lockext_json_end(&data));
}

/* The documented replies have no room for the cause: that goes out as a warning. */
static void
warn_of_cause(const ErrorData *error, Operation operation)
{
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("%s: %s (SQLSTATE %s)", operations[operation].error, error->message,
					unpack_sql_state(error->sqlerrcode)),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 error->hint != NULL ? errhint("%s", error->hint) : 0,
			 error->context != NULL ? errcontext("%s", error->context) : 0));
}

static Jsonb *
reply_to_error(const ErrorData *error, Operation operation)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_INVALID_PARAMETER_VALUE:
			return validation_reply(error);
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			warn_of_cause(error, operation);
			return error_reply("Invalid API key", "INVALID_API_KEY", NULL);
		default:
			warn_of_cause(error, operation);
			return error_reply(operations[operation].error, operations[operation].code, NULL);
	}
}

/* ---------- the operations ---------- */

static Jsonb *
acquire(Oid fn_oid, const Member *members)
{
	Request		request = {.fn_oid = fn_oid};
	Outcome		outcome;
	JsonbParseState *reply;
	bool		acquired;
	bool		conflict_is_error = read_on_conflict(&members[ON_CONFLICT]);

	read_acquire(members, &request);
	acquired = lockext_acquire_now(&request, "lock_request()", &outcome);

	begin_reply(&reply, &request.name);
	lockext_json_text(&reply, "callingFn", request.calling_fn);
	lockext_json_bool(&reply, "acquired", acquired);
	if (!acquired)
	{
		Jsonb	   *refusal = lockext_json_end(&reply);

		return !conflict_is_error ? refusal
			: error_reply("Lock already exists or is being processed", "LOCK_CONFLICT", refusal);
	}
	lockext_json_timestamp(&reply, "timestamp", outcome.row.acquired_at);
	lockext_json_int(&reply, "token", outcome.row.token);
	if (outcome.row.timeout_ms != -1)
	{
		lockext_json_seconds(&reply, "timeout", outcome.row.timeout_ms);
		lockext_json_timestamp(&reply, "expiresAt", outcome.row.expires_at);
	}
	return lockext_json_end(&reply);
}

static Jsonb *
release(Oid fn_oid, const Member *members)
{
	LockName	name;
	JsonbParseState *reply;
	int64		token = -1;
	bool		released;

	read_name(members, &name);
	if (members[TOKEN].given)
		token = lockext_rule_token(MEMBER("token"), members[TOKEN].integer);
	released = lockext_release_now(fn_oid, &name, token, "lock_request()");

	begin_reply(&reply, &name);
	lockext_json_bool(&reply, "released", released);
	lockext_json_timestamp(&reply, "timestamp", GetCurrentTimestamp());
	return lockext_json_end(&reply);
}

/* Of a lock that another transaction holds with scope "transaction" only the owner is known. */
static Jsonb *
lock_info(const LockName *name, const LockRow *row)
{
	JsonbParseState *info;
	bool		known = row->token != 0;

	begin_reply(&info, name);
	lockext_json_text(&info, "callingFn", known ? row->calling_fn : cstring_to_text("unknown"));
	lockext_json_timestamp(&info, "timestamp", known ? row->acquired_at : DT_NOEND);
	lockext_json_seconds(&info, "timeoutSeconds", known ? row->timeout_ms : -1);
	lockext_json_string(&info, "appId",
						OidIsValid(row->owner) ? lockext_role_name(row->owner) : NULL);
	return lockext_json_end(&info);
}

static Jsonb *
check(Oid fn_oid, const Member *members)
{
	LockName	name;
	LockTable	table;
	LockRow		row;
	JsonbParseState *reply;
	bool		held;

	read_name(members, &name);
	held = lockext_find_held(fn_oid, &name, &table, &row);

	begin_reply(&reply, &name);
	lockext_json_bool(&reply, "exists", held);
	if (held)
		lockext_json_jsonb(&reply, "lockInfo", lock_info(&name, &row));
	else
		lockext_json_string(&reply, "lockInfo", NULL);
	lockext_json_timestamp(&reply, "timestamp", GetCurrentTimestamp());
	lockext_table_close(&table, false);
	return lockext_json_end(&reply);
}

/* *operation is set as soon as it is known. */
static Jsonb *
perform(FunctionCallInfo fcinfo, volatile Operation *operation)
{
	Oid			fn_oid = fcinfo->flinfo->fn_oid;
	Jsonb	   *request;
	Member		members[MEMBERS];

	if (PG_ARGISNULL(0))
		lockext_bad_value("the request", NULL, "It is an object.", NULL);
	request = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_OBJECT(request))
		lockext_bad_value("the request", lockext_json_show(request), "It is an object.", NULL);

	*operation = read_operation(request);
	lockext_must_be_allowed(fn_oid, operations[*operation].privilege);
	read_members(request, *operation, members);
	return operations[*operation].perform(fn_oid, members);
}

/* Must the error reach the client as one?  It ends the statement, or the session. */
static bool
is_end_of_statement(const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return category == ERRCODE_OPERATOR_INTERVENTION ||
		category == ERRCODE_CONNECTION_EXCEPTION;
}

/* lock_request(request jsonb) -> jsonb */
Datum
lockext_request(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile Operation operation = OPERATIONS;
	Jsonb	   *volatile reply = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		reply = perform(fcinfo, &operation);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (is_end_of_statement(error) ||
			(operation == OPERATIONS && error->sqlerrcode != ERRCODE_INVALID_PARAMETER_VALUE))
			ReThrowError(error);
		reply = reply_to_error(error, operation);
		FreeErrorData(error);
	}
	PG_END_TRY();
	PG_RETURN_JSONB_P(reply);
}
