/*
 * handover.c
 *		How long from the release of a lock to its next holder?
 *
 * Usage: handover CONNINFO ROUNDS WAITERS SECONDS
 *
 * First, one holder and one waiter: the waiter asks for the lock, the holder
 * gives it up when the waiter is asleep; measured is from the moment at which
 * the release returned, and from that at which it was sent, to the one at which
 * the waiter's call returned.  All kinds of lock take turns in each of ROUNDS
 * rounds.  Prints the medians, and what they are to those of PostgreSQL's own
 * advisory lock of the same level; and what a commit takes longer that waits for
 * its WAL to be flushed, as that of a lease does.
 *
 * Then WAITERS sessions that take and release one lock as fast as they can, for
 * SECONDS each kind, in turns: the number of hand-overs per second.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

typedef struct Kind
{
	const char *name;
	const char *begin;			/* or NULL */
	const char *acquire;
	const char *release;
	int			peer;			/* the kind to compare with */
} Kind;

static const Kind kinds[] = {
	{"pg_advisory_lock", NULL,
	"SELECT pg_advisory_lock(42)", "SELECT pg_advisory_unlock(42)", 0},
	{"pg_advisory_xact_lock", "BEGIN",
	"SELECT pg_advisory_xact_lock(43)", "COMMIT", 1},
	{"session", NULL,
	"SELECT (lock_acquire('s', wait_ms => -1, scope => 'session')).acquired", "SELECT lock_release('s')", 0},
	{"transaction", "BEGIN",
	"SELECT (lock_acquire('t', wait_ms => -1, scope => 'transaction')).acquired", "COMMIT", 1},
	{"lease", NULL,
	"SELECT (lock_acquire('l', 600, wait_ms => -1)).acquired", "SELECT lock_release('l')", 0},
	{"lease, CALL", NULL,
	"CALL lock_acquire_wait('c', 600)", "SELECT lock_release('c')", 0},
};

#define KINDS ((int) (sizeof(kinds) / sizeof(kinds[0])))

/* Shared by the two processes of the first part, and by all of the second. */
typedef struct Shared
{
	volatile int turn;			/* counts what the waiter has been told to do */
	volatile int done;			/* and what it has done */
	volatile int64_t got_at;	/* when the waiter's call returned */
	volatile bool stop;
	volatile long counts[1024];
} Shared;

static Shared *shared;

static int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
nap_us(long us)
{
	struct timespec t = {us / 1000000, (us % 1000000) * 1000};

	nanosleep(&t, NULL);
}

static void
check(PGconn *conn, PGresult *res, const char *what)
{
	if (PQresultStatus(res) != PGRES_TUPLES_OK && PQresultStatus(res) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "handover: %s: %s", what, PQerrorMessage(conn));
		exit(1);
	}
	PQclear(res);
}

static PGconn *
open_session(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "handover: %s", PQerrorMessage(conn));
		exit(1);
	}
	for (int k = 0; k < KINDS; k++)
	{
		char		name[16];

		snprintf(name, sizeof(name), "a%d", k);
		check(conn, PQprepare(conn, name, kinds[k].acquire, 0, NULL), "prepare");
		snprintf(name, sizeof(name), "r%d", k);
		check(conn, PQprepare(conn, name, kinds[k].release, 0, NULL), "prepare");
	}
	return conn;
}

static void
run(PGconn *conn, char what, int kind)
{
	char		name[16];

	snprintf(name, sizeof(name), "%c%d", what, kind);
	check(conn, PQexecPrepared(conn, name, 0, NULL, NULL, NULL, 0), name);
}

static void
acquire(PGconn *conn, int kind)
{
	if (kinds[kind].begin)
		check(conn, PQexec(conn, kinds[kind].begin), "begin");
	run(conn, 'a', kind);
}

static int
by_value(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
median(double *v, int n)
{
	qsort(v, n, sizeof(double), by_value);
	return v[n / 2];
}

/* ---------- one waiter ---------- */

static void
waiter(const char *conninfo, int rounds)
{
	PGconn	   *conn = open_session(conninfo);

	for (int i = 0; i < rounds * KINDS; i++)
	{
		while (shared->turn <= i)
			nap_us(50);
		acquire(conn, i % KINDS);
		shared->got_at = now_ns();
		run(conn, 'r', i % KINDS);
		__sync_synchronize();
		shared->done = i + 1;
	}
	PQfinish(conn);
	exit(0);
}

/*
 * How much longer a commit takes if it waits for its WAL to be flushed, us; after a
 * pause and another flush, as in the hand-over of a lease.
 */
static double
flush_time(PGconn *conn, int rounds)
{
	static const char *const modes[] = {"SET synchronous_commit = off", "SET synchronous_commit = on"};
	double	   *us[2] = {calloc(rounds, sizeof(double)), calloc(rounds, sizeof(double))};

	for (int i = 0; i < 2 * rounds; i++)
	{
		static const char *const write = "SELECT pg_logical_emit_message(true, '', '')";
		int64_t		before;

		nap_us(3000);
		check(conn, PQexec(conn, modes[1]), "set");
		check(conn, PQexec(conn, write), "write");
		check(conn, PQexec(conn, modes[i % 2]), "set");
		before = now_ns();
		check(conn, PQexec(conn, write), "write");
		us[i % 2][i / 2] = (now_ns() - before) / 1000.0;
	}
	return median(us[1], rounds) - median(us[0], rounds);
}

static void
one_waiter(const char *conninfo, int rounds)
{
	PGconn	   *conn = open_session(conninfo);
	double	   *returned[KINDS];
	double	   *sent[KINDS];
	double		mr[KINDS];
	double		ms[KINDS];

	for (int k = 0; k < KINDS; k++)
	{
		returned[k] = calloc(rounds, sizeof(double));
		sent[k] = calloc(rounds, sizeof(double));
	}
	if (fork() == 0)
		waiter(conninfo, rounds);
	for (int i = 0; i < rounds * KINDS; i++)
	{
		int			k = i % KINDS;
		int64_t		before;
		int64_t		after;

		acquire(conn, k);
		shared->turn = i + 1;
		nap_us(3000);			/* it is asleep by then */
		before = now_ns();
		run(conn, 'r', k);
		after = now_ns();
		while (shared->done <= i)
			nap_us(50);
		__sync_synchronize();
		returned[k][i / KINDS] = (shared->got_at - after) / 1000.0;
		sent[k][i / KINDS] = (shared->got_at - before) / 1000.0;
	}
	wait(NULL);

	printf("| hand-over to one waiter | from release returned, us | ratio | from release sent, us | ratio |\n|---|---|---|---|---|\n");
	for (int k = 0; k < KINDS; k++)
	{
		mr[k] = median(returned[k], rounds);
		ms[k] = median(sent[k], rounds);
		printf("| %s | %.1f | %.2f | %.1f | %.2f |\n", kinds[k].name,
			   mr[k], mr[k] / mr[kinds[k].peer], ms[k], ms[k] / ms[kinds[k].peer]);
	}
	printf("\nA flush of the WAL: %.1f us\n", flush_time(conn, rounds));
	PQfinish(conn);
}

/* ---------- many waiters ---------- */

static void
many_session(const char *conninfo, int number, int kind)
{
	PGconn	   *conn = open_session(conninfo);

	while (!shared->stop)
	{
		acquire(conn, kind);
		shared->counts[number]++;
		run(conn, 'r', kind);
	}
	PQfinish(conn);
	exit(0);
}

static double
many_waiters(const char *conninfo, int n, int kind, double seconds)
{
	long		sum = 0;
	int64_t		begun;

	shared->stop = false;
	memset((void *) shared->counts, 0, sizeof(shared->counts));
	for (int i = 0; i < n; i++)
		if (fork() == 0)
			many_session(conninfo, i, kind);
	nap_us(1000000);			/* all are there, and warm */
	for (int i = 0; i < n; i++)
		sum -= shared->counts[i];
	begun = now_ns();
	nap_us((long) (seconds * 1e6));
	for (int i = 0; i < n; i++)
		sum += shared->counts[i];
	seconds = (now_ns() - begun) / 1e9;
	shared->stop = true;
	while (wait(NULL) > 0)
		;
	return sum / seconds;
}

int
main(int argc, char **argv)
{
	enum
	{
		TURNS = 3
	};
	int			n;
	double		rates[KINDS][TURNS];
	double		m[KINDS];

	if (argc != 5)
	{
		fprintf(stderr, "usage: handover CONNINFO ROUNDS WAITERS SECONDS\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	one_waiter(argv[1], atoi(argv[2]));

	n = atoi(argv[3]);
	for (int turn = 0; turn < TURNS; turn++)
		for (int k = 0; k < KINDS; k++)
			rates[k][turn] = many_waiters(argv[1], n, k, atof(argv[4]));
	printf("\n| %d waiters on one key | hand-overs per second | ratio |\n|---|---|---|\n", n);
	for (int k = 0; k < KINDS; k++)
	{
		m[k] = median(rates[k], TURNS);
		printf("| %s | %.0f | %.2f |\n", kinds[k].name, m[k], m[k] / m[kinds[k].peer]);
	}
	return 0;
}
