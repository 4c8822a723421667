/*
 * json.c
 *		Reading JSON objects by their members, and writing them.
 *
 * All messages about members of an object are here and in rules.c.
 */
#include "postgres.h"

#include "compat.h"
#include "json.h"
#include "names.h"
#include "result.h"
#include "rules.h"

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

/* What is longer is not shown in messages. */
#define SHOW_BYTES 100000

/* ---------- reading ---------- */

/* As messages show it. */
char *
lockext_json_show(Jsonb *json)
{
	if (VARSIZE(json) > SHOW_BYTES)
		return psprintf("%zu bytes of jsonb", (size_t) VARSIZE(json));
	return lockext_clip(cstring_to_text(JsonbToCString(NULL, &json->root, VARSIZE(json))));
}

char *
lockext_json_show_value(JsonbValue *value)
{
	return lockext_json_show(JsonbValueToJsonb(value));
}

/* The member of that name, or NULL. */
JsonbValue *
lockext_json_get(Jsonb *object, const char *name, int len)
{
	return getKeyJsonValueFromContainer(&object->root, name, len, NULL);
}

/* Is it a whole number that fits? */
static bool
read_integer(Numeric number, int64 *result)
{
	Datum		value = NumericGetDatum(number);
	Datum		whole = DirectFunctionCall2(numeric_trunc, value, Int32GetDatum(0));
	Datum		least = NumericGetDatum(int64_to_numeric(PG_INT64_MIN));
	Datum		greatest = NumericGetDatum(int64_to_numeric(PG_INT64_MAX));

	if (!DatumGetBool(DirectFunctionCall2(numeric_eq, value, whole)) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, value, least)) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, value, greatest)))
		return false;
	*result = DatumGetInt64(DirectFunctionCall1(numeric_int8, value));
	return true;
}

/* False if it is of another type. */
static bool
read_value(Member *member, JsonbValue *value)
{
	switch (member->type)
	{
		case MEMBER_TEXT:
			if (value->type != jbvString)
				return false;
			member->text = cstring_to_text_with_len(value->val.string.val,
													value->val.string.len);
			return true;

		case MEMBER_INTEGER:
			return value->type == jbvNumeric &&
				read_integer(value->val.numeric, &member->integer);

		case MEMBER_BOOLEAN:
			if (value->type != jbvBool)
				return false;
			member->boolean = value->val.boolean;
			return true;

		case MEMBER_OBJECT:
			if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
				return false;
			break;

		case MEMBER_ANY:
			break;

		case MEMBER_NONE:
			return false;
	}
	member->json = JsonbValueToJsonb(value);
	return true;
}

static void
read_member(const char *path, Member *member, JsonbValue *value)
{
	static const char *const rules[] = {
		"It is a string.", "It is a whole number, of at most 64 bits.", "It is true or false.",
		"It is an object.", NULL, NULL
	};

	if (value->type == jbvNull)
		return;
	if (!read_value(member, value))
		lockext_bad_value(psprintf("member \"%s%s\"", path, member->name),
						  lockext_json_show_value(value), rules[member->type], NULL);
	member->given = true;
}

static Member *
find_member(Member *members, int n, const JsonbValue *name)
{
	for (int i = 0; i < n; i++)
		if (strlen(members[i].name) == name->val.string.len &&
			memcmp(members[i].name, name->val.string.val, name->val.string.len) == 0)
			return &members[i];
	return NULL;
}

/* Those that may be given, separated by commas. */
static char *
member_names(const Member *members, int n)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < n; i++)
		if (members[i].type != MEMBER_NONE)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "", members[i].name);
	return buf.data;
}

/*
 * Read an object that may have these members; path, which ends in a dot if it is
 * not empty, is where it is found.  A member that is null counts as not given.
 * Raises 22023 for a member that it may not have and for a value of the wrong type.
 */
void
lockext_json_read(JsonbContainer *object, const char *path, Member *members, int n)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	name;
	JsonbValue	value;

	(void) JsonbIteratorNext(&it, &name, true);
	while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
	{
		Member	   *member = find_member(members, n, &name);

		(void) JsonbIteratorNext(&it, &value, true);
		if (member == NULL || (member->type == MEMBER_NONE && value.type != jbvNull))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown member \"%s%s\"", path,
							lockext_clip(cstring_to_text_with_len(name.val.string.val,
																  name.val.string.len))),
					 errdetail("Members are %s.", member_names(members, n))));
		read_member(path, member, &value);
	}
}

/* ---------- writing ---------- */

void
lockext_json_begin(JsonbParseState **state)
{
	*state = NULL;
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
}

Jsonb *
lockext_json_end(JsonbParseState **state)
{
	return JsonbValueToJsonb(pushJsonbValue(state, WJB_END_OBJECT, NULL));
}

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
push_null(JsonbParseState **state, const char *member)
{
	JsonbValue	value;

	value.type = jbvNull;
	push_value(state, member, &value);
}

static void
push_string(JsonbParseState **state, const char *member, const char *s, int len)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, s);
	value.val.string.len = len;
	push_value(state, member, &value);
}

/* t may be NULL, for null */
void
lockext_json_text(JsonbParseState **state, const char *member, const text *t)
{
	if (t == NULL)
		push_null(state, member);
	else
		push_string(state, member, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

/* s may be NULL, for null */
void
lockext_json_string(JsonbParseState **state, const char *member, const char *s)
{
	if (s == NULL)
		push_null(state, member);
	else
		push_string(state, member, s, strlen(s));
}

static void
push_numeric(JsonbParseState **state, const char *member, Numeric n)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = n;
	push_value(state, member, &value);
}

void
lockext_json_int(JsonbParseState **state, const char *member, int64 n)
{
	push_numeric(state, member, int64_to_numeric(n));
}

/* Milliseconds as seconds; -1 is null. */
void
lockext_json_seconds(JsonbParseState **state, const char *member, int64 ms)
{
	if (ms == -1)
		push_null(state, member);
	else
		push_numeric(state, member, lockext_seconds(ms));
}

void
lockext_json_bool(JsonbParseState **state, const char *member, bool b)
{
	JsonbValue	value;

	value.type = jbvBool;
	value.val.boolean = b;
	push_value(state, member, &value);
}

/* A number of that many digits at least, and what comes after it. */
static char *
put_digits(char *to, int n, int digits, char then)
{
	to = pg_ultostr_zeropad(to, n, digits);
	*to++ = then;
	return to;
}

/*
 * ISO 8601 in UTC with milliseconds, whatever DateStyle and TimeZone say; no end is
 * null.  Without printf(), as a refusal shows two.
 */
void
lockext_json_timestamp(JsonbParseState **state, const char *member, TimestampTz t)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char	   *iso;
	char	   *end;

	if (t == DT_NOEND)
	{
		push_null(state, member);
		return;
	}
	if (timestamp2tm(t, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	iso = end = palloc(MAXDATELEN + 1);
	if (tm.tm_year < 0)
		*end++ = '-';
	end = put_digits(end, abs(tm.tm_year), 4, '-');
	end = put_digits(end, tm.tm_mon, 2, '-');
	end = put_digits(end, tm.tm_mday, 2, 'T');
	end = put_digits(end, tm.tm_hour, 2, ':');
	end = put_digits(end, tm.tm_min, 2, ':');
	end = put_digits(end, tm.tm_sec, 2, '.');
	end = put_digits(end, fsec / 1000, 3, 'Z');
	push_string(state, member, iso, end - iso);
}

void
lockext_json_jsonb(JsonbParseState **state, const char *member, Jsonb *json)
{
	JsonbValue	value;

	value.type = jbvBinary;
	value.val.binary.data = &json->root;
	value.val.binary.len = VARSIZE(json) - VARHDRSZ;
	push_value(state, member, &value);
}
