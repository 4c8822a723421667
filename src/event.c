/*
 * event.c
 *		lock_event(): locks for the steps of an event flow (requirements,
 *		lock-and-unlock.md).
 *
 * The event's payload names the lock by an id and takes up the result; how, says
 * event_meta.  Everything that can be wrong with them is found out before a lock is
 * touched.
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
#include "settings.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

/* More names than this in a path are a mistake. */
#define MAX_PATH 100

#define MEMBER(name) "member \"" name "\""

/* Members of event_meta, and of its parameters. */
enum
{
	DOMAIN,
	INPUT,
	OUTPUT,
	PARAMETERS,
	META_MEMBERS
};

enum
{
	MASTER,
	TIMEOUT,
	EXPIRY,
	ALLOW_NO_LOCK,
	PARAMETER_MEMBERS
};

/* Names of members, one below the other, from the payload's root. */
typedef struct Path
{
	int			n;
	const char *names[MAX_PATH];
	int			lengths[MAX_PATH];
} Path;

/* event_meta, read and checked */
typedef struct Meta
{
	text	   *domain;
	Path		input;
	Member		output;			/* what these three may be */
	bool		master;
	Member		timeout;		/* matters only to actions */
	Member		expiry;			/* that have a use for them */
	bool		allow_no_lock;
} Meta;

PG_FUNCTION_INFO_V1(lockext_event);

/* ---------- paths ---------- */

/* Append the dotted names in s; what is the member they come from. */
static void
append_names(Path *path, const char *what, const text *whole, const char *s, const char *end)
{
	for (;;)
	{
		const char *dot = memchr(s, '.', end - s);
		const char *stop = dot != NULL ? dot : end;

		if (stop == s || path->n == MAX_PATH)
			lockext_bad_value(what, lockext_show_text(whole),
							  "It is a list of 1 to 100 member names, none of them empty, separated by dots.", NULL);
		path->names[path->n] = s;
		path->lengths[path->n++] = stop - s;
		if (dot == NULL)
			return;
		s = dot + 1;
	}
}

/*
 * Append a path as event_meta gives it.  One that begins with $ is from the payload's
 * root, wherever the path was.
 */
static void
append_path(Path *path, const char *what, const text *given)
{
	const char *s = VARDATA_ANY(given);
	const char *end = s + VARSIZE_ANY_EXHDR(given);

	if (s < end && s[0] == '$' && (s + 1 == end || s[1] == '.'))
	{
		path->n = 0;
		if (s + 1 == end)
			return;
		s += 2;
	}
	append_names(path, what, given, s, end);
}

/* "-" stands for none, and so does nothing */
static bool
is_none(const Member *member)
{
	return VARSIZE_ANY_EXHDR(member->text) == 1 && VARDATA_ANY(member->text)[0] == '-';
}

/* The first names of the path, as messages show them. */
static char *
show_path(const Path *path, int n)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "payload");
	for (int i = 0; i < n; i++)
		appendStringInfo(&buf, ".%.*s", path->lengths[i], path->names[i]);
	return lockext_clip(cstring_to_text(buf.data));
}

/*
 * The objects along the path: elements[0] is the payload, elements[n] what the path
 * leads to; NULL where there is nothing.  Raises 22023 where there is something else
 * than an object.
 */
static void
walk(Jsonb *payload, const Path *path, Jsonb **elements)
{
	elements[0] = payload;
	for (int i = 0; i <= path->n; i++)
	{
		JsonbValue *value;

		if (elements[i] != NULL && !JB_ROOT_IS_OBJECT(elements[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("element \"%s\" is not an object", show_path(path, i)),
					 errdetail("Input and output elements are objects, and so is what they are in.")));
		if (i == path->n)
			return;
		value = elements[i] == NULL ? NULL
			: lockext_json_get(elements[i], path->names[i], path->lengths[i]);
		elements[i + 1] = value == NULL ? NULL : JsonbValueToJsonb(value);
	}
}

/* ---------- reading ---------- */

static void
read_parameters(const Member *parameters, Meta *meta)
{
	Member		members[PARAMETER_MEMBERS] = {
		[MASTER] = {"master", MEMBER_BOOLEAN},
		[TIMEOUT] = {"timeout", MEMBER_INTEGER},
		[EXPIRY] = {"expiry", MEMBER_INTEGER},
		[ALLOW_NO_LOCK] = {"allowNoLock", MEMBER_BOOLEAN}
	};

	if (parameters->given)
		lockext_json_read(&parameters->json->root, "parameters.", members, PARAMETER_MEMBERS);
	meta->master = members[MASTER].boolean;
	meta->allow_no_lock = members[ALLOW_NO_LOCK].boolean;
	meta->timeout = members[TIMEOUT];
	meta->expiry = members[EXPIRY];
}

/* event_meta may be NULL: as if it were empty. */
static void
read_meta(Jsonb *event_meta, Meta *meta)
{
	Member		members[META_MEMBERS] = {
		[DOMAIN] = {"domain", MEMBER_TEXT},
		[INPUT] = {"inputElement", MEMBER_TEXT},
		[OUTPUT] = {"outputElement", MEMBER_TEXT},
		[PARAMETERS] = {"parameters", MEMBER_OBJECT}
	};

	memset(meta, 0, sizeof(*meta));
	if (event_meta != NULL)
		lockext_json_read(&event_meta->root, "", members, META_MEMBERS);
	meta->domain = members[DOMAIN].given ? members[DOMAIN].text : cstring_to_text("");
	lockext_rule_domain(MEMBER("domain"), meta->domain);
	if (members[INPUT].given && !is_none(&members[INPUT]))
		append_path(&meta->input, MEMBER("inputElement"), members[INPUT].text);
	meta->output = members[OUTPUT];
	read_parameters(&members[PARAMETERS], meta);
}

/* An id as the text that is the lock's key (requirements, decision 15). */
static text *
read_id(Jsonb *payload, const Path *input)
{
	Jsonb	   *elements[MAX_PATH + 1];
	JsonbValue *id = NULL;
	text	   *key = NULL;
	char	   *what;

	walk(payload, input, elements);
	what = psprintf("\"%s.id\"", show_path(input, input->n));
	if (elements[input->n] != NULL)
		id = lockext_json_get(elements[input->n], "id", strlen("id"));
	if (id == NULL || id->type == jbvNull)
		lockext_bad_value(what, NULL, NULL,
						  "The lock is named by the id in the input element; a domain's master lock by the parameter master.");
	if (id->type == jbvString)
		key = cstring_to_text_with_len(id->val.string.val, id->val.string.len);
	else if (id->type == jbvNumeric)
		key = cstring_to_text(DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(id->val.numeric))));
	else if (id->type == jbvBool)
		key = cstring_to_text(id->val.boolean ? "true" : "false");
	else
		lockext_bad_value(what, lockext_json_show_value(id), "An id is a string, a number or a boolean.", NULL);
	lockext_rule_id(what, key);
	return key;
}

/* The lock that payload and event_meta name. */
static void
read_name(Jsonb *payload, const Meta *meta, LockName *name)
{
	/* neither needed nor read for a master lock (requirements, decision 13) */
	lockext_name_set(name, meta->domain,
					 meta->master ? cstring_to_text("") : read_id(payload, &meta->input));
}

/* ---------- writing ---------- */

static Jsonb *
merge(Jsonb *object, Jsonb *members)
{
	return object == NULL ? members
		: DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(object),
											 JsonbPGetDatum(members)));
}

/* The payload with the result in its output element. */
static Jsonb *
with_result(Jsonb *payload, const Meta *meta, bool locked)
{
	Path		path = meta->input;
	Jsonb	   *elements[MAX_PATH + 1];
	Jsonb	   *result;
	JsonbParseState *state;

	if (meta->output.given && is_none(&meta->output))
		return payload;
	if (meta->output.given)
		append_path(&path, MEMBER("outputElement"), meta->output.text);

	walk(payload, &path, elements);
	lockext_json_begin(&state);
	lockext_json_bool(&state, "locked", locked);
	result = merge(elements[path.n], lockext_json_end(&state));
	for (int i = path.n - 1; i >= 0; i--)
	{
		lockext_json_begin(&state);
		lockext_json_jsonb(&state, pnstrdup(path.names[i], path.lengths[i]), result);
		result = merge(elements[i], lockext_json_end(&state));
	}
	return result;
}

/* ---------- the actions ---------- */

static void
fail_not_locked(const LockName *name, const Outcome *outcome)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not obtain %s", lockext_name_display(name)),
			 errdetail_internal("%s", lockext_describe_holder(name, outcome)),
			 errhint("The parameter timeout waits for it; with allowNoLock the result is \"locked\": false instead.")));
}

static Jsonb *
try_lock(Oid fn_oid, Jsonb *payload, const Meta *meta)
{
	Request		request = {
		.fn_oid = fn_oid,.scope = LOCKEXT_SCOPE_LEASE
	};
	Outcome		outcome;
	Jsonb	   *locked;

	lockext_must_be_allowed(fn_oid, LOCKEXT_MAY_ACQUIRE);
	read_name(payload, meta, &request.name);
	request.wait_ms = meta->timeout.given
		? lockext_rule_wait(MEMBER("parameters.timeout"), meta->timeout.integer)
		: lockext_default_wait;
	request.timeout_ms = meta->expiry.given
		? lockext_rule_expiry(MEMBER("parameters.expiry"), meta->expiry.integer)
		: lockext_rule_expiry("setting \"lockext.default_expiry\"", lockext_default_expiry);

	/* whatever is wrong with the output element is found out before */
	locked = with_result(payload, meta, true);
	request.calling_fn = lockext_caller_label();
	if (lockext_acquire_now(&request, "lock_event()", &outcome))
		return locked;
	if (!meta->allow_no_lock)
		fail_not_locked(&request.name, &outcome);
	return with_result(payload, meta, false);
}

static Jsonb *
unlock(Oid fn_oid, Jsonb *payload, const Meta *meta)
{
	LockName	name;

	lockext_must_be_allowed(fn_oid, LOCKEXT_MAY_RELEASE);
	read_name(payload, meta, &name);
	(void) lockext_release_now(fn_oid, &name, -1, "lock_event()");
	return payload;
}

static Jsonb *
check_lock(Oid fn_oid, Jsonb *payload, const Meta *meta)
{
	LockName	name;
	LockTable	table;
	LockRow		row;
	bool		held;

	lockext_must_be_allowed(fn_oid, LOCKEXT_MAY_CHECK);
	read_name(payload, meta, &name);
	held = lockext_find_held(fn_oid, &name, &table, &row);
	lockext_table_close(&table, false);
	return with_result(payload, meta, held);
}

/* lock_event(action text, payload jsonb, event_meta jsonb) -> jsonb, the payload */
Datum
lockext_event(PG_FUNCTION_ARGS)
{
	static const struct
	{
		const char *name;
		Jsonb	   *(*perform) (Oid fn_oid, Jsonb *payload, const Meta *meta);
	}			actions[] = {
		{"TryLock", try_lock}, {"Unlock", unlock}, {"CheckLock", check_lock}
	};
	Jsonb	   *event_meta = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	Meta		meta;
	char	   *action;

	if (PG_ARGISNULL(0))
		lockext_bad_value("argument \"action\"", NULL, NULL, NULL);
	if (PG_ARGISNULL(1))
		lockext_bad_value("argument \"payload\"", NULL, NULL, NULL);
	if (event_meta != NULL && !JB_ROOT_IS_OBJECT(event_meta))
		lockext_bad_value("argument \"event_meta\"", lockext_json_show(event_meta),
						  "It is an object.", NULL);
	read_meta(event_meta, &meta);

	action = text_to_cstring(PG_GETARG_TEXT_PP(0));
	for (int i = 0; i < lengthof(actions); i++)
		if (strcmp(action, actions[i].name) == 0)
			PG_RETURN_JSONB_P(actions[i].perform(fcinfo->flinfo->fn_oid, PG_GETARG_JSONB_P(1), &meta));
	lockext_bad_value("argument \"action\"", lockext_show_text(PG_GETARG_TEXT_PP(0)),
					  "An action is \"TryLock\", \"Unlock\" or \"CheckLock\".", NULL);
}
