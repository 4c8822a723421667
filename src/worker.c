/*
 * worker.c
 *		The launcher and the worker that removes idle rows.
 *
 * One launcher per server, connected to no database, sleeps until a lock of
 * some database has been idle for long enough, without any wake-ups between.
 * It then starts a worker in that database, which removes what it can within
 * WORKER_US and exits: a process that stays connected would keep DROP DATABASE
 * and the like from getting on.  One worker runs at a time.
 *
 * An error ends the worker; the launcher tries again later and later
 * (shared.c).  The launcher starts after recovery, so on promotion too, and
 * has every database looked at once.
 */
#include "postgres.h"

#include "compat.h"
#include "expiry.h"
#include "names.h"
#include "settings.h"
#include "shared.h"
#include "store.h"
#include "worker.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* How long a worker works, and how long one of its transactions may take. */
#define WORKER_US INT64CONST(100000)
#define BATCH_US INT64CONST(20000)

/* How often every database is looked at while some have no slot. */
#define OVERFLOW_US USECS_PER_MINUTE

/* DROP DATABASE leaves this where it was interrupted. */
#define INVALID_DATCONNLIMIT (-2)

PGDLLEXPORT void lockext_launcher_main(Datum arg);
PGDLLEXPORT void lockext_worker_main(Datum arg);

static void look_at_every_database(void);
static bool may_connect(Oid dboid);
static BackgroundWorkerHandle *start_worker(Oid dboid);
static bool worker_running(BackgroundWorkerHandle *handle);
static void run_batches(Oid dboid, SweepState *scan);
static Oid	lock_table_oid(void);

/* Called from _PG_init() while shared_preload_libraries are loaded. */
void
lockext_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "lockext", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "lockext_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "lockext launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "lockext launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* ---------- the launcher ---------- */

static void
set_up_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

static void
reload_if_asked(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

/* Sleep until the latch is set, at most until the given time. */
static void
launcher_sleep(TimestampTz until)
{
	static uint32 wait_event = 0;
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	long		timeout = -1;

	if (wait_event == 0)
		wait_event = compat_wait_event("LockextLauncherMain");
	if (until != DT_NOEND)
	{
		/* rounded up: waking too early would mean to look and sleep again */
		int64		ms = (until - GetCurrentTimestamp()) / 1000 + 1;

		timeout = (long) Max(1, Min(ms, INT_MAX));
		events |= WL_TIMEOUT;
	}
	(void) WaitLatch(MyLatch, events, timeout, wait_event);
	ResetLatch(MyLatch);
}

void
lockext_launcher_main(Datum arg)
{
	BackgroundWorkerHandle *handle = NULL;
	Oid			dboid = InvalidOid;
	TimestampTz all_looked_at;

	set_up_signals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	lockext_launcher_attach();
	look_at_every_database();
	all_looked_at = GetCurrentTimestamp();

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz wake_at;

		CHECK_FOR_INTERRUPTS();
		reload_if_asked();

		if (handle != NULL)
		{
			if (worker_running(handle))
			{
				launcher_sleep(DT_NOEND);	/* its end sets our latch */
				continue;
			}
			lockext_worker_finished(dboid, now);
			pfree(handle);
			handle = NULL;
		}

		if (now - all_looked_at >= OVERFLOW_US && lockext_overflowed())
		{
			look_at_every_database();
			all_looked_at = now;
		}

		dboid = lockext_slot_next(now, lockext_idle_us(), &wake_at);
		if (lockext_overflow_pending())
			wake_at = Min(wake_at, all_looked_at + OVERFLOW_US);
		if (!OidIsValid(dboid))
			launcher_sleep(wake_at);
		else if (!may_connect(dboid))
			lockext_slot_delay(dboid, now + USECS_PER_SEC);
		else if ((handle = start_worker(dboid)) == NULL)
			lockext_slot_delay(dboid, now + USECS_PER_SEC);
	}
}

static void
begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Call visit for each database that accepts connections.  Scans the heap, as a
 * process without a database can rely on no index.
 */
static void
for_each_database(void (*visit) (Oid dboid, void *arg), void *arg)
{
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tuple);

		if (db->datallowconn && db->datconnlimit != INVALID_DATCONNLIMIT)
			visit(db->oid, arg);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
add_slot(Oid dboid, void *arg)
{
	lockext_slot_add(dboid);
}

static void
forget_if_found(Oid dboid, void *arg)
{
	Oid		   *missing = arg;

	if (dboid == *missing)
		*missing = InvalidOid;
}

static void
look_at_every_database(void)
{
	begin_transaction();
	for_each_database(add_slot, NULL);
	end_transaction();
}

/*
 * Is the database there and open to connections, and nobody dropping, moving
 * or copying it?  One that is gone is forgotten.
 */
static bool
may_connect(Oid dboid)
{
	LOCKTAG		tag;
	Oid			missing = dboid;

	begin_transaction();
	lockext_database_tag(&tag, dboid);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
	{
		for_each_database(forget_if_found, &missing);
		if (OidIsValid(missing))
			lockext_slot_forget(dboid);
	}
	end_transaction();
	return !OidIsValid(missing);
}

/* NULL if no background worker can be had at the moment. */
static BackgroundWorkerHandle *
start_worker(Oid dboid)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(dboid);
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "lockext", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "lockext_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "lockext worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "lockext worker", BGW_MAXLEN);

	lockext_worker_starting();
	started = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(old);
	return started ? handle : NULL;
}

static bool
worker_running(BackgroundWorkerHandle *handle)
{
	pid_t		pid;

	switch (GetBackgroundWorkerPid(handle, &pid))
	{
		case BGWH_STARTED:
		case BGWH_NOT_YET_STARTED:
			return true;
		case BGWH_POSTMASTER_DIED:
			proc_exit(1);
		case BGWH_STOPPED:
			break;
	}
	return false;
}

/* ---------- the worker ---------- */

void
lockext_worker_main(Datum arg)
{
	Oid			dboid = DatumGetObjectId(arg);
	TimestampTz begun = GetCurrentTimestamp();
	SweepState	scan;

	set_up_signals();
	lockext_worker_attach();
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);

	/* whatever ALTER DATABASE or ALTER ROLE set for others */
	SetConfigOption("search_path", "", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);

	pgstat_report_activity(STATE_RUNNING, "removing idle rows of the lock table");
	lockext_scan_begin(dboid, &scan);
	run_batches(dboid, &scan);
	scan.elapsed_ms = (int) ((GetCurrentTimestamp() - begun) / 1000);
	lockext_scan_end(dboid, &scan);
	pgstat_report_activity(STATE_IDLE, NULL);
	proc_exit(0);
}

/* Transactions of one batch each, until the cycle or the time is over. */
static void
run_batches(Oid dboid, SweepState *scan)
{
	TimestampTz end = GetCurrentTimestamp() + WORKER_US;
	bool		go_on = true;

	while (go_on)
	{
		LockTable	table;
		Oid			relid;

		begin_transaction();
		relid = lock_table_oid();
		scan->extension_found = OidIsValid(relid);
		if (!scan->extension_found)
			go_on = false;
		else if (!lockext_table_open_relid(&table, relid, RowExclusiveLock, false) ||
				 table.rel == NULL)
		{
			/* somebody is at the table itself: again after a nap */
			scan->due = Min(scan->due, GetCurrentTimestamp() - lockext_idle_us());
			scan->next_block = 0;
			go_on = false;
		}
		else
		{
			TimestampTz now = GetCurrentTimestamp();

			lockext_expiry_batch(&table, scan, Min(end, now + BATCH_US));
			lockext_table_close(&table, true);
			go_on = scan->next_block != 0 && GetCurrentTimestamp() < end;
		}
		end_transaction();
	}
}

/* The schema of this database's extension; InvalidOid if it has none. */
static Oid
extension_schema(void)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	Oid			nspoid = InvalidOid;

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("lockext"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		nspoid = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return nspoid;
}

/*
 * The lock table of this database's extension; InvalidOid if it has none.  The
 * extension may be dropped or moved between the two looks at the catalogs.
 */
static Oid
lock_table_oid(void)
{
	Oid			nspoid = extension_schema();

	while (OidIsValid(nspoid))
	{
		Oid			seen = nspoid;
		Oid			relid = lockext_table_in_schema(seen, true);

		if (OidIsValid(relid))
			return relid;
		AcceptInvalidationMessages();
		InvalidateCatalogSnapshot();
		nspoid = extension_schema();
		if (nspoid == seen)
			return lockext_table_in_schema(seen, false); /* raises, as a rule */
	}
	return InvalidOid;
}
