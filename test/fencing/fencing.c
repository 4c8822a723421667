/*
 * fencing.c
 *		Holders that are paused for longer than their leases last: with a guard in
 *		the transaction that writes, no update is lost or done twice; without,
 *		some are.
 *
 * Usage: fencing CONNINFO GROUPS SECONDS SEED
 *
 * Eight sessions share two counters, one guarded and one not, each with a lock of
 * its own; so that enough happens in a short time, there are several such groups.  A
 * session takes the lock of one of its counters as a lease of one second, reads the counter, is paused, and writes what it has read,
 * plus one, in another transaction, with a row in a journal.  So two who believe
 * at the same time that they have the lock make two updates that count as one.
 * Before it writes to a guarded counter, that transaction calls lock_guard(); of
 * an unguarded one it does not.
 *
 * The pause may come before the transaction, within it, or between its PREPARE
 * TRANSACTION and COMMIT PREPARED.  It is short, or ends at about the time at which
 * the lease does, or later.  All isolation levels take turns.
 *
 * Each session counts the commits that the server has confirmed.  In the end
 *	- a guarded counter is that number, its journal has each value once, and along
 *	  the values the tokens do not fall;
 *	- an unguarded counter is less, which shows that this run can find something;
 *	- guards were refused, and kept leases from being taken over that had run out.
 * A guard that is refused while the lease lasts, or where the transaction has guarded
 * it before, is a fault too.
 *
 * Exit status: 0 nothing found, 1 a fault, 2 something else went wrong, or too
 * little happened to say anything.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define GROUP 8					/* sessions */
#define MAX_GROUPS 16
#define GRACE_S 30				/* no pause or wait is nearly as long */

enum
{
	READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE, LEVELS
};

static const char *const level_names[LEVELS] = {
	"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"
};

/* Where a session is paused. */
typedef enum Place
{
	BEFORE, AFTER_GUARD, BEFORE_COMMIT, PREPARED, PLACES
} Place;

/* What became of an update. */
typedef enum Outcome
{
	CONFIRMED, REFUSED, NOT_SERIALIZABLE, OUTCOMES
} Outcome;

/* What one session has seen; in memory shared with the one that judges. */
typedef struct Tally
{
	long		updates[2][LEVELS][OUTCOMES];	/* unguarded, guarded */
	long		late;			/* guarded ones confirmed when their lease had run out */
	long		taken;
	long		not_taken;
} Tally;

/* A lease that this session has taken. */
typedef struct Lease
{
	int			counter;
	bool		guarded;
	int64_t		token;
	int64_t		expires;		/* us since 1970 */
} Lease;

static const char *conninfo;
static PGconn *conn;
static int	me;
static Tally *tally;
static bool faulty;

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
	fprintf(stderr, "fencing: session %d: ", me);
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(2);
}

static void
fault(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	faulty = true;
}

static int
pick(int n)
{
	return (int) (random() % n);
}

/* Of the two counters of a group. */
static bool
is_guarded(int counter)
{
	return counter % 2 != 0;
}

/* ---------- talking to the server ---------- */

static void
connect_session(void)
{
	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
}

/*
 * Run a statement.  NULL: it failed in a way that may happen, and *outcome tells
 * which; then the transaction has been rolled back.
 */
static PGresult *
run(Outcome *outcome, const char *format,...)
{
	char		sql[512];
	va_list		args;
	PGresult   *res;
	const char *state;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	res = PQexec(conn, sql);
	if (PQresultStatus(res) == PGRES_TUPLES_OK || PQresultStatus(res) == PGRES_COMMAND_OK)
		return res;

	state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	if (outcome != NULL && state != NULL && strcmp(state, "LK001") == 0)
		*outcome = REFUSED;
	else if (outcome != NULL && state != NULL && strcmp(state, "40001") == 0)
		*outcome = NOT_SERIALIZABLE;
	else
		die("%s: %s", sql, PQerrorMessage(conn));
	PQclear(res);
	if (PQtransactionStatus(conn) != PQTRANS_IDLE)
		PQclear(run(NULL, "ROLLBACK"));
	return NULL;
}

/* The same for a statement whose result does not matter: has it succeeded? */
#define done(...) discard(run(__VA_ARGS__))

static bool
discard(PGresult *res)
{
	PQclear(res);
	return res != NULL;
}

/* The only value of the only row. */
static int64_t
number(const char *format, int n)
{
	PGresult   *res = run(NULL, format, n);
	int64_t		value = atoll(PQgetvalue(res, 0, 0));

	PQclear(res);
	return value;
}

/* ---------- a session ---------- */

static bool
take(Lease *lease)
{
	static const int waits[] = {0, 500, 2000};
	PGresult   *res;
	bool		taken;

	lease->counter = me / GROUP * 2 + (pick(3) > 0 ? 1 : 0);
	lease->guarded = is_guarded(lease->counter);
	res = run(NULL, "SELECT acquired, token, (extract(epoch FROM expires_at) * 1e6)::bigint"
			  " FROM lock_acquire('counter-%d', 1, %d)", lease->counter, waits[pick(3)]);
	taken = PQgetvalue(res, 0, 0)[0] == 't';
	lease->token = atoll(PQgetvalue(res, 0, 1));
	lease->expires = atoll(PQgetvalue(res, 0, 2));
	PQclear(res);
	if (taken)
		tally->taken++;
	else
		tally->not_taken++;
	return taken;
}

static void
pause_holder(const Lease *lease)
{
	int64_t		us = pick(10000);
	struct timespec t;

	switch (pick(4))
	{
		case 0:					/* about the end of the lease */
			us += lease->expires - now_us() - 5000;
			break;
		case 1:					/* beyond */
			us += lease->expires - now_us() + pick(200000);
			break;
		default:				/* short */
			break;
	}
	if (us <= 0)
		return;
	t.tv_sec = us / 1000000;
	t.tv_nsec = us % 1000000 * 1000;
	nanosleep(&t, NULL);
}

static bool
guard(const Lease *lease, bool again, Outcome *outcome)
{
	bool		ours = done(outcome, "SELECT lock_guard('counter-%d', %" PRId64 ")",
							lease->counter, lease->token);

	if (ours || *outcome != REFUSED)
		return ours;
	if (again)
		fault("refused what was pinned: session %d, counter %d, token %" PRId64 "\n",
			  me, lease->counter, lease->token);
	else if (now_us() < lease->expires)
		fault("refused too early: session %d, counter %d, token %" PRId64 ", %" PRId64 " us before its end\n",
			  me, lease->counter, lease->token, lease->expires - now_us());
	return false;
}

/* The pin of a savepoint becomes that of the transaction. */
static bool
guard_in_savepoint(const Lease *lease, Outcome *outcome)
{
	return done(outcome, "SAVEPOINT s") &&
		guard(lease, false, outcome) &&
		done(outcome, "RELEASE s");
}

/* The same in two phases; the pause between them. */
static bool
commit_prepared(const Lease *lease, Outcome *outcome)
{
	if (!done(outcome, "PREPARE TRANSACTION 'session %d'", me))
		return false;
	pause_holder(lease);
	return done(NULL, "COMMIT PREPARED 'session %d'", me);
}

/* The transaction that writes; false if it came to nothing. */
static bool
write_value(const Lease *lease, int64_t value, int level, Place place, Outcome *outcome)
{
	if (!done(NULL, "BEGIN ISOLATION LEVEL %s", level_names[level]))
		return false;
	if (lease->guarded &&
		!(pick(4) == 0 ? guard_in_savepoint(lease, outcome) : guard(lease, false, outcome)))
		return false;
	if (place == AFTER_GUARD)
		pause_holder(lease);
	if (!done(outcome, "UPDATE counter SET value = %" PRId64 " WHERE id = %d", value, lease->counter) ||
		!done(outcome, "INSERT INTO journal VALUES (%d, %" PRId64 ", %" PRId64 ")",
			  lease->counter, lease->token, value))
		return false;
	if (place == BEFORE_COMMIT)
		pause_holder(lease);
	if (lease->guarded && pick(4) == 0 && !guard(lease, true, outcome))
		return false;
	return place == PREPARED ? commit_prepared(lease, outcome) : done(outcome, "COMMIT");
}

static Outcome
update(const Lease *lease)
{
	Place		place = pick(PLACES);
	int			level = pick(LEVELS);
	int64_t		value = number("SELECT value FROM counter WHERE id = %d", lease->counter);
	Outcome		outcome = CONFIRMED;

	if (place == BEFORE)
		pause_holder(lease);
	if (write_value(lease, value + 1, level, place, &outcome) &&
		lease->guarded && now_us() > lease->expires)
		tally->late++;
	tally->updates[lease->guarded][level][outcome]++;
	return outcome;
}

static int
session(int number, unsigned seed, int64_t until)
{
	me = number;
	srandom(seed + number);
	connect_session();
	while (now_us() < until && !faulty)
	{
		Lease		lease;

		if (!take(&lease))
			continue;
		while (update(&lease) == CONFIRMED && pick(2) == 0)
			;
		if (pick(2) == 0)
			PQclear(run(NULL, "SELECT lock_release('counter-%d', %" PRId64 ")",
						lease.counter, lease.token));
	}
	PQfinish(conn);
	return faulty ? 1 : 0;
}

/* ---------- the verdict ---------- */

static void
add(Tally *sum, const Tally *all, int sessions)
{
	memset(sum, 0, sizeof(*sum));
	for (int s = 0; s < sessions; s++)
	{
		for (int l = 0; l < LEVELS; l++)
			for (int o = 0; o < OUTCOMES; o++)
			{
				sum->updates[0][l][o] += all[s].updates[0][l][o];
				sum->updates[1][l][o] += all[s].updates[1][l][o];
			}
		sum->late += all[s].late;
		sum->taken += all[s].taken;
		sum->not_taken += all[s].not_taken;
	}
}

/* The confirmed updates of a counter. */
static long
confirmed(const Tally *all, int counter)
{
	Tally		sum;
	long		n = 0;

	add(&sum, all + counter / 2 * GROUP, GROUP);
	for (int l = 0; l < LEVELS; l++)
		n += sum.updates[is_guarded(counter)][l][CONFIRMED];
	return n;
}

/* Prints what is wrong with a counter; how many of its updates are lost, if it is unguarded. */
static long
judge(int counter, long n)
{
	long		value = number("SELECT value FROM counter WHERE id = %d", counter);
	long		rows = number("SELECT count(*) FROM journal WHERE counter = %d", counter);
	long		values = number("SELECT count(DISTINCT value) FROM journal WHERE counter = %d", counter);
	long		falls = number("SELECT count(*) FROM (SELECT token < lag(token) OVER (ORDER BY value) AS falls"
							   " FROM journal WHERE counter = %d) AS t WHERE falls", counter);

	if (rows != n)
		fault("journal: %ld updates of counter %d confirmed, %ld entered\n", n, counter, rows);
	if (!is_guarded(counter))
		return n - value;

	if (value != n)
		fault("lost: %ld of %ld updates of guarded counter %d\n", n - value, n, counter);
	if (values != n)
		fault("twice: %ld of %ld values of guarded counter %d\n", n - values, n, counter);
	if (falls > 0)
		fault("token fell: %ld times along the values of guarded counter %d\n", falls, counter);
	return 0;
}

/* Prints what happened; was it enough to say something? */
static bool
print_tally(const Tally *sum)
{
	bool		enough = sum->late > 0;
	long		refused = 0;

	printf("%ld leases taken, %ld not; %ld guarded updates confirmed after the end of the lease\n",
		   sum->taken, sum->not_taken, sum->late);
	for (int l = 0; l < LEVELS; l++)
	{
		const long *unguarded = sum->updates[0][l];
		const long *guarded = sum->updates[1][l];

		printf("%s: guarded: %ld confirmed, %ld refused, %ld not serializable; unguarded: %ld confirmed, %ld not serializable\n",
			   level_names[l], guarded[CONFIRMED], guarded[REFUSED], guarded[NOT_SERIALIZABLE],
			   unguarded[CONFIRMED], unguarded[NOT_SERIALIZABLE]);
		refused += guarded[REFUSED];
		if (guarded[CONFIRMED] == 0)
			enough = false;
	}
	return enough && refused > 0;
}

static int
verdict(const Tally *all, int groups)
{
	Tally		sum;
	bool		enough;
	long		lost = 0;

	me = -1;
	connect_session();
	add(&sum, all, groups * GROUP);
	enough = print_tally(&sum);
	for (int c = 0; c < 2 * groups; c++)
		lost += judge(c, confirmed(all, c));
	printf("unguarded counters: %ld updates lost\n", lost);
	PQfinish(conn);
	if (faulty)
		return 1;
	if (enough && lost > 0)
		return 0;
	printf("too little happened to say anything\n");
	return 2;
}

static void
create_counters(int groups)
{
	me = -1;
	connect_session();
	PQclear(run(NULL, "CREATE TABLE counter (id integer PRIMARY KEY, value bigint NOT NULL)"));
	PQclear(run(NULL, "INSERT INTO counter SELECT id, 0 FROM generate_series(0, %d) AS id", 2 * groups - 1));
	PQclear(run(NULL, "CREATE TABLE journal (counter integer NOT NULL, token bigint NOT NULL, value bigint NOT NULL)"));
	PQfinish(conn);
}

/* The worst exit status of a session; a fault is worse than anything else. */
static int
wait_for_sessions(int sessions)
{
	bool		fault_found = false;
	bool		trouble = false;

	for (int s = 0; s < sessions; s++)
	{
		int			status;

		if (wait(&status) < 0)
			die("wait");
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
			printf("stuck: a session did not end within %d s\n", GRACE_S);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
			fault_found = true;
		else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			trouble = true;
	}
	return fault_found ? 1 : trouble ? 2 : 0;
}

int
main(int argc, char **argv)
{
	int			groups;
	int			worst;
	int			last;
	int64_t		until;
	Tally	   *all;

	if (argc != 5)
	{
		fprintf(stderr, "usage: fencing CONNINFO GROUPS SECONDS SEED\n");
		return 2;
	}
	conninfo = argv[1];
	groups = atoi(argv[2]);
	if (groups < 1 || groups > MAX_GROUPS)
		die("%s is no number of groups", argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	all = mmap(NULL, MAX_GROUPS * GROUP * sizeof(Tally), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		die("mmap");
	create_counters(groups);

	until = now_us() + atoll(argv[3]) * 1000000;
	for (int s = 0; s < groups * GROUP; s++)
	{
		pid_t		pid = fork();

		if (pid < 0)
			die("fork");
		if (pid > 0)
			continue;
		tally = &all[s];
		alarm(atoi(argv[3]) + GRACE_S);
		exit(session(s, (unsigned) atol(argv[4]), until));
	}
	worst = wait_for_sessions(groups * GROUP);
	if (worst == 2)
		return 2;
	last = verdict(all, groups);
	return worst == 1 ? 1 : last;
}
