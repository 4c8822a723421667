/*
 * load.c
 *		CLIENTS connections repeat what one way of locking needs.
 *
 * Usage: load DESIGN CLIENTS SECONDS KEYS SERVER [FILE]
 *
 * SERVER is a libpq connection string, or the path of a Redis server's socket.
 * All designs have the same driver: one thread and one connection per client,
 * statements prepared, the Redis script loaded, each statement a round trip of
 * its own.  A cycle is a statement, or two, on one of KEYS keys, chosen at
 * random.  After a tenth of SECONDS, which does not count, cycles are counted for
 * SECONDS.  A cycle whose lock is not to be had, because another client has the
 * key, does not count; they may not be more than one in ten.
 *
 * Prints cycles per second and the 50th, 95th, 99th and 99.9th percentile of
 * what a cycle takes, in us.  FILE gets the distribution: us, number of cycles.
 */
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis/hiredis.h>
#include <libpq-fe.h>

typedef struct Design
{
	const char *name;
	const char *hold;			/* what another session runs first, or NULL */
	const char *acquire;
	const char *release;		/* or NULL */
	const char *key;			/* how $1 is made of the key's number */
	int			nparams;		/* $1: key, $2: the client's name */
	int			column;			/* of acquire's result, tells whether it got the lock */
	bool		refused;		/* it must not get it */
} Design;

#define SHEDLOCK_INSERT \
	"INSERT INTO shedlock (name, lock_until, locked_at, locked_by)" \
	" VALUES ($1, clock_timestamp() + interval '60 s', clock_timestamp(), $2)" \
	" ON CONFLICT (name) DO UPDATE SET lock_until = EXCLUDED.lock_until," \
	" locked_at = EXCLUDED.locked_at, locked_by = EXCLUDED.locked_by" \
	" WHERE shedlock.lock_until <= clock_timestamp()"
#define SHEDLOCK_RELEASE \
	"UPDATE shedlock SET lock_until = clock_timestamp() WHERE name = $1 AND locked_by = $2"
#define ONE_UPDATE \
	"UPDATE one_row SET n = n + 1 WHERE id = $1"

static const Design designs[] = {
	{"select-1", NULL,
	"SELECT 1", NULL, "%d", 0, 0, false},
	{"advisory-refused", "SELECT pg_try_advisory_lock(42)",
	"SELECT pg_try_advisory_lock(42)", NULL, "%d", 0, 0, true},
	{"try-refused", "SELECT lock_try('held', 3600)",
	"SELECT lock_try('held', 60)", NULL, "%d", 0, 0, true},
	{"acquire-refused", "SELECT lock_try('held', 3600)",
	"SELECT * FROM lock_acquire('held', 60)", NULL, "%d", 0, 2, true},
	{"shedlock-refused", "INSERT INTO shedlock VALUES ('held', 'infinity', now(), 'holder') ON CONFLICT DO NOTHING",
	SHEDLOCK_INSERT, NULL, "held", 2, 0, true},

	{"advisory-xact", NULL,
	"SELECT pg_try_advisory_xact_lock($1)", NULL, "%d", 1, 0, false},
	{"try-xact", NULL,
	"SELECT lock_try($1, scope => 'transaction')", NULL, "k%d", 1, 0, false},

	{"advisory-session", NULL,
	"SELECT pg_try_advisory_lock($1)", "SELECT pg_advisory_unlock($1)", "%d", 1, 0, false},
	{"try-session", NULL,
	"SELECT lock_try($1, 60, 'session')", "SELECT lock_release($1)", "k%d", 1, 0, false},

	{"try", NULL,
	"SELECT lock_try($1, 60)", "SELECT lock_release($1)", "k%d", 1, 0, false},
	{"acquire", NULL,
	"SELECT * FROM lock_acquire($1, 60)", "SELECT lock_release($1)", "k%d", 1, 2, false},
	{"acquired", NULL,
	"SELECT (lock_acquire($1, 60)).acquired", "SELECT lock_release($1)", "k%d", 1, 0, false},
	/* the least that two transactions can write, if one is flushed */
	{"least", NULL,
		"SELECT pg_logical_emit_message(true, '', $1)",
		"SELECT set_config('synchronous_commit', 'off', true), pg_logical_emit_message(true, '', $1)",
	"k%d", 1, 0, false},
	/* the same, if the first returns a row like that of lock_acquire() */
	{"least-row", NULL,
		"SELECT r.*, pg_logical_emit_message(true, '', $1) FROM jsonb_populate_record("
		"($1, '', true, NULL, '', now(), 60, now(), 848685316250112, 0, NULL)::lock_result, NULL) AS r",
		"SELECT set_config('synchronous_commit', 'off', true), pg_logical_emit_message(true, '', $1)",
	"k%d", 1, 0, false},
	{"shedlock", NULL,
	SHEDLOCK_INSERT, SHEDLOCK_RELEASE, "k%d", 2, 0, false},
	{"insert-delete", NULL,
		"INSERT INTO lock_row (name, locked_by) VALUES ($1, $2) ON CONFLICT DO NOTHING",
	"DELETE FROM lock_row WHERE name = $1 AND locked_by = $2", "k%d", 2, 0, false},
	{"update", NULL,
	ONE_UPDATE, ONE_UPDATE, "%d", 1, 0, false},
	{"redis", NULL, NULL, NULL, "k%d", 0, 0, false},
};

/* Redis: release only what is ours, as its documentation says to. */
static const char *const compare_and_delete =
	"if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/* Cycles by duration: bucket i holds those of about STEP ^ i us. */
#define STEP 1.005
#define BUCKETS 4000

typedef struct Client
{
	pthread_t	thread;
	PGconn	   *pg;
	redisContext *redis;
	char		name[32];
	unsigned int seed;
	long		cycles;
	long		others;			/* those in which the lock was not to be had */
	uint32_t	buckets[BUCKETS];
} Client;

static const Design *design;
static int	keys;
static char script[64];			/* of compare_and_delete */
static volatile bool counting;
static volatile bool stop;

static double
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void
sleep_s(double seconds)
{
	struct timespec t = {(time_t) seconds, (long) ((seconds - (time_t) seconds) * 1e9)};

	nanosleep(&t, NULL);
}

static void
fail(const char *what, const char *message)
{
	fprintf(stderr, "load: %s: %s: %s\n", design->name, what, message);
	exit(1);
}

/* ---------- PostgreSQL ---------- */

/* Did this statement get, or change, what it was to? */
static bool
success(PGconn *conn, PGresult *res, int column)
{
	bool		result;

	switch (PQresultStatus(res))
	{
		case PGRES_COMMAND_OK:
			result = strcmp(PQcmdTuples(res), "0") != 0;
			break;
		case PGRES_TUPLES_OK:
			result = !PQgetisnull(res, 0, column) &&
				strcmp(PQgetvalue(res, 0, column), "f") != 0;
			break;
		default:
			fail("statement", PQerrorMessage(conn));
			return false;
	}
	PQclear(res);
	return result;
}

static PGconn *
pg_open(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		fail("connection", PQerrorMessage(conn));
	return conn;
}

static void
pg_prepare(PGconn *conn, const char *name, const char *statement)
{
	PGresult   *res = PQprepare(conn, name, statement, 0, NULL);

	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		fail("prepare", PQerrorMessage(conn));
	PQclear(res);
}

static bool
pg_run(Client *c, const char *name, const char *key, int column)
{
	const char *values[] = {key, c->name};

	return success(c->pg, PQexecPrepared(c->pg, name, design->nparams, values, NULL, NULL, 0), column);
}

static bool
pg_cycle(Client *c, const char *key)
{
	if (!pg_run(c, "acquire", key, design->column))
		return false;
	if (design->release && !pg_run(c, "release", key, 0))
		fail("release", key);
	return true;
}

/* ---------- Redis ---------- */

static redisReply *
redis_run(Client *c, int argc, const char **argv)
{
	redisReply *reply = redisCommandArgv(c->redis, argc, argv, NULL);

	if (reply == NULL)
		fail("connection", c->redis->errstr);
	if (reply->type == REDIS_REPLY_ERROR)
		fail("command", reply->str);
	return reply;
}

static void
redis_open(Client *c, const char *socket)
{
	const char *load[] = {"SCRIPT", "LOAD", compare_and_delete};
	redisReply *reply;

	c->redis = redisConnectUnix(socket);
	if (c->redis == NULL || c->redis->err)
		fail("connection", socket);
	reply = redis_run(c, 3, load);
	snprintf(script, sizeof(script), "%s", reply->str);
	freeReplyObject(reply);
}

static bool
redis_cycle(Client *c, const char *key)
{
	const char *set[] = {"SET", key, c->name, "NX", "PX", "60000"};
	const char *release[] = {"EVALSHA", script, "1", key, c->name};
	redisReply *reply = redis_run(c, 6, set);
	bool		got = reply->type != REDIS_REPLY_NIL;

	freeReplyObject(reply);
	if (got)
	{
		reply = redis_run(c, 5, release);
		if (reply->integer != 1)
			fail("release", key);
		freeReplyObject(reply);
	}
	return got;
}

/* ---------- clients ---------- */

static void
open_client(Client *c, const char *server, int number)
{
	snprintf(c->name, sizeof(c->name), "client-%d", number);
	c->seed = number + (unsigned int) time(NULL);
	if (design->acquire == NULL)
	{
		redis_open(c, server);
		return;
	}
	c->pg = pg_open(server);
	pg_prepare(c->pg, "acquire", design->acquire);
	if (design->release)
		pg_prepare(c->pg, "release", design->release);
}

static void *
client_main(void *arg)
{
	Client	   *c = arg;
	char		key[32];

	while (!stop)
	{
		bool		counted = counting;
		double		begun;
		bool		got;
		int			bucket;

		snprintf(key, sizeof(key), design->key, 1 + rand_r(&c->seed) % keys);
		begun = now_us();
		got = c->redis ? redis_cycle(c, key) : pg_cycle(c, key);
		if (!counted || !counting)
			continue;
		if (got == design->refused)
		{
			c->others++;
			continue;
		}
		c->cycles++;
		bucket = (int) (log(now_us() - begun) / log(STEP));
		c->buckets[bucket < 0 ? 0 : bucket >= BUCKETS ? BUCKETS - 1 : bucket]++;
	}
	if (c->pg)
		PQfinish(c->pg);
	else
		redisFree(c->redis);
	return NULL;
}

/* ---------- results ---------- */

static double
percentile(const Client *sum, double p)
{
	double		left = sum->cycles * p / 100;

	for (int i = 0; i < BUCKETS; i++)
	{
		left -= sum->buckets[i];
		if (left <= 0)
			return pow(STEP, i + 0.5);
	}
	return pow(STEP, BUCKETS);
}

static void
write_distribution(const Client *sum, const char *path)
{
	FILE	   *file = fopen(path, "w");

	if (file == NULL)
		fail("file", path);
	for (int i = 0; i < BUCKETS; i++)
		if (sum->buckets[i])
			fprintf(file, "%.1f\t%u\n", pow(STEP, i + 0.5), sum->buckets[i]);
	if (fclose(file) != 0)
		fail("file", path);
}

int
main(int argc, char **argv)
{
	int			nclients;
	double		seconds;
	double		begun;
	Client	   *clients;
	Client	   *sum;
	PGconn	   *holder = NULL;

	if (argc < 6 || argc > 7)
	{
		fprintf(stderr, "usage: load DESIGN CLIENTS SECONDS KEYS SERVER [FILE]\n");
		return 2;
	}
	for (size_t i = 0; i < sizeof(designs) / sizeof(designs[0]); i++)
		if (strcmp(designs[i].name, argv[1]) == 0)
			design = &designs[i];
	nclients = atoi(argv[2]);
	seconds = atof(argv[3]);
	keys = atoi(argv[4]);
	if (design == NULL || nclients < 1 || seconds <= 0 || keys < 1)
	{
		fprintf(stderr, "load: a wrong argument\n");
		return 2;
	}

	clients = calloc(nclients, sizeof(Client));
	sum = calloc(1, sizeof(Client));
	if (design->hold)
	{
		holder = pg_open(argv[5]);
		PQclear(PQexec(holder, design->hold));
	}
	for (int i = 0; i < nclients; i++)
		open_client(&clients[i], argv[5], i);
	for (int i = 0; i < nclients; i++)
		if (pthread_create(&clients[i].thread, NULL, client_main, &clients[i]) != 0)
			fail("thread", "could not be made");

	sleep_s(seconds / 10);
	begun = now_us();
	counting = true;
	sleep_s(seconds);
	counting = false;
	seconds = (now_us() - begun) / 1e6;
	stop = true;

	for (int i = 0; i < nclients; i++)
	{
		pthread_join(clients[i].thread, NULL);
		sum->cycles += clients[i].cycles;
		sum->others += clients[i].others;
		for (int b = 0; b < BUCKETS; b++)
			sum->buckets[b] += clients[i].buckets[b];
	}
	if (holder)
		PQfinish(holder);
	if (sum->others > sum->cycles / 10)
		fail("cycles", "too many did not go as they should");
	printf("%.1f\t%.1f\t%.1f\t%.1f\t%.1f\n", sum->cycles / seconds, percentile(sum, 50),
		   percentile(sum, 95), percentile(sum, 99), percentile(sum, 99.9));
	if (argc == 7)
		write_distribution(sum, argv[6]);
	return 0;
}
