/*
 * checker.c
 *		Hammers a few keys from many sessions and proves from the outside that no
 *		key ever had two holders and that its tokens only rose.
 *
 * Usage: checker CONNINFO SESSIONS KEYS SECONDS SEED LOGDIR MAINTENANCE
 *
 * Each session records claims: "I held this key, with this token, from here to
 * here".  A claim begins when the reply to an acquire has arrived and ends
 * before anything is sent that could end the lock, or at its expiry, so it lies
 * within the time the lock was really held.  Two claims on one key that overlap
 * are two holders.  The claims are kept in files, outside the database; client
 * and server share one clock.
 *
 * Locks of all scopes are asked for, by tries and by waits of both forms.  What
 * ends a claim depends on the scope:
 *	- lease: release, expiry, rollback of the transaction that took it;
 *	- session: the same, and the end of the session, DISCARD ALL and
 *	  pg_advisory_unlock_all();
 *	- transaction: release, and the end of the transaction or savepoint.
 * A lock that a transaction has guarded does not end before that transaction or
 * savepoint does, even if it expires: now and then that is waited for.
 * Waits are now and then ended by lock_timeout, statement_timeout, a cancel
 * request or the deadlock detector.
 *
 * A session also knows a lock it must still have: if a renewal, release or guard of
 * it is refused before it expired, or a renewal or guard while it is guarded,
 * somebody else took it, and that is a failure too.  So are an advisory lock kept
 * after a wait in vain or after the end of the transaction, and a session that does
 * not come to its end.
 *
 * Half of the keys are permanent, so that their rows are updated all the time;
 * the others change their names five times a second, so that rows are inserted.
 *
 * With MAINTENANCE 1 the lock table is reindexed concurrently and vacuumed full
 * all the while.
 *
 * Exit status: 0 nothing found, 1 a contradiction, 2 something else went wrong.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_HELD 64
#define KEY_LEN 64
#define FRESH_US 200000
#define NEVER INT64_MAX
#define GRACE_S 60				/* all locks have expired long before */

typedef enum Scope
{
	LEASE, SESSION, TRANSACTION, SCOPES
} Scope;

static const char *const scope_names[SCOPES] = {"lease", "session", "transaction"};

typedef struct Claim
{
	char		key[KEY_LEN];
	int			scope;
	int64_t		token;
	int64_t		start;			/* us since 1970 */
	int64_t		end;
	int			session;
} Claim;

/* A lock this session has. */
typedef struct Held
{
	char		key[KEY_LEN];
	Scope		scope;
	int64_t		token;
	int64_t		start;
	int64_t		expires;		/* as far as committed */
	int64_t		expires_new;	/* by a renewal not committed yet, or 0 */
	int			level;			/* 0: committed; else savepoint depth + 1 */
	int			guarded;		/* 0: not; else by the transaction or savepoint of this level */
	bool		abandoned;		/* left to expire */
} Held;

/* What became of a request for a lock. */
typedef enum Answer
{
	GRANTED, GRANTED_AFTER_WAIT, REFUSED, REFUSED_AFTER_WAIT, ANSWERS
} Answer;

enum
{
	RENEWED, RELEASED, EXPIRED, GUARDED, GUARDED_LONGER, GUARDS_REFUSED, COMMITS, ROLLBACKS,
	SAVEPOINTS_UNDONE, RECONNECTS, DISCARDS, DEADLOCKS, LOCK_TIMEOUTS, CANCELED, SERIALIZATION, EVENTS
};

static const char *const event_names[EVENTS] = {
	"renewed", "released", "expired", "guarded", "guarded beyond their end", "guards refused",
	"commits", "rollbacks", "savepoints undone", "reconnects", "discards", "deadlocks",
	"lock timeouts", "canceled", "serialization failures"
};

typedef struct Counters
{
	long		answers[SCOPES][ANSWERS];
	long		events[EVENTS];
} Counters;

static const char *conninfo;
static PGconn *conn;
static FILE *claims;
static int	me;
static int	nkeys;
static Held held[MAX_HELD];
static int	nheld;
static int	level;				/* 0: no transaction; 1: in one; more: savepoints */
static Counters counters;
static bool failed;				/* a statement failed, and with it its transaction */
static bool violated;

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void
die(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	fprintf(stderr, "checker: session %d: ", me);
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(2);
}

static int
pick(int n)
{
	return (int) (random() % n);
}

static void
violation(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	violated = true;
}

static void
nap_us(int64_t us)
{
	struct timespec t = {us / 1000000, (us % 1000000) * 1000L};

	if (us > 0)
		nanosleep(&t, NULL);
}

/* ---------- claims ---------- */

static void
end_claim(int i, int64_t end)
{
	Held	   *h = &held[i];

	if (h->expires < end && h->guarded)
		counters.events[GUARDED_LONGER]++;
	else if (h->expires < end)
		end = h->expires;
	if (end > h->start)
		fprintf(claims, "%s %d %" PRId64 " %" PRId64 " %" PRId64 " %d\n",
				h->key, h->scope, h->token, h->start, end, me);
	held[i] = held[--nheld];
}

static void
drop_expired(void)
{
	int64_t		now = now_us();

	for (int i = nheld - 1; i >= 0; i--)
	{
		if (held[i].expires <= now && held[i].level == 0 && !held[i].guarded)
		{
			end_claim(i, now);
			counters.events[EXPIRED]++;
		}
	}
}

/* The guard ends with what is about to be sent, and the claim with it if the lock expires before. */
static void
end_guard(int i, int64_t when, int64_t expires)
{
	if (held[i].guarded && expires <= when)
		end_claim(i, when);
	else
		held[i].guarded = 0;
}

/* What was taken at this level or above is undone by what is about to be sent. */
static void
undo_from(int from, int64_t when)
{
	for (int i = nheld - 1; i >= 0; i--)
	{
		if (held[i].level >= from)
		{
			end_claim(i, when);
			continue;
		}
		held[i].expires_new = 0;
		if (held[i].guarded >= from)
			end_guard(i, when, held[i].expires);
	}
}

/* All guards end with the commit that is about to be sent, which makes renewals count. */
static void
end_guards(int64_t when)
{
	for (int i = nheld - 1; i >= 0; i--)
		end_guard(i, when, held[i].expires_new ? held[i].expires_new : held[i].expires);
}

/* Locks of this scope end with what is about to be sent. */
static void
end_scope(Scope scope, int64_t when)
{
	for (int i = nheld - 1; i >= 0; i--)
	{
		if (held[i].scope == scope)
			end_claim(i, when);
	}
}

/* ---------- talking to the server ---------- */

/*
 * What is given here lasts through DISCARD ALL.  Deadlocks are looked for before
 * most waits are over.
 */
static void
connect_session(void)
{
	char		with_options[512];

	snprintf(with_options, sizeof(with_options),
			 "%s options='-c client_min_messages=error -c deadlock_timeout=20ms'", conninfo);
	conn = PQconnectdb(with_options);
	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
}

/* PQexec(), canceled if there is no reply within so many ms (0: never). */
static PGresult *
execute(const char *sql, int cancel_ms)
{
	struct pollfd reply = {.fd = PQsocket(conn),.events = POLLIN};
	PGresult   *res;
	PGresult   *next;

	if (cancel_ms == 0 || !PQsendQuery(conn, sql))
		return PQexec(conn, sql);
	if (poll(&reply, 1, cancel_ms) == 0)
	{
		PGcancel   *cancel = PQgetCancel(conn);
		char		error[256];

		PQcancel(cancel, error, sizeof(error));
		PQfreeCancel(cancel);
	}
	res = PQgetResult(conn);
	while ((next = PQgetResult(conn)) != NULL)
	{
		PQclear(res);
		res = next;
	}
	return res;
}

/* An error that may happen, or -1. */
static int
event_of(const char *state)
{
	static const struct
	{
		const char *state;
		int			event;
	}			errors[] = {
		{"40P01", DEADLOCKS}, {"40001", SERIALIZATION}, {"55P03", LOCK_TIMEOUTS}, {"57014", CANCELED},
		{"LK001", GUARDS_REFUSED}
	};

	for (int i = 0; state != NULL && i < 5; i++)
	{
		if (strcmp(state, errors[i].state) == 0)
			return errors[i].event;
	}
	return -1;
}

/*
 * Run one statement, canceling it after so many ms (0: never).  NULL: it failed
 * with an error that may happen; then the transaction, if there was one, has been
 * rolled back.
 */
static PGresult *
run_for(int cancel_ms, const char *sql)
{
	int64_t		before = now_us();
	PGresult   *res = execute(sql, cancel_ms);
	int			event;

	if (PQresultStatus(res) == PGRES_TUPLES_OK || PQresultStatus(res) == PGRES_COMMAND_OK)
		return res;

	event = event_of(PQresultErrorField(res, PG_DIAG_SQLSTATE));
	if (event < 0)
		die("%s: %s", sql, PQerrorMessage(conn));
	if (event == LOCK_TIMEOUTS &&
		strncmp(PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY), "canceling", 9) != 0)
		violation("two writers: session %d: %s: %s", me, sql, PQerrorMessage(conn));
	counters.events[event]++;
	PQclear(res);
	failed = true;
	if (level > 0)
	{
		undo_from(1, before);
		while (PQtransactionStatus(conn) != PQTRANS_IDLE)
		{
			/* it may run into statement_timeout itself */
			PQclear(PQexec(conn, "ROLLBACK"));
			if (PQstatus(conn) != CONNECTION_OK)
				die("%s", PQerrorMessage(conn));
		}
		level = 0;
		counters.events[ROLLBACKS]++;
	}
	return NULL;
}

static PGresult *
run(const char *format,...)
{
	char		sql[1024];
	va_list		args;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	return run_for(0, sql);
}

static bool
command(const char *sql)
{
	PGresult   *res = run("%s", sql);

	PQclear(res);
	return res != NULL;
}

static void
begin(void)
{
	static const char *const sql[] = {
		"BEGIN ISOLATION LEVEL READ COMMITTED",
		"BEGIN ISOLATION LEVEL REPEATABLE READ",
		"BEGIN ISOLATION LEVEL SERIALIZABLE"
	};

	if (command(sql[pick(3)]))
		level = 1;
}

static void
savepoint(void)
{
	char		sql[64];

	snprintf(sql, sizeof(sql), "SAVEPOINT s%d", level);
	if (command(sql))
		level++;
}

static void
rollback_to(void)
{
	char		sql[64];

	undo_from(level, now_us());
	snprintf(sql, sizeof(sql), "ROLLBACK TO s%d; RELEASE s%d", level - 1, level - 1);
	if (command(sql))
		level--;
	counters.events[SAVEPOINTS_UNDONE]++;
}

static void
commit(void)
{
	int64_t		now = now_us();

	end_scope(TRANSACTION, now);
	end_guards(now);
	if (!command("COMMIT"))
		return;
	level = 0;
	for (int i = 0; i < nheld; i++)
	{
		held[i].level = 0;
		if (held[i].expires_new)
			held[i].expires = held[i].expires_new;
		held[i].expires_new = 0;
	}
	counters.events[COMMITS]++;
}

static void
rollback(void)
{
	undo_from(1, now_us());
	if (!command("ROLLBACK"))
		return;
	level = 0;
	counters.events[ROLLBACKS]++;
}

/* What is left of the session stays: nothing but committed leases. */
static void
forget_session(void)
{
	int64_t		now = now_us();

	undo_from(1, now);
	end_scope(SESSION, now);
}

/* ---------- operations ---------- */

static void
pick_key(char *key)
{
	int			n = pick(nkeys);

	if (n % 2 == 0)
		snprintf(key, KEY_LEN, "key-%d", n);
	else
		snprintf(key, KEY_LEN, "key-%d-%" PRId64, n, now_us() / FRESH_US);
}

/* How many KEY and QUEUE locks this session keeps; -1: that could not be found out. */
static int
locks_kept(void)
{
	PGresult   *res = run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
						  " AND objsubid IN (27755, 27757) AND pid = pg_backend_pid()");
	int			n = res == NULL ? -1 : atoi(PQgetvalue(res, 0, 0));

	PQclear(res);
	return n;
}

static void
check_kept(int expected, const char *after)
{
	int			n = expected < 0 ? -1 : locks_kept();

	if (n >= 0 && n != expected)
		violation("left behind: session %d keeps %d locks after %s, not %d\n", me, n, after, expected);
}

/* How a lock is asked for. */
typedef struct Request
{
	char		key[KEY_LEN];
	Scope		scope;
	int			timeout;		/* s; 0: none */
	int			wait_ms;		/* -1: without limit */
	bool		call;			/* by lock_acquire_wait() */
	int			cancel_ms;		/* 0: never */
} Request;

typedef struct Reply
{
	int64_t		asked;			/* before that */
	bool		acquired;
	int64_t		token;
	int64_t		expires;
	int64_t		waited_ms;
} Reply;

/* A lock outside of a transaction that ended with it at once would prove nothing. */
static void
pick_request(Request *request)
{
	memset(request, 0, sizeof(*request));
	pick_key(request->key);
	request->scope = pick(level == 0 ? TRANSACTION : SCOPES);
	if (request->scope != TRANSACTION)
		request->timeout = pick(4) == 0 ? 5 : 1;
	if (request->scope == SESSION && pick(8) == 0)
		request->timeout = 0;
}

/*
 * The lock was granted to us.  A transaction may take anew what it has guarded, once
 * that has expired.
 */
static void
end_own_guarded(const Request *request, const Reply *reply)
{
	int64_t		now = now_us();

	for (int i = nheld - 1; i >= 0; i--)
	{
		if (held[i].guarded && held[i].expires <= now && strcmp(held[i].key, request->key) == 0)
			end_claim(i, reply->asked);
	}
}

static void
note_answer(const Request *request, const Reply *reply)
{
	bool		waited = reply->waited_ms > 0;
	Answer		answer = reply->acquired ? (waited ? GRANTED_AFTER_WAIT : GRANTED)
		: (waited ? REFUSED_AFTER_WAIT : REFUSED);
	Held	   *h;

	counters.answers[request->scope][answer]++;
	if (!reply->acquired)
		return;
	end_own_guarded(request, reply);
	h = &held[nheld++];
	memset(h, 0, sizeof(*h));
	snprintf(h->key, sizeof(h->key), "%s", request->key);
	h->scope = request->scope;
	h->token = reply->token;
	h->start = now_us();
	h->expires = reply->expires;
	h->level = level;
	h->abandoned = pick(24) == 0;
}

/* As an SQL value. */
static const char *
timeout_sql(const Request *request)
{
	static char sql[16];

	snprintf(sql, sizeof(sql), request->timeout == 0 ? "NULL" : "%d", request->timeout);
	return sql;
}

/* The end of a lock taken at that time or later. */
static int64_t
earliest_end(const Request *request, int64_t taken)
{
	return request->timeout == 0 ? NEVER : taken + request->timeout * INT64_C(1000000);
}

/* The n-th field, from 1, of a composite value; fields with commas are quoted. */
static const char *
field(const char *composite, int n)
{
	const char *p = composite + 1;
	bool		quoted = false;

	for (; *p && n > 1; p++)
	{
		if (*p == '"')
			quoted = !quoted;
		else if (*p == ',' && !quoted)
			n--;
	}
	return p;
}

/* False if the statement failed. */
static bool
ask(const Request *request, Reply *reply)
{
	char		sql[512];
	PGresult   *res;

	reply->asked = now_us();
	if (request->call)
		snprintf(sql, sizeof(sql), "CALL lock_acquire_wait('%s', %s, %d, '%s')", request->key,
				 timeout_sql(request), request->wait_ms, scope_names[request->scope]);
	else
		snprintf(sql, sizeof(sql), "SELECT acquired, token, waited_ms,"
				 " (extract(epoch FROM expires_at) * 1e6)::bigint"
				 " FROM lock_acquire('%s', %s, %d, '%s')", request->key,
				 timeout_sql(request), request->wait_ms, scope_names[request->scope]);
	res = run_for(request->cancel_ms, sql);
	if (res == NULL)
		return false;

	if (request->call)
	{
		const char *result = PQgetvalue(res, 0, 0);

		reply->acquired = *field(result, 3) == 't';
		reply->token = atoll(field(result, 9));
		reply->waited_ms = atoll(field(result, 10));
		reply->expires = earliest_end(request, reply->asked);
	}
	else
	{
		reply->acquired = PQgetvalue(res, 0, 0)[0] == 't';
		reply->token = atoll(PQgetvalue(res, 0, 1));
		reply->waited_ms = atoll(PQgetvalue(res, 0, 2));
		reply->expires = PQgetisnull(res, 0, 3) ? NEVER : atoll(PQgetvalue(res, 0, 3));
	}
	PQclear(res);
	return true;
}

static void
op_acquire(void)
{
	Request		request;
	Reply		reply;

	if (nheld >= 8)
		return;
	pick_request(&request);
	if (ask(&request, &reply))
		note_answer(&request, &reply);
}

static void
op_try(void)
{
	Request		request;
	Reply		reply = {0};
	PGresult   *res;

	if (nheld >= 8)
		return;
	pick_request(&request);
	reply.asked = now_us();
	res = run("SELECT lock_try('%s', %s, '%s')", request.key, timeout_sql(&request),
			  scope_names[request.scope]);
	if (res == NULL)
		return;
	reply.acquired = !PQgetisnull(res, 0, 0);
	reply.token = atoll(PQgetvalue(res, 0, 0));
	reply.expires = earliest_end(&request, reply.asked);
	note_answer(&request, &reply);
	PQclear(res);
}

static void
op_wait(void)
{
	Request		request;
	Reply		reply;
	int			kept = 0;

	if (nheld >= 8)
		return;
	pick_request(&request);
	request.wait_ms = pick(32) == 0 ? -1 : 20 + pick(pick(281) + 1);
	request.cancel_ms = pick(16) == 0 ? 1 + pick(50) : 0;
	request.call = level == 0 && pick(2) == 0;
	if (level > 0)
		kept = pick(4) == 0 ? locks_kept() : -1;
	if (!ask(&request, &reply))
		return;
	if (!reply.acquired)
		check_kept(kept, "a wait in vain");
	note_answer(&request, &reply);
}

/* The lock was ours until it expires; has the server forgotten it before? */
static void
check_lost(const Held *h, const char *what)
{
	if (h->guarded || now_us() < h->expires)
		violation("lost: session %d could not %s %s (%s%s, token %" PRId64 ") %" PRId64 " us before its end\n",
				  me, what, h->key, scope_names[h->scope], h->guarded ? ", guarded" : "", h->token,
				  h->expires - now_us());
}

/* One of the locks we still look after, or -1. */
static int
pick_held(void)
{
	int			i = nheld > 0 ? pick(nheld) : -1;

	return i >= 0 && !held[i].abandoned ? i : -1;
}

static void
op_renew(void)
{
	int			i = pick_held();
	Held	   *h;
	PGresult   *res;

	if (i < 0 || held[i].scope == TRANSACTION)
		return;
	h = &held[i];
	res = run("SELECT acquired, (extract(epoch FROM expires_at) * 1e6)::bigint"
			  " FROM lock_renew('%s', 1, %" PRId64 ")", h->key, h->token);

	if (res == NULL)
		return;
	if (PQgetvalue(res, 0, 0)[0] == 't')
	{
		int64_t		expires = atoll(PQgetvalue(res, 0, 1));

		/* until it is committed, count on the shorter of the two, unless it is undone with the lock only */
		if (level == 0 || h->level == level)
			h->expires = expires;
		else
		{
			h->expires_new = expires;
			if (expires < h->expires)
				h->expires = expires;
		}
		counters.events[RENEWED]++;
	}
	else
	{
		check_lost(h, "renew");
		h->guarded = 0;
		end_claim(i, h->start);
	}
	PQclear(res);
}

static void
op_release(void)
{
	int			i = pick_held();
	Held		h;
	PGresult   *res;

	if (i < 0)
		return;
	h = held[i];
	h.guarded = 0;				/* a guard does not make an expired lock one to be released */
	end_claim(i, now_us());
	res = run("SELECT lock_release('%s', %" PRId64 ")", h.key, h.token);
	if (res == NULL)
		return;
	if (PQgetvalue(res, 0, 0)[0] == 't')
		counters.events[RELEASED]++;
	else
		check_lost(&h, "release");
	PQclear(res);
}

static void
guard(int i)
{
	long		refused = counters.events[GUARDS_REFUSED];
	Held		h = held[i];

	PQclear(run("SELECT lock_guard('%s', %" PRId64 ")", h.key, h.token));
	if (!failed)
	{
		/* how long a lock with scope "transaction" lasts does not change */
		if (h.scope != TRANSACTION && !h.guarded)
			held[i].guarded = level;
		counters.events[GUARDED]++;
	}
	else if (counters.events[GUARDS_REFUSED] > refused)
		check_lost(&h, "guard");
}

/* Guard a lock just before it expires, and stay until it has expired. */
static void
guard_beyond_end(int i)
{
	int64_t		expires = held[i].expires;

	if (expires - now_us() > 1000000)
		return;
	nap_us(expires - now_us() - pick(20000));
	begin();
	if (level == 0)
		return;
	guard(i);
	if (!failed)
		nap_us(expires - now_us() + pick(20000));
}

static void
op_guard(void)
{
	int			i = pick_held();

	if (i < 0)
		return;
	if (level > 0)
		guard(i);
	else if (pick(4) == 0)
		guard_beyond_end(i);
}

/* Ends the session-scoped locks, committed or not. */
static void
op_discard(void)
{
	end_scope(SESSION, now_us());
	command(level == 0 && pick(2) == 0 ? "DISCARD ALL" : "SELECT pg_advisory_unlock_all()");
	counters.events[DISCARDS]++;
}

/* A new session; the old one may be left in the middle of a wait. */
static void
op_reconnect(void)
{
	forget_session();
	if (pick(2) == 0)
	{
		Request		request;
		char		sql[256];

		pick_request(&request);
		snprintf(sql, sizeof(sql), "SELECT lock_acquire('%s', %s, 2000, '%s')", request.key,
				 timeout_sql(&request), scope_names[request.scope]);
		PQsendQuery(conn, sql);
		nap_us(pick(20000));
	}
	PQfinish(conn);
	level = 0;
	connect_session();
	counters.events[RECONNECTS]++;
}

static void
op_timeouts(void)
{
	switch (pick(4))
	{
		case 0:
			PQclear(run("SET lock_timeout = %d", 5 + pick(100)));
			break;
		case 1:
			PQclear(run("SET statement_timeout = %d", 10 + pick(200)));
			break;
		default:
			if (command("SET lock_timeout = 0"))
				command("SET statement_timeout = 0");
	}
}

static void
step(void)
{
	int			what = pick(210);

	drop_expired();
	if (failed)
	{
		failed = false;
		check_kept(0, "a failed transaction");
	}
	if (what < 50)
		op_acquire();
	else if (what < 80)
		op_try();
	else if (what < 100)
		op_wait();
	else if (what < 117)
		op_renew();
	else if (what < 150)
		op_release();
	else if (what < 157)
		nap_us(pick(20000));
	else if (what < 158)
		op_discard();
	else if (what < 159)
		op_reconnect();
	else if (what < 161)
		op_timeouts();
	else if (what >= 200)
		op_guard();
	else if (level == 0 && what < 184)
		begin();
	else if (level > 0 && level < 4 && what < 172)
		savepoint();
	else if (level > 1 && what < 182)
		rollback_to();
	else if (level > 0 && what < 192)
		commit();
	else if (level > 0)
		rollback();
}

static int
session(int number, unsigned seed, int64_t until, const char *dir)
{
	char		path[512];
	FILE	   *f;

	me = number;
	srandom(seed + number);
	snprintf(path, sizeof(path), "%s/claims.%d", dir, number);
	claims = fopen(path, "w");
	if (claims == NULL)
		die("%s: %s", path, strerror(errno));
	connect_session();

	while (now_us() < until && !violated)
		step();
	if (level > 0)
		rollback();
	check_kept(0, "its last transaction");
	while (nheld > 0)
		end_claim(0, now_us());
	fclose(claims);

	snprintf(path, sizeof(path), "%s/counters.%d", dir, number);
	f = fopen(path, "w");
	if (f == NULL || fwrite(&counters, sizeof(counters), 1, f) != 1 || fclose(f) != 0)
		die("%s: %s", path, strerror(errno));
	PQfinish(conn);
	return violated ? 1 : 0;
}

/* Rewrite the table under the sessions' feet. */
static int
maintenance(int64_t until)
{
	static const char *const sql[] = {
		"REINDEX TABLE CONCURRENTLY lockext_lock",
		"VACUUM FULL lockext_lock",
		"REINDEX INDEX CONCURRENTLY lockext_lock_pkey",
		"VACUUM lockext_lock"
	};
	long		done[4] = {0};

	me = -1;
	connect_session();
	for (int i = 0; now_us() < until; i = (i + 1) % 4)
	{
		PGresult   *res = PQexec(conn, sql[i]);
		const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);

		if (PQresultStatus(res) == PGRES_COMMAND_OK)
			done[i]++;
		else if (state == NULL || strcmp(state, "40P01") != 0)
			die("%s: %s", sql[i], PQerrorMessage(conn));
		PQclear(res);
		nap_us(100000);
	}
	printf("maintenance: %ld reindexes concurrently, %ld vacuums full, %ld vacuums\n",
		   done[0] + done[2], done[1], done[3]);
	PQfinish(conn);
	return done[0] == 0 || done[1] == 0 ? 2 : 0;
}

/* ---------- the verdict ---------- */

static int
by_key_and_start(const void *a, const void *b)
{
	const Claim *x = a;
	const Claim *y = b;
	int			c = strcmp(x->key, y->key);

	if (c != 0)
		return c;
	return (x->start > y->start) - (x->start < y->start);
}

static Claim *
read_claims(const char *dir, int sessions, long *n)
{
	long		size = 1024;
	Claim	   *all = malloc(size * sizeof(Claim));

	*n = 0;
	for (int s = 0; s < sessions; s++)
	{
		char		path[512];
		FILE	   *f;
		Claim		c;

		snprintf(path, sizeof(path), "%s/claims.%d", dir, s);
		f = fopen(path, "r");
		if (f == NULL)
			die("%s: %s", path, strerror(errno));
		while (fscanf(f, "%63s %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %d\n",
					  c.key, &c.scope, &c.token, &c.start, &c.end, &c.session) == 6)
		{
			if (*n == size)
				all = realloc(all, (size *= 2) * sizeof(Claim));
			all[(*n)++] = c;
		}
		fclose(f);
	}
	qsort(all, *n, sizeof(Claim), by_key_and_start);
	return all;
}

static int
judge(const char *dir, int sessions)
{
	long		n;
	long		bad = 0;
	long		busy_time = 0;
	Claim	   *all = read_claims(dir, sessions, &n);
	Claim	   *last = NULL;	/* the one of this key that ends last */

	for (long i = 0; i < n; i++)
	{
		Claim	   *c = &all[i];

		busy_time += c->end - c->start;
		if (last == NULL || strcmp(last->key, c->key) != 0)
		{
			last = c;
			continue;
		}
		if (c->start < last->end && bad++ < 5)
			printf("two holders: %s by session %d (%s, token %" PRId64 ") and session %d (%s, token %" PRId64 ") for %" PRId64 " us\n",
				   c->key, last->session, scope_names[last->scope], last->token,
				   c->session, scope_names[c->scope], c->token,
				   (c->end < last->end ? c->end : last->end) - c->start);
		if (c->token <= all[i - 1].token && bad++ < 5)
			printf("token fell: %s from %" PRId64 " (session %d, %s) to %" PRId64 " (session %d, %s)\n",
				   c->key, all[i - 1].token, all[i - 1].session, scope_names[all[i - 1].scope],
				   c->token, c->session, scope_names[c->scope]);
		if (c->end > last->end)
			last = c;
	}
	printf("%ld claims of %.3f s together, %ld contradictions\n", n, busy_time / 1e6, bad);
	if (bad > 0)
		return 1;
	return n < 200 ? 2 : 0;		/* too few to say anything */
}

static void
add_counters(const char *dir, int sessions, Counters *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (int s = 0; s < sessions; s++)
	{
		char		path[512];
		FILE	   *f;
		Counters	one;

		snprintf(path, sizeof(path), "%s/counters.%d", dir, s);
		f = fopen(path, "r");
		if (f == NULL)
			continue;
		if (fread(&one, sizeof(one), 1, f) != 1)
			die("%s: cannot read", path);
		fclose(f);
		for (int i = 0; i < SCOPES; i++)
			for (int j = 0; j < ANSWERS; j++)
				sum->answers[i][j] += one.answers[i][j];
		for (int i = 0; i < EVENTS; i++)
			sum->events[i] += one.events[i];
	}
}

/* Prints what happened; the exit status it makes. */
static int
print_counters(const char *dir, int sessions)
{
	Counters	sum;
	int			status = 0;

	add_counters(dir, sessions, &sum);
	for (int s = 0; s < SCOPES; s++)
	{
		const long *a = sum.answers[s];

		printf("%s: granted %ld at once, %ld after a wait; refused %ld at once, %ld after a wait\n",
			   scope_names[s], a[GRANTED], a[GRANTED_AFTER_WAIT], a[REFUSED], a[REFUSED_AFTER_WAIT]);
		if (a[GRANTED] == 0 || a[GRANTED_AFTER_WAIT] == 0 || a[REFUSED_AFTER_WAIT] == 0)
			status = 2;			/* too few to say anything */
	}
	if (sum.events[GUARDED_LONGER] == 0)
		status = 2;
	for (int i = 0; i < EVENTS; i++)
		printf("%s%s %ld", i ? ", " : "", event_names[i], sum.events[i]);
	printf("\n");
	if (sum.events[SERIALIZATION] > 0)
	{
		printf("serialization failures where no two transactions share a key's data\n");
		status = 1;
	}
	return status;
}

int
main(int argc, char **argv)
{
	int			sessions;
	int			worst = 0;
	unsigned	seed;
	int64_t		until;
	const char *dir;
	int			children = 0;

	if (argc != 8)
	{
		fprintf(stderr, "usage: checker CONNINFO SESSIONS KEYS SECONDS SEED LOGDIR MAINTENANCE\n");
		return 2;
	}
	conninfo = argv[1];
	sessions = atoi(argv[2]);
	nkeys = atoi(argv[3]);
	until = now_us() + atoll(argv[4]) * 1000000;
	seed = (unsigned) atol(argv[5]);
	dir = argv[6];
	setvbuf(stdout, NULL, _IOLBF, 0);

	for (int s = 0; s < sessions + (atoi(argv[7]) ? 1 : 0); s++)
	{
		pid_t		pid = fork();

		if (pid < 0)
			die("fork: %s", strerror(errno));
		if (pid == 0)
		{
			alarm((until - now_us()) / 1000000 + GRACE_S);
			exit(s < sessions ? session(s, seed, until, dir) : maintenance(until));
		}
		children++;
	}
	while (children-- > 0)
	{
		int			status;

		if (wait(&status) < 0)
			die("wait: %s", strerror(errno));
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
			printf("stuck: a session did not end within %d s\n", GRACE_S);
		status = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
		if (status > worst)
			worst = status;
	}
	if (worst < 2)
	{
		int			happened = print_counters(dir, sessions);
		int			verdict = judge(dir, sessions);

		/* a contradiction counts even if there was too little of something else */
		if (worst == 0 && (happened == 1 || verdict == 1))
			worst = 1;
		else if (worst == 0)
			worst = happened > verdict ? happened : verdict;
	}
	return worst;
}
