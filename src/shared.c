/*
 * shared.c
 *		What lockext keeps in shared memory, when the library is preloaded.
 *
 * Per database: the earliest moment at which one of its locks became or will
 * become idle (released or expired).  Backends lower it after commit; the
 * worker takes it, leaving "nothing due", before it looks.  So a change is
 * either seen by the look or announced after it, never lost.  The launcher
 * adds the retention, which may change at any time, and sleeps until then.
 *
 * All of that is a hint for the worker: no lock is granted or refused because of
 * it.  The one exception is the clock, which only ever raises a token.  What
 * chains.c, keylock.c, seen.c and waiters.c keep is theirs.
 */
#include "postgres.h"

#include "chains.h"
#include "keylock.h"
#include "shared.h"
#include "seen.h"
#include "settings.h"
#include "waiters.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

/* Databases with something due that are tracked at once. */
#define MAX_DATABASES 512

/* A worker that fails is tried again after this, doubled each time. */
#define BACKOFF_FIRST_US USECS_PER_SEC
#define BACKOFF_LAST_US (5 * USECS_PER_MINUTE)

#define TRANCHE "lockext"

typedef struct DatabaseSlot
{
	Oid			dboid;			/* InvalidOid: free */
	TimestampTz due;			/* earliest idle time, DT_NOEND: none */
	TimestampTz not_before;		/* no worker earlier than this */
	int64		backoff_us;		/* of the next failure */
	bool		pending;		/* a scan cycle is to be begun or gone on with */
	SweepState	scan;
} DatabaseSlot;

typedef struct SharedState
{
	LWLock	   *lock;
	Latch	   *launcher;		/* NULL: not running */
	pg_atomic_uint32 worker_pid;	/* 0: none running */
	bool		worker_reported;	/* it came to its end without an error */
	pg_atomic_uint64 last_token;
	pg_atomic_uint32 overflow;	/* a database found no slot */
	DatabaseSlot slots[MAX_DATABASES];
} SharedState;

static SharedState *shared = NULL;

/* In place of last_token, without shared memory. */
static int64 local_clock = 0;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void request_shared_memory(void);
static void attach_shared_memory(void);
static DatabaseSlot *find_slot(Oid dboid);
static DatabaseSlot *make_slot(Oid dboid);
static void wake_launcher(void);
static void launcher_detach(int code, Datum arg);
static void worker_detach(int code, Datum arg);

/* Called from _PG_init() while shared_preload_libraries are loaded. */
void
lockext_shared_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = attach_shared_memory;
}

bool
lockext_shared_ready(void)
{
	return shared != NULL;
}

/*
 * The clock for tokens: now, or one more than the greatest value handed out
 * since the server started; without shared memory, by this process.
 * Microseconds since 2000-01-01.
 */
int64
lockext_shared_clock(int64 now)
{
	uint64		last;

	if (shared == NULL)
		return local_clock = Max(now, local_clock + 1);

	last = pg_atomic_read_u64(&shared->last_token);
	for (;;)
	{
		int64		mine = Max(now, (int64) last + 1);

		if (pg_atomic_compare_exchange_u64(&shared->last_token, &last, (uint64) mine))
			return mine;
	}
}

/* A token that the clock has yet to reach was handed out, or is a floor: no row tells of it. */
void
lockext_shared_clock_passed(int64 token)
{
	uint64		last;

	if (shared == NULL)
	{
		local_clock = Max(local_clock, token);
		return;
	}
	last = pg_atomic_read_u64(&shared->last_token);
	while ((int64) last < token &&
		   !pg_atomic_compare_exchange_u64(&shared->last_token, &last, (uint64) token))
		;
}

/*
 * Tell the worker that a lock of this database becomes, or became, idle at
 * idle_since.  Does not raise: it is called after commit.
 */
void
lockext_due_lower(Oid dboid, TimestampTz idle_since)
{
	DatabaseSlot *slot;
	bool		lowered = false;

	if (shared == NULL)
		return;

	LWLockAcquire(shared->lock, LW_SHARED);
	slot = find_slot(dboid);
	if (slot != NULL && slot->due <= idle_since)
	{
		LWLockRelease(shared->lock);
		return;
	}
	LWLockRelease(shared->lock);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = make_slot(dboid);
	if (slot != NULL && slot->due > idle_since)
	{
		slot->due = idle_since;
		lowered = true;
	}
	if (lowered)
		wake_launcher();
	LWLockRelease(shared->lock);
}

/* The process ID of the worker that may hold KEY locks just now, or 0. */
int
lockext_worker_pid(void)
{
	return shared == NULL ? 0 : (int) pg_atomic_read_u32(&shared->worker_pid);
}

void
lockext_launcher_attach(void)
{
	before_shmem_exit(launcher_detach, (Datum) 0);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = &MyProc->procLatch;
	LWLockRelease(shared->lock);
}

/*
 * Is there a database that found no slot?  Asking clears the answer: the
 * launcher looks at every database and so finds out anew.
 */
bool
lockext_overflowed(void)
{
	return pg_atomic_exchange_u32(&shared->overflow, 0) != 0;
}

/* The same, without clearing it. */
bool
lockext_overflow_pending(void)
{
	return pg_atomic_read_u32(&shared->overflow) != 0;
}

/* Have the database looked at as soon as possible. */
void
lockext_slot_add(Oid dboid)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = make_slot(dboid);
	if (slot != NULL)
		slot->pending = true;
	LWLockRelease(shared->lock);
}

/* The database is gone, or has no lock table. */
void
lockext_slot_forget(Oid dboid)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(dboid);
	if (slot != NULL)
		slot->dboid = InvalidOid;
	LWLockRelease(shared->lock);
}

/* A moment far enough in the future is as good as never. */
static TimestampTz
add_or_never(TimestampTz t, int64 us)
{
	return t > DT_NOEND - us ? DT_NOEND : t + us;
}

/*
 * The database that is to be looked at now, or InvalidOid; then *wake_at is
 * the moment at which the next one will be, DT_NOEND for none.
 */
Oid
lockext_slot_next(TimestampTz now, int64 idle_us, TimestampTz *wake_at)
{
	Oid			best = InvalidOid;
	TimestampTz best_at = DT_NOEND;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DatabaseSlot *slot = &shared->slots[i];
		TimestampTz at;

		if (!OidIsValid(slot->dboid))
			continue;
		if (slot->pending)
			at = slot->not_before;
		else if (slot->due != DT_NOEND)
			at = Max(add_or_never(slot->due, idle_us), slot->not_before);
		else
			continue;
		if (at < best_at)
		{
			best_at = at;
			best = slot->dboid;
		}
	}
	LWLockRelease(shared->lock);

	*wake_at = best_at;
	return best_at <= now ? best : InvalidOid;
}

void
lockext_worker_starting(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->worker_reported = false;
	LWLockRelease(shared->lock);
}

/*
 * The worker has exited: decide when this database may have its next one.
 *
 * After a failure, later each time; else after ten times as long as this one ran, so that
 * they cost no more than a small part of one core, and no sooner than after a nap if
 * nothing is left to do.
 */
void
lockext_worker_finished(Oid dboid, TimestampTz now)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(dboid);
	if (slot != NULL && !shared->worker_reported)
	{
		slot->backoff_us = slot->backoff_us == 0 ? BACKOFF_FIRST_US
			: Min(2 * slot->backoff_us, BACKOFF_LAST_US);
		slot->not_before = now + slot->backoff_us;
		slot->pending = true;
	}
	else if (slot != NULL)
	{
		int64		ran_us = (int64) Max(slot->scan.elapsed_ms, 1) * 1000;

		slot->backoff_us = 0;
		slot->not_before = now + 10 * ran_us;
		if (!slot->pending)
			slot->not_before = Max(slot->not_before, now + (int64) lockext_naptime * 1000);
	}
	LWLockRelease(shared->lock);
}

/* No worker could be started: not before this moment. */
void
lockext_slot_delay(Oid dboid, TimestampTz until)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(dboid);
	if (slot != NULL)
		slot->not_before = until;
	LWLockRelease(shared->lock);
}

void
lockext_worker_attach(void)
{
	before_shmem_exit(worker_detach, (Datum) 0);
	pg_atomic_write_u32(&shared->worker_pid, (uint32) MyProcPid);
}

/*
 * Where this run is to begin.  At the start of a cycle what is due is taken
 * over, before anything is looked at.
 */
void
lockext_scan_begin(Oid dboid, SweepState *scan)
{
	DatabaseSlot *slot;

	memset(scan, 0, sizeof(*scan));
	scan->due = DT_NOEND;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = make_slot(dboid);
	if (slot != NULL)
	{
		if (slot->scan.next_block == 0)
		{
			slot->due = DT_NOEND;
			slot->scan.due = DT_NOEND;
		}
		scan->next_block = slot->scan.next_block;
		scan->due = slot->scan.due;

		/* until the worker reports, the cycle counts as not done */
		slot->pending = true;
	}
	LWLockRelease(shared->lock);
}

/*
 * Report how far this run came; next_block 0 says that the cycle is complete,
 * and what was seen to be due is announced.  The worker's last act.
 */
void
lockext_scan_end(Oid dboid, const SweepState *scan)
{
	DatabaseSlot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->worker_reported = true;
	slot = find_slot(dboid);
	if (slot != NULL && !scan->extension_found)
	{
		/* unless somebody just created the extension and took a lock */
		if (slot->due == DT_NOEND)
			slot->dboid = InvalidOid;
		slot->pending = false;
	}
	else if (slot != NULL)
	{
		slot->scan = *scan;
		slot->pending = scan->next_block != 0;
		if (!slot->pending)
			slot->due = Min(slot->due, scan->due);
		if (!slot->pending && slot->due == DT_NOEND)
			slot->dboid = InvalidOid;	/* nothing due: room for another */
	}
	LWLockRelease(shared->lock);
}

static void
request_shared_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(SharedState)));
	RequestAddinShmemSpace(MAXALIGN(lockext_waiters_size()));
	RequestAddinShmemSpace(MAXALIGN(lockext_seen_size()));
	RequestAddinShmemSpace(MAXALIGN(lockext_undecided_size()));
	RequestAddinShmemSpace(MAXALIGN(lockext_chains_size()));
	RequestNamedLWLockTranche(TRANCHE, 2);
}

static void
attach_shared_memory(void)
{
	bool		found;
	void	   *memory;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	/* after a crash the postmaster comes here again */
	shared = NULL;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("lockext", sizeof(SharedState), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(SharedState));
		shared->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
		pg_atomic_init_u32(&shared->worker_pid, 0);
		pg_atomic_init_u32(&shared->overflow, 0);
		pg_atomic_init_u64(&shared->last_token, 0);
	}
	memory = ShmemInitStruct("lockext waiters", lockext_waiters_size(), &found);
	lockext_waiters_attach(memory, found, &GetNamedLWLockTranche(TRANCHE)[1].lock);
	memory = ShmemInitStruct("lockext seen", lockext_seen_size(), &found);
	lockext_seen_attach(memory, found);
	memory = ShmemInitStruct("lockext undecided", lockext_undecided_size(), &found);
	lockext_undecided_attach(memory, found);
	memory = ShmemInitStruct("lockext chains", lockext_chains_size(), &found);
	lockext_chains_attach(memory, found);
	LWLockRelease(AddinShmemInitLock);
}

static DatabaseSlot *
find_slot(Oid dboid)
{
	for (int i = 0; i < MAX_DATABASES; i++)
		if (shared->slots[i].dboid == dboid)
			return &shared->slots[i];
	return NULL;
}

/* The database's slot, or a new one; NULL if there is no room. */
static DatabaseSlot *
make_slot(Oid dboid)
{
	DatabaseSlot *slot = find_slot(dboid);

	if (slot != NULL)
		return slot;
	slot = find_slot(InvalidOid);
	if (slot == NULL)
	{
		pg_atomic_write_u32(&shared->overflow, 1);
		return NULL;
	}
	memset(slot, 0, sizeof(*slot));
	slot->dboid = dboid;
	slot->due = DT_NOEND;
	slot->scan.due = DT_NOEND;
	return slot;
}

static void
wake_launcher(void)
{
	if (shared->launcher != NULL)
		SetLatch(shared->launcher);
}

static void
launcher_detach(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = NULL;
	LWLockRelease(shared->lock);
}

static void
worker_detach(int code, Datum arg)
{
	uint32		mine = (uint32) MyProcPid;

	/* after a restart of the launcher there may be another worker by now */
	pg_atomic_compare_exchange_u32(&shared->worker_pid, &mine, 0);
}
