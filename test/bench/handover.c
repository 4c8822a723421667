/*
 * handover.c
 *		How long from the release of a lock to its next holder?
 *
 * Usage: handover CONNINFO one BLOCKS ROUNDS [KIND...]
 *		  handover CONNINFO many WAITERS TURNS SECONDS [KIND...]
 *
 * Of the kinds of lock named, or of all.
 *
 * one: one holder and one waiter: the waiter asks for the lock, the holder gives
 * it up when the waiter is asleep; measured is from the moment at which the
 * release returned, and from that at which it was sent, to the one at which the
 * waiter's call returned.  In each of ROUNDS rounds every kind of lock has its
 * turn, in an order that moves on by one.  Prints the medians of each of BLOCKS
 * blocks of rounds:
 *		block	kind	us from returned	us from sent
 * and, if none is named, as kind "flush", how much later the waiter has an advisory lock
 * if it writes and waits for its WAL to be flushed, as who takes a lease does; as kind
 * "next-flush", what that takes right after another flush.
 *
 * many: WAITERS sessions that take and release one lock as fast as they can, for
 * SECONDS each kind, TURNS times, in an order that moves on by one.  Prints the
 * hand-overs per second, and the fewest and the most that one session had:
 *		turn	kind	per second	fewest	most
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
	bool		poll;			/* asks again after POLL_US, until it has the lock */
} Kind;

#define POLL_US 50000

static const Kind kinds[] = {
	{"pg_advisory_lock", NULL,
	"SELECT pg_advisory_lock(42)", "SELECT pg_advisory_unlock(42)", false},
	{"pg_advisory_xact_lock", "BEGIN",
	"SELECT pg_advisory_xact_lock(43)", "COMMIT", false},
	{"session", NULL,
	"SELECT (lock_acquire('s', wait_ms => -1, scope => 'session')).acquired", "SELECT lock_release('s')", false},
	{"transaction", "BEGIN",
	"SELECT (lock_acquire('t', wait_ms => -1, scope => 'transaction')).acquired", "COMMIT", false},
	{"lease", NULL,
	"SELECT (lock_acquire('l', 600, wait_ms => -1)).acquired", "SELECT lock_release('l')", false},
	{"lease-call", NULL,
	"CALL lock_acquire_wait('c', 600)", "SELECT lock_release('c')", false},
	{"lease-poll", NULL,
	"SELECT lock_try('p', 600)", "SELECT lock_release('p')", true},
	/* for the flush: see print_flush() */
	{"advisory-write", NULL,
		"SELECT pg_advisory_lock(44), set_config('synchronous_commit', 'off', true), pg_logical_emit_message(true, '', '')",
	"SELECT pg_advisory_unlock(44)", false},
	{"advisory-flush", NULL,
		"SELECT pg_advisory_lock(45), set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, '', '')",
	"SELECT pg_advisory_unlock(45)", false},
};

#define KINDS ((int) (sizeof(kinds) / sizeof(kinds[0])))

/* Those to be measured. */
static int	chosen[KINDS];
static int	nchosen = 0;

#define MAX_WAITERS 1024

/* Shared by the two processes of the first part, and by all of the second. */
typedef struct Shared
{
	volatile int turn;			/* counts what the waiter has been told to do */
	volatile int done;			/* and what it has done */
	volatile int64_t got_at;	/* when the waiter's call returned */
	volatile bool stop;
	volatile long counts[MAX_WAITERS];
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

/* Returns whether there is an answer other than null. */
static bool
run(PGconn *conn, char what, int kind)
{
	char		name[16];
	PGresult   *res;
	bool		answer;

	snprintf(name, sizeof(name), "%c%d", what, kind);
	res = PQexecPrepared(conn, name, 0, NULL, NULL, NULL, 0);
	answer = PQntuples(res) == 0 || !PQgetisnull(res, 0, 0);
	check(conn, res, name);
	return answer;
}

static void
acquire(PGconn *conn, int kind)
{
	if (kinds[kind].begin)
		check(conn, PQexec(conn, kinds[kind].begin), "begin");
	while (!run(conn, 'a', kind) && kinds[kind].poll)
		nap_us(POLL_US);
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

/* The kind whose turn it is in the ith hand-over: every round begins with the next. */
static int
kind_of(int i)
{
	return chosen[(i + i / nchosen) % nchosen];
}

static void
waiter(const char *conninfo, int n)
{
	PGconn	   *conn = open_session(conninfo);

	for (int i = 0; i < n; i++)
	{
		while (shared->turn <= i)
			nap_us(50);
		acquire(conn, kind_of(i));
		shared->got_at = now_ns();
		run(conn, 'r', kind_of(i));
		__sync_synchronize();
		shared->done = i + 1;
	}
	PQfinish(conn);
	exit(0);
}

/* How long the holder keeps the lock, when the waiter has begun to ask for it. */
static long
holding_time(int kind)
{
	/* it is asleep by then; one that polls, at any moment of its sleep */
	return 3000 + (kinds[kind].poll ? rand() % POLL_US : 0);
}

/*
 * How much longer a commit takes if it waits for its WAL to be flushed, us; after a pause
 * and another flush.
 */
static double
next_flush(PGconn *conn, int rounds)
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

/*
 * What a flush takes when a lock is handed over, that is, after a pause in which the disk
 * was idle: one right after another takes less.  Two hand-overs of an advisory lock, in
 * which the waiter then writes a WAL record, differ by it.
 */
static void
print_flush(int block, const double *medians)
{
	double		us = 0;

	for (int k = 0; k < KINDS; k++)
	{
		if (strcmp(kinds[k].name, "advisory-flush") == 0)
			us += medians[k];
		else if (strcmp(kinds[k].name, "advisory-write") == 0)
			us -= medians[k];
	}
	printf("%d\tflush\t%.1f\t-\n", block + 1, us);
}

static void
one_block(PGconn *conn, int block, int rounds)
{
	double	   *returned[KINDS];
	double	   *sent[KINDS];
	double		sent_medians[KINDS];

	for (int k = 0; k < KINDS; k++)
	{
		returned[k] = calloc(rounds, sizeof(double));
		sent[k] = calloc(rounds, sizeof(double));
	}
	for (int n = 0; n < rounds * nchosen; n++)
	{
		int			i = block * rounds * nchosen + n;
		int			k = kind_of(i);
		int64_t		before;
		int64_t		after;

		acquire(conn, k);
		shared->turn = i + 1;
		nap_us(holding_time(k));
		before = now_ns();
		run(conn, 'r', k);
		after = now_ns();
		while (shared->done <= i)
			nap_us(50);
		__sync_synchronize();
		returned[k][n / nchosen] = (shared->got_at - after) / 1000.0;
		sent[k][n / nchosen] = (shared->got_at - before) / 1000.0;
	}
	for (int n = 0; n < nchosen; n++)
	{
		int			k = chosen[n];

		sent_medians[k] = median(sent[k], rounds);
		printf("%d\t%s\t%.1f\t%.1f\n", block + 1, kinds[k].name,
			   median(returned[k], rounds), sent_medians[k]);
	}
	if (nchosen == KINDS)
	{
		print_flush(block, sent_medians);
		printf("%d\tnext-flush\t%.1f\t-\n", block + 1, next_flush(conn, rounds));
	}
}

static void
one_waiter(const char *conninfo, int blocks, int rounds)
{
	PGconn	   *conn = open_session(conninfo);

	if (fork() == 0)
		waiter(conninfo, blocks * rounds * nchosen);
	for (int block = 0; block < blocks; block++)
		one_block(conn, block, rounds);
	wait(NULL);
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

static void
many_turn(const char *conninfo, int n, int turn, int kind, double seconds)
{
	long		counts[MAX_WAITERS];
	long		sum = 0;
	long		fewest;
	long		most = 0;
	int64_t		begun;

	shared->stop = false;
	memset((void *) shared->counts, 0, sizeof(shared->counts));
	for (int i = 0; i < n; i++)
		if (fork() == 0)
			many_session(conninfo, i, kind);
	nap_us(700000);				/* all are there, and warm */
	memcpy(counts, (void *) shared->counts, sizeof(counts));
	begun = now_ns();
	nap_us((long) (seconds * 1e6));
	fewest = shared->counts[0] - counts[0];
	for (int i = 0; i < n; i++)
	{
		long		count = shared->counts[i] - counts[i];

		sum += count;
		fewest = count < fewest ? count : fewest;
		most = count > most ? count : most;
	}
	seconds = (now_ns() - begun) / 1e9;
	shared->stop = true;
	while (wait(NULL) > 0)
		;
	printf("%d\t%s\t%.1f\t%ld\t%ld\n", turn + 1, kinds[kind].name, sum / seconds, fewest, most);
}

/* The kinds that are named, or all.  False if there is none of such a name. */
static bool
choose(int n, char **names)
{
	for (int k = 0; n == 0 && k < KINDS; k++)
		chosen[nchosen++] = k;
	for (int i = 0; i < n && nchosen < KINDS; i++)
		for (int k = 0; k < KINDS; k++)
			if (strcmp(names[i], kinds[k].name) == 0)
				chosen[nchosen++] = k;
	return n == 0 || nchosen == n;
}

int
main(int argc, char **argv)
{
	bool		one = argc >= 5 && strcmp(argv[2], "one") == 0;
	bool		many = argc >= 6 && strcmp(argv[2], "many") == 0;
	int			named = many ? 6 : 5;

	if (!(one || many) || !choose(argc - named, argv + named))
	{
		fprintf(stderr, "usage: handover CONNINFO one BLOCKS ROUNDS [KIND...]\n"
				"       handover CONNINFO many WAITERS TURNS SECONDS [KIND...]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (one)
		one_waiter(argv[1], atoi(argv[3]), atoi(argv[4]));
	else
		for (int turn = 0; turn < atoi(argv[4]); turn++)
			for (int n = 0; n < nchosen; n++)
				many_turn(argv[1], atoi(argv[3]), turn, kind_of(turn * nchosen + n), atof(argv[5]));
	return 0;
}
