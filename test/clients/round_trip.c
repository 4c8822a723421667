/*
 * usage: round_trip		(PGHOST, PGUSER, ... say where)
 *
 * A lock by lock_request() and by lock_event(), with libpq.  The server builds
 * the requests and takes the replies apart: no JSON library is needed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

/* Columns of a reply; one that the reply does not have is null. */
enum
{
	SUCCESS, CODE, ACQUIRED, CALLING_FN, TIMEOUT, TOKEN, RELEASED, EXISTS, LIFETIME, APP
};

static const char request_sql[] =
"SELECT r ->> 'success', r ->> 'code', r ->> 'acquired', r ->> 'callingFn', r ->> 'timeout', r ->> 'token',"
"       r ->> 'released', r ->> 'exists', r #>> '{lockInfo,timeoutSeconds}', r #>> '{lockInfo,appId}' "
"FROM lock_request(jsonb_strip_nulls(jsonb_build_object("
"	'operation', $1::text, 'key', $2::text, 'timeout', $3::integer, 'callingFn', $4::text,"
"	'onConflict', $5::text, 'token', $6::bigint))) AS r";

static void
fail(const char *what, const char *why)
{
	printf("not ok - %s: %s\n", what, why);
	exit(1);
}

static PGresult *
query(PGconn *conn, const char *sql, int n, const char *const *params)
{
	PGresult   *res = PQexecParams(conn, sql, n, NULL, params, NULL, NULL, 0);

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		fail(sql, PQerrorMessage(conn));
	return res;
}

static const char *
get(PGresult *res, int column)
{
	return PQgetisnull(res, 0, column) ? NULL : PQgetvalue(res, 0, column);
}

/* Does the first row have this text, or if it is NULL no text, in the column? */
static void
expect(const char *what, PGresult *res, int column, const char *expected)
{
	const char *actual = get(res, column);

	if ((actual == NULL) != (expected == NULL) || (actual && strcmp(actual, expected) != 0))
	{
		printf("not ok - %s: %s instead of %s\n", what,
			   actual ? actual : "null", expected ? expected : "null");
		exit(1);
	}
}

/* What is NULL is left out.  The caller clears the result. */
static PGresult *
acquire(PGconn *conn, const char *key, const char *timeout, const char *on_conflict)
{
	const char *params[] = {"acquire", key, timeout, "report", on_conflict, NULL};

	return query(conn, request_sql, 6, params);
}

static PGresult *
check(PGconn *conn, const char *key)
{
	const char *params[] = {"check", key, NULL, NULL, NULL, NULL};

	return query(conn, request_sql, 6, params);
}

static void
expect_release(PGconn *conn, const char *key, int64_t token, const char *expected)
{
	char		digits[32];
	const char *params[] = {"release", key, NULL, NULL, NULL, digits};
	PGresult   *res;

	snprintf(digits, sizeof(digits), "%" PRId64, token);
	res = query(conn, request_sql, 6, params);
	expect("release", res, RELEASED, expected);
	PQclear(res);
}

static void
requests(PGconn *first, PGconn *second)
{
	const char *key = "c-report";
	const char *bad[][2] = {{"large-data-file.csv", "300"}, {key, "21600"}, {key, "0"}, {"", NULL}, {NULL, NULL}};
	int64_t		token;
	PGresult   *res;

	res = acquire(first, key, "300", NULL);
	expect("acquire", res, ACQUIRED, "true");
	expect("acquire", res, TIMEOUT, "300");
	expect("acquire", res, CALLING_FN, "report");
	if (get(res, TOKEN) == NULL)
		fail("acquire", "no token");
	token = strtoll(get(res, TOKEN), NULL, 10);
	PQclear(res);
	printf("ok - acquired with a timeout\n");

	res = query(first, "SELECT token FROM lock_check($1)", 1, &key);
	if (strtoll(get(res, 0), NULL, 10) != token)
		fail("token", get(res, 0));
	PQclear(res);
	printf("ok - the token is a 64-bit integer, and exact\n");

	res = acquire(second, key, "300", NULL);
	expect("second", res, ACQUIRED, "false");
	expect("second", res, SUCCESS, NULL);
	expect("second", res, TOKEN, NULL);
	PQclear(res);
	res = acquire(second, key, NULL, "error");
	expect("conflict", res, SUCCESS, "false");
	expect("conflict", res, CODE, "LOCK_CONFLICT");
	PQclear(res);
	printf("ok - a second connection is refused\n");

	res = check(second, key);
	expect("check", res, EXISTS, "true");
	expect("check", res, LIFETIME, "300");
	expect("check", res, APP, PQuser(first));
	PQclear(res);
	printf("ok - check says who holds it\n");

	expect_release(first, key, token + 1, "false");
	expect_release(first, key, token, "true");
	expect_release(first, key, token, "false");
	res = check(second, key);
	expect("check", res, EXISTS, "false");
	PQclear(res);
	printf("ok - released with its token, once\n");

	for (int i = 0; i < (int) (sizeof(bad) / sizeof(bad[0])); i++)
	{
		res = acquire(first, bad[i][0], bad[i][1], NULL);
		expect("bad input", res, SUCCESS, "false");
		expect("bad input", res, CODE, "VALIDATION_ERROR");
		PQclear(res);
	}
	printf("ok - bad input is a VALIDATION_ERROR\n");
}

#define EVENT "{\"parameters\": {\"id\": 9223372036854775807, \"whole\": 12345678901234567890, \"amount\": 12.50"

static void
events(PGconn *first, PGconn *second)
{
	static const char meta[] =
		"{\"inputElement\": \"parameters\", \"outputElement\": \"result\","
		" \"parameters\": {\"expiry\": 10000, \"allowNoLock\": true}}";
	static const char plain[] = EVENT "}}";
	static const char locked[] = EVENT ", \"result\": {\"locked\": true}}}";
	static const char not_locked[] = EVENT ", \"result\": {\"locked\": false}}}";
	static const char event_sql[] = "SELECT lock_event($1, $2, $3)";
	const char *bad[] = {"TryLock", "{\"id\": 1}", "{\"parameters\": {\"expiry\": 0}}"};
	const struct
	{
		PGconn	   *conn;
		const char *action;
		const char *expected;
	}			steps[] = {
		{first, "TryLock", locked},
		{second, "TryLock", not_locked},
		{second, "CheckLock", locked},
		{first, "Unlock", plain},
		{second, "CheckLock", not_locked},
	};
	PGresult   *res;

	for (int i = 0; i < (int) (sizeof(steps) / sizeof(steps[0])); i++)
	{
		const char *params[] = {steps[i].action, plain, meta};

		res = query(steps[i].conn, event_sql, 3, params);
		expect(steps[i].action, res, 0, steps[i].expected);
		PQclear(res);
		if (i == 0)
		{
			res = check(second, "9223372036854775807");
			expect("expiry", res, LIFETIME, "10");
			PQclear(res);
		}
	}
	printf("ok - TryLock, CheckLock and Unlock; the numbers of the payload are unchanged\n");

	res = PQexecParams(first, event_sql, 3, NULL, bad, NULL, NULL, 0);
	if (PQresultStatus(res) != PGRES_FATAL_ERROR || strcmp(PQresultErrorField(res, PG_DIAG_SQLSTATE), "22023") != 0)
		fail("expiry 0", PQresultErrorMessage(res));
	PQclear(res);
	printf("ok - a bad parameter raises\n");
}

int
main(void)
{
	PGconn	   *first = PQconnectdb("");
	PGconn	   *second = PQconnectdb("");

	if (PQstatus(first) != CONNECTION_OK || PQstatus(second) != CONNECTION_OK)
		fail("connect", PQerrorMessage(PQstatus(first) != CONNECTION_OK ? first : second));
	requests(first, second);
	events(first, second);
	PQfinish(first);
	PQfinish(second);
	return 0;
}
