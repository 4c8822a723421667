/*
 * inspect.c
 *		Looking without touching: lock_check() and lockext_held().
 *
 * Both see what is committed and what this transaction did, at the moment of
 * the call rather than of the transaction's snapshot, take no predicate locks,
 * and work in read-only transactions and on a standby.
 */
#include "postgres.h"

#include "args.h"
#include "inspect.h"
#include "keylock.h"
#include "own.h"
#include "result.h"
#include "store.h"

#include "access/tableam.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(lockext_check);
PG_FUNCTION_INFO_V1(lockext_held);

/*
 * Does an open transaction hold the lock with scope "transaction"?  Of another's
 * only owner and process are known; *row is good for as long as the transaction
 * is ours.
 */
static bool
held_by_transaction(const LockName *name, LockRow *row)
{
	const LockRow *mine = lockext_held_by_transaction(name);
	Blocker		blocker;

	if (mine != NULL)
		*row = *mine;
	else if (RecoveryInProgress() || !lockext_find_transaction_holder(&name->tag, &blocker))
		return false;
	else
		lockext_row_of_blocker(row, &blocker);
	return true;
}

/*
 * Does anybody hold the lock at this moment?  Opens the table, in whose slot the row
 * is, if so; the caller closes it.
 */
bool
lockext_find_held(Oid fn_oid, const LockName *name, LockTable *table, LockRow *row)
{
	bool		found;

	(void) lockext_table_open(table, fn_oid, AccessShareLock, true);
	(void) lockext_row_find(table, name, row, &found);
	if (found)
	{
		lockext_row_must_be_sound(name, row);
		if (lockext_row_holds(row, GetCurrentTimestamp()))
			return true;
	}
	return held_by_transaction(name, row);
}

/* lock_check(key, domain, master): one lock_info, held = false if nobody holds it */
Datum
lockext_check(PG_FUNCTION_ARGS)
{
	LockName	name;
	LockTable	table;
	LockRow		row;
	bool		held;
	Datum		info;

	lockext_arg_name(fcinfo, 0, 1, 2, &name);
	held = lockext_find_held(fcinfo->flinfo->fn_oid, &name, &table, &row);
	info = lockext_form_info(fcinfo, &name, held ? &row : NULL);
	lockext_table_close(&table, false);
	PG_RETURN_DATUM(info);
}

static void
put_lock(const LockRow *row, void *arg)
{
	ReturnSetInfo *rsinfo = arg;
	LockName	name;
	Datum		values[LOCKEXT_INFO_COLUMNS];
	bool		nulls[LOCKEXT_INFO_COLUMNS];

	lockext_name_set(&name, row->domain, row->key);
	lockext_fill_info(&name, row, values, nulls);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * The rows of one moment: each version is tested against one fresh snapshot.
 * By hand, because a scan under that snapshot would take a predicate lock on
 * the whole table in a serializable transaction.  Damaged rows are reported
 * and passed over.
 */
static void
put_held(LockTable *table, ReturnSetInfo *rsinfo)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TimestampTz now = GetCurrentTimestamp();
	TableScanDesc scan = table_beginscan(table->rel, SnapshotAny, 0, NULL);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "lockext_held row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(row_context);

	while (table_scan_getnextslot(scan, ForwardScanDirection, table->slot))
	{
		LockRow		row;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(row_context);
		if (!table_tuple_satisfies_snapshot(table->rel, table->slot, snapshot))
			continue;
		lockext_row_read(table->slot, &row);
		if (row.damage != NULL)
		{
			ereport(WARNING,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("row (%u,%u) of the lock table is damaged",
							ItemPointerGetBlockNumber(&row.tid),
							ItemPointerGetOffsetNumber(&row.tid)),
					 errdetail_internal("%s", row.damage)));
			continue;
		}
		if (!lockext_row_holds(&row, now))
			continue;
		put_lock(&row, rsinfo);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(row_context);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/*
 * lockext_held(): every lock held now, but those that other transactions hold
 * with scope "transaction", of which only a hash of the name is known
 */
Datum
lockext_held(PG_FUNCTION_ARGS)
{
	LockTable	table;

	InitMaterializedSRF(fcinfo, 0);
	lockext_must_have_columns(((ReturnSetInfo *) fcinfo->resultinfo)->setDesc, LOCKEXT_INFO_COLUMNS);
	(void) lockext_table_open(&table, fcinfo->flinfo->fn_oid, AccessShareLock, true);
	put_held(&table, (ReturnSetInfo *) fcinfo->resultinfo);
	lockext_for_each_hold(put_lock, fcinfo->resultinfo);
	lockext_table_close(&table, false);
	return (Datum) 0;
}
