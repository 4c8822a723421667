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
 * A session also knows a lock it must still have: if a renewal or release of it
 * is refused before it expired, somebody else took it, and that is a failure
 * too.
 *
 * Half of the keys are permanent, so that their rows are updated all the time;
 * the others change their names five times a second, so that rows are inserted.
 *
 * With MAINTENANCE 1 the lock table is reindexed concurrently and vacuumed full
 * all the while.
 *
 * Exit status: 0 nothing found, 1 two holders or falling tokens or a lost lock,
 * 2 something else went wrong.
 */
#include <errno.h>
#include <inttypes.h>
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

typedef struct Claim
{
	char		key[KEY_LEN];
	int64_t		token;
	int64_t		start;			/* us since 1970 */
	int64_t		end;
	int			session;
} Claim;

/* A lock this session has. */
typedef struct Held
{
	char		key[KEY_LEN];
	int64_t		token;
	int64_t		start;
	int64_t		expires;		/* as far as committed */
	int64_t		expires_new;	/* by a renewal not committed yet, or 0 */
	int			level;			/* 0: committed; else savepoint depth + 1 */
	bool		abandoned;		/* left to expire */
} Held;

enum
{
	GRANTED, REFUSED_HELD, REFUSED_BUSY, REFUSED_TRY, RENEWED, RELEASED, EXPIRED, COMMITS,
	ROLLBACKS, SAVEPOINTS_UNDONE, DEADLOCKS, SERIALIZATION, COUNTERS
};

static const char *const counter_names[COUNTERS] = {
	"granted", "held", "busy", "tries refused", "renewed", "released", "expired", "commits",
	"rollbacks", "savepoints undone", "deadlocks", "serialization failures"
};

static PGconn *conn;
static FILE *claims;
static int	me;
static int	nkeys;
static Held held[MAX_HELD];
static int	nheld;
static int	level;				/* 0: no transaction; 1: in one; more: savepoints */
static long counters[COUNTERS];
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
nap_us(int us)
{
	struct timespec t = {us / 1000000, (us % 1000000) * 1000L};

	nanosleep(&t, NULL);
}

/* ---------- claims ---------- */

static void
end_claim(int i, int64_t end)
{
	Held	   *h = &held[i];

	if (h->expires < end)
		end = h->expires;
	if (end > h->start)
		fprintf(claims, "%s %" PRId64 " %" PRId64 " %" PRId64 " %d\n",
				h->key, h->token, h->start, end, me);
	held[i] = held[--nheld];
}

static void
drop_expired(void)
{
	int64_t		now = now_us();

	for (int i = nheld - 1; i >= 0; i--)
	{
		if (held[i].expires <= now && held[i].level == 0)
		{
			end_claim(i, now);
			counters[EXPIRED]++;
		}
	}
}

/* What was taken at this level or above is undone by what is about to be sent. */
static void
undo_from(int from, int64_t when)
{
	for (int i = nheld - 1; i >= 0; i--)
	{
		if (held[i].level >= from)
			end_claim(i, when);
		else
			held[i].expires_new = 0;
	}
}

/* ---------- talking to the server ---------- */

/*
 * Run one statement.  NULL: it failed with an error that may happen; then the
 * transaction, if there was one, has been rolled back.
 */
static PGresult *
run(const char *format,...)
{
	char		sql[1024];
	va_list		args;
	int64_t		before = now_us();
	PGresult   *res;
	const char *state;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);

	res = PQexec(conn, sql);
	if (PQresultStatus(res) == PGRES_TUPLES_OK || PQresultStatus(res) == PGRES_COMMAND_OK)
		return res;

	state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	if (state && strcmp(state, "40P01") == 0)
		counters[DEADLOCKS]++;
	else if (state && strcmp(state, "40001") == 0)
		counters[SERIALIZATION]++;
	else
		die("%s: %s", sql, PQerrorMessage(conn));
	PQclear(res);
	if (level > 0)
	{
		undo_from(1, before);
		PQclear(PQexec(conn, "ROLLBACK"));
		level = 0;
		counters[ROLLBACKS]++;
	}
	return NULL;
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
	counters[SAVEPOINTS_UNDONE]++;
}

static void
commit(void)
{
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
	counters[COMMITS]++;
}

static void
rollback(void)
{
	undo_from(1, now_us());
	command("ROLLBACK");
	level = 0;
	counters[ROLLBACKS]++;
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

static void
note_grant(const char *key, int64_t token, int64_t start, int64_t expires)
{
	Held	   *h = &held[nheld++];

	memset(h, 0, sizeof(*h));
	snprintf(h->key, sizeof(h->key), "%s", key);
	h->token = token;
	h->start = start;
	h->expires = expires;
	h->level = level;
	h->abandoned = pick(24) == 0;
	counters[GRANTED]++;
}

static void
op_acquire(void)
{
	char		key[KEY_LEN];
	int			timeout = pick(4) == 0 ? 5 : 1;
	PGresult   *res;

	if (nheld >= 8)
		return;
	pick_key(key);
	res = run("SELECT acquired, token, (extract(epoch FROM expires_at) * 1e6)::bigint, reason"
			  " FROM lock_acquire('%s', %d)", key, timeout);
	if (res == NULL)
		return;
	if (PQgetvalue(res, 0, 0)[0] == 't')
		note_grant(key, atoll(PQgetvalue(res, 0, 1)), now_us(), atoll(PQgetvalue(res, 0, 2)));
	else
		counters[strcmp(PQgetvalue(res, 0, 3), "held") == 0 ? REFUSED_HELD : REFUSED_BUSY]++;
	PQclear(res);
}

static void
op_try(void)
{
	char		key[KEY_LEN];
	int64_t		before = now_us();
	PGresult   *res;

	if (nheld >= 8)
		return;
	pick_key(key);
	res = run("SELECT lock_try('%s', 1)", key);
	if (res == NULL)
		return;
	if (PQgetisnull(res, 0, 0))
		counters[REFUSED_TRY]++;
	else
		note_grant(key, atoll(PQgetvalue(res, 0, 0)), now_us(), before + 1000000);
	PQclear(res);
}

/* The lock was ours until it expires; has the server forgotten it before? */
static void
check_lost(const Held *h, const char *what)
{
	if (now_us() < h->expires)
	{
		printf("lost: session %d could not %s %s (token %" PRId64 ") %" PRId64 " us before its end\n",
			   me, what, h->key, h->token, h->expires - now_us());
		violated = true;
	}
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

	if (i < 0)
		return;
	h = &held[i];
	res = run("SELECT acquired, (extract(epoch FROM expires_at) * 1e6)::bigint"
			  " FROM lock_renew('%s', 1, %" PRId64 ")", h->key, h->token);

	if (res == NULL)
		return;
	if (PQgetvalue(res, 0, 0)[0] == 't')
	{
		int64_t		expires = atoll(PQgetvalue(res, 0, 1));

		/* until it is committed, count on the shorter of the two */
		if (level == 0 || h->level > 0)
			h->expires = expires;
		else
		{
			h->expires_new = expires;
			if (expires < h->expires)
				h->expires = expires;
		}
		counters[RENEWED]++;
	}
	else
	{
		check_lost(h, "renew");
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
	end_claim(i, now_us());
	res = run("SELECT lock_release('%s', %" PRId64 ")", h.key, h.token);
	if (res == NULL)
		return;
	if (PQgetvalue(res, 0, 0)[0] == 't')
		counters[RELEASED]++;
	else
		check_lost(&h, "release");
	PQclear(res);
}

static void
step(void)
{
	int			what = pick(100);

	drop_expired();
	if (what < 35)
		op_acquire();
	else if (what < 50)
		op_try();
	else if (what < 60)
		op_renew();
	else if (what < 75)
		op_release();
	else if (what < 80)
		nap_us(pick(20000));
	else if (level == 0 && what < 92)
		begin();
	else if (level > 0 && level < 4 && what < 86)
		savepoint();
	else if (level > 1 && what < 91)
		rollback_to();
	else if (level > 0 && what < 96)
		commit();
	else if (level > 0)
		rollback();
}

static int
session(const char *conninfo, int number, unsigned seed, int64_t until, const char *dir)
{
	char		path[512];
	FILE	   *f;

	me = number;
	srandom(seed + number);
	snprintf(path, sizeof(path), "%s/claims.%d", dir, number);
	claims = fopen(path, "w");
	if (claims == NULL)
		die("%s: %s", path, strerror(errno));
	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	PQclear(PQexec(conn, "SET client_min_messages = error"));

	while (now_us() < until && !violated)
		step();
	if (level > 0)
		rollback();
	while (nheld > 0)
		end_claim(0, now_us());
	fclose(claims);

	snprintf(path, sizeof(path), "%s/counters.%d", dir, number);
	f = fopen(path, "w");
	for (int i = 0; i < COUNTERS; i++)
		fprintf(f, "%ld\n", counters[i]);
	fclose(f);
	PQfinish(conn);
	return violated ? 1 : 0;
}

/* Rewrite the table under the sessions' feet. */
static int
maintenance(const char *conninfo, int64_t until)
{
	static const char *const sql[] = {
		"REINDEX TABLE CONCURRENTLY lockext_lock",
		"VACUUM FULL lockext_lock",
		"REINDEX INDEX CONCURRENTLY lockext_lock_pkey",
		"VACUUM lockext_lock"
	};
	long		done[4] = {0};

	me = -1;
	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	PQclear(PQexec(conn, "SET client_min_messages = error"));
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
		while (fscanf(f, "%63s %" SCNd64 " %" SCNd64 " %" SCNd64 " %d\n",
					  c.key, &c.token, &c.start, &c.end, &c.session) == 5)
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
			printf("two holders: %s by session %d (token %" PRId64 ") and session %d (token %" PRId64 ") for %" PRId64 " us\n",
				   c->key, last->session, last->token, c->session, c->token,
				   (c->end < last->end ? c->end : last->end) - c->start);
		if (c->token <= all[i - 1].token && bad++ < 5)
			printf("token fell: %s from %" PRId64 " (session %d) to %" PRId64 " (session %d)\n",
				   c->key, all[i - 1].token, all[i - 1].session, c->token, c->session);
		if (c->end > last->end)
			last = c;
	}
	printf("%ld claims of %.3f s together, %ld contradictions\n", n, busy_time / 1e6, bad);
	if (bad > 0)
		return 1;
	return n < 200 ? 2 : 0;		/* too few to say anything */
}

static void
print_counters(const char *dir, int sessions)
{
	long		sum[COUNTERS] = {0};

	for (int s = 0; s < sessions; s++)
	{
		char		path[512];
		FILE	   *f;
		long		v;

		snprintf(path, sizeof(path), "%s/counters.%d", dir, s);
		f = fopen(path, "r");
		for (int i = 0; f != NULL && i < COUNTERS && fscanf(f, "%ld", &v) == 1; i++)
			sum[i] += v;
		if (f != NULL)
			fclose(f);
	}
	for (int i = 0; i < COUNTERS; i++)
		printf("%s%s %ld", i ? ", " : "", counter_names[i], sum[i]);
	printf("\n");
	if (sum[SERIALIZATION] > 0)
	{
		printf("serialization failures where no two transactions share a key's data\n");
		exit(1);
	}
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
			exit(s < sessions ? session(argv[1], s, seed, until, dir)
				 : maintenance(argv[1], until));
		children++;
	}
	while (children-- > 0)
	{
		int			status;

		if (wait(&status) < 0)
			die("wait: %s", strerror(errno));
		status = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
		if (status > worst)
			worst = status;
	}
	print_counters(dir, sessions);
	if (worst < 2)
	{
		int			verdict = judge(dir, sessions);

		if (verdict > worst)
			worst = verdict;
	}
	return worst;
}
