/*
 * expiry.c
 *		Removing rows that have been idle for long enough.
 *
 * Nothing depends on it: an expired or released lock is free the moment it
 * expires or its release commits.  A batch waits for nobody: KEY, table and
 * rows are taken if they are to be had and left for another time if not.
 * Within one batch KEY locks are held until its transaction ends, and a try
 * that meets one outwaits it (keylock.c), so a batch never sleeps and is short.
 */
#include "postgres.h"

#include "expiry.h"
#include "keylock.h"
#include "own.h"
#include "settings.h"
#include "token.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* One transaction removes at most this many rows. */
#define BATCH_ROWS 200

/* The clock is read once for so many blocks. */
#define CHUNK_BLOCKS 32

typedef struct Batch
{
	LockTable  *table;
	SweepState *scan;
	TimestampTz now;
	int			removed;
	int64		max_token;		/* of the rows removed */
	int			damaged;
} Batch;

/*
 * The row in the table's slot has been idle for long enough: remove it if
 * nobody is at it.  Under KEY the version seen is the newest, provided it is
 * still visible.  Returns false if somebody is.
 */
static bool
remove_row(Batch *batch, const LockRow *row)
{
	LockTable  *table = batch->table;
	LockName	name;
	KeyLock		key;

	lockext_name_set(&name, row->domain, row->key);
	if (!lockext_key_lock_once(&key, &name, LOCKEXT_KEY_CHANGE))
		return false;
	if (!table_tuple_satisfies_snapshot(table->rel, table->slot, SnapshotSelf) ||
		!lockext_row_remove(table, row))
	{
		lockext_key_give_back(&key);
		return false;
	}
	batch->removed++;
	batch->max_token = Max(batch->max_token, row->token);
	return true;
}

static void
consider_row(Batch *batch)
{
	LockRow		row;
	TimestampTz idle_since;
	int64		idle_us = lockext_idle_us();

	lockext_row_read(batch->table->slot, &row);
	if (row.damage != NULL)
	{
		batch->damaged++;
		return;
	}
	if (lockext_is_floor_key(row.key))
		return;

	idle_since = lockext_row_idle_since(&row);
	if (idle_since > batch->now && !lockext_row_holds(&row, batch->now))
		idle_since = row.acquired_at;	/* its session is gone, who knows since when */
	if (idle_since == DT_NOEND)
		return;
	if (idle_since > batch->now - idle_us)
		batch->scan->due = Min(batch->scan->due, idle_since);
	else if (!remove_row(batch, &row) && !lockext_row_being_changed(batch->table))
	{
		/* somebody is at it who may not speak up when done: after a nap */
		batch->scan->due = Min(batch->scan->due,
							   batch->now - idle_us + (int64) lockext_naptime * 1000);
	}
}

/* Look at some blocks, from scan->next_block on; 0 then says that the end was reached. */
static void
scan_chunk(Batch *batch, BlockNumber nblocks)
{
	SweepState *state = batch->scan;
	BlockNumber n = Min(CHUNK_BLOCKS, nblocks - state->next_block);
	BlockNumber next = state->next_block + n;
	TupleTableSlot *slot = batch->table->slot;
	TableScanDesc scan;

	scan = table_beginscan_strat(batch->table->rel, SnapshotSelf, 0, NULL, true, false);
	heap_setscanlimits(scan, state->next_block, n);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		BlockNumber block = ItemPointerGetBlockNumber(&slot->tts_tid);

		consider_row(batch);

		/* block 0 is always finished, as 0 stands for the end */
		if (batch->removed >= BATCH_ROWS && block > 0)
		{
			next = block;
			break;
		}
	}
	ExecClearTuple(slot);
	table_endscan(scan);

	state->next_block = next < nblocks ? next : 0;
}

/*
 * One batch, within the current transaction: go on from scan->next_block until
 * the table's end, until enough rows are removed, or until the given time.
 * Leaves in *scan where to go on (block 0: the cycle is complete), and the earliest
 * idle time seen.
 */
void
lockext_expiry_batch(LockTable *table, SweepState *scan, TimestampTz until)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(table->rel);
	Batch		batch = {.table = table,.scan = scan,.now = GetCurrentTimestamp()};

	if (scan->next_block >= nblocks)
		scan->next_block = 0;
	while (nblocks > 0)
	{
		CHECK_FOR_INTERRUPTS();
		scan_chunk(&batch, nblocks);
		if (scan->next_block == 0 || batch.removed >= BATCH_ROWS ||
			GetCurrentTimestamp() >= until)
			break;
	}

	if (batch.removed > 0 && !lockext_floor_raise(table, batch.max_token))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not raise the token floor"),
				 errdetail("Another transaction has locked its row.")));
	if (batch.damaged > 0)
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("passed over %d damaged rows of the lock table", batch.damaged),
				 errhint("lock_break() replaces the row of a key by a sound one.")));
}
