/*
 * store.c
 *		The row store: the only file that reads and writes the lock table.
 *
 * One row per name, updated for each acquisition and release and never deleted
 * on the way, so that updates stay HOT and the cost of a cycle does not depend
 * on how many went before.
 *
 * The primary key is (domain, key, gen).  gen says which version of a row came
 * later where an update could not be HOT and so made a new index entry; it
 * changes in no other case.  A look walks the entries of a name from the
 * greatest gen down and stops at the first row it can see: under old snapshots
 * a name may have thousands of dead entries, all of them behind that one.
 * gen is a clock reading, so that the order holds across removal and
 * reinsertion as well.  Uniqueness of a name is the KEY lock's job, not the
 * index's.
 *
 * Where a row was found is remembered, by its HOT chain (see chains.c), so that a look
 * need not go through the index each time.  A row found there is as good as one found
 * by the index, if it is visible and its name is the one looked for; if not, the index
 * is asked.
 *
 * Rows are looked at under SnapshotSelf: what is committed at this instant and
 * what this transaction did itself, whatever the isolation level, and without
 * predicate locks.  Whoever holds KEY sees exactly one row or none.  Without
 * KEY such a look can miss a row that moves while it looks, so a miss says
 * nothing; lockext_row_find() then looks under a fresh MVCC snapshot.
 *
 * Access from here fires no triggers and checks no table privileges.
 */
#include "postgres.h"

#include "chains.h"
#include "compat.h"
#include "seen.h"
#include "store.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "storage/smgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

enum
{
	COL_GEN = 1,
	COL_TOKEN,
	COL_ACQUIRED_AT,
	COL_DBOID,
	COL_OWNER,
	COL_PID,
	COL_SCOPE,
	COL_DOMAIN,
	COL_KEY,
	COL_CALLING_FN,
	COL_APPLICATION_NAME,
	COL_TIMEOUT_MS,
	COL_EXPIRES_AT,
	COL_RELEASED_AT,
	COL_CLIENT_ADDR,
	COL_DATA
};

#define NCOLS COL_DATA

/* What a column must be; nullable ones come last. */
static const struct
{
	Oid			type;
	bool		nullable;
	const char *name;
}			columns[NCOLS] =
{
	{INT8OID, false, "gen"},
	{INT8OID, false, "token"},
	{TIMESTAMPTZOID, false, "acquired_at"},
	{OIDOID, false, "dboid"},
	{OIDOID, false, "owner"},
	{INT4OID, false, "pid"},
	{CHAROID, false, "scope"},
	{TEXTOID, false, "domain"},
	{TEXTOID, false, "key"},
	{TEXTOID, false, "calling_fn"},
	{TEXTOID, false, "application_name"},
	{INT8OID, true, "timeout_ms"},
	{TIMESTAMPTZOID, true, "expires_at"},
	{TIMESTAMPTZOID, true, "released_at"},
	{INETOID, true, "client_addr"},
	{JSONBOID, true, "data"}
};

/* A page is pruned when it has no room for so many more versions of a row. */
#define VERSIONS_TO_SPARE 3

/*
 * Raises 42809 unless the table has the columns expected here: somebody with the
 * rights to do so may have altered it.
 */
void
lockext_check_shape(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		good;

	good = rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->rd_tableam == GetHeapamTableAmRoutine() &&
		desc->natts == NCOLS;
	for (int i = 0; good && i < NCOLS; i++)
		good = !TupleDescAttr(desc, i)->attisdropped &&
			TupleDescAttr(desc, i)->atttypid == columns[i].type;
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("lock table \"%s\" was altered", RelationGetRelationName(rel)),
				 errhint("Drop and create the extension \"lockext\" again.")));
}

/*
 * Open the index to look names up with.  Its OID changes with REINDEX
 * CONCURRENTLY, so it is asked for each time.  Returns NULL if it cannot be
 * locked at once and wait is false.  To be closed by close_index().
 */
static Relation
open_index(LockTable *table, bool wait)
{
	Oid			indexid;
	Relation	index;
	Form_pg_index form;

	if (!table->rel->rd_indexvalid)
		list_free(RelationGetIndexList(table->rel));
	indexid = table->rel->rd_pkindex;
	if (!OidIsValid(indexid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lock table \"%s\" has no valid primary key",
						RelationGetRelationName(table->rel)),
				 errhint("Drop and create the extension \"lockext\" again.")));

	table->index_mode = list_member_oid(table->indexes, indexid) ? NoLock : AccessShareLock;
	if (!wait && table->index_mode != NoLock &&
		!ConditionalLockRelationOid(indexid, table->index_mode))
	{
		lockext_table_refused(table, indexid, table->index_mode);
		return NULL;
	}
	index = index_open(indexid, wait ? table->index_mode : NoLock);

	form = index->rd_index;
	if (form->indnkeyatts != 3 ||
		form->indkey.values[0] != COL_DOMAIN ||
		form->indkey.values[1] != COL_KEY ||
		form->indkey.values[2] != COL_GEN ||
		index->rd_indcollation[0] != C_COLLATION_OID ||
		index->rd_indcollation[1] != C_COLLATION_OID)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("primary key of lock table \"%s\" was altered",
						RelationGetRelationName(table->rel)),
				 errhint("Drop and create the extension \"lockext\" again.")));
	return index;
}

static void
close_index(LockTable *table, Relation index)
{
	index_close(index, table->index_mode);
}

/* ---------- looking ---------- */

/* Does the table's slot hold the name's row?  Reads it. */
static bool
slot_is_of(LockTable *table, const LockName *name, LockRow *row)
{
	lockext_row_read(table->slot, row);
	return row->damage == NULL && lockext_name_equals(name, row->domain, row->key);
}

/*
 * Is there room for another version of a row of that length beside it?  Only a guess,
 * since others use the page too; where it is wrong, looks walk an entry more.
 */
static bool
page_has_room(Buffer buffer, Size len)
{
	return PageGetHeapFreeSpace(BufferGetPage(buffer)) >= MAXALIGN(len);
}

/*
 * Does the table have that block?  What this process knows of the table's length will do
 * for those below, as it can be too short, but not too long: VACUUM sends news before it
 * cuts a table short, and whoever locks the table takes note of that.
 */
static bool
block_exists(Relation rel, BlockNumber block)
{
	BlockNumber known = RelationGetSmgr(rel)->smgr_cached_nblocks[MAIN_FORKNUM];

	return (known != InvalidBlockNumber && block < known) ||
		block < RelationGetNumberOfBlocks(rel);
}

/* The version of that place, if it is visible under SnapshotSelf.  The page is locked. */
static bool
fetch_version(Relation rel, Buffer buffer, const ItemPointerData *tid, HeapTuple tuple)
{
	Page		page = BufferGetPage(buffer);
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);
	ItemId		item;

	if (offset > PageGetMaxOffsetNumber(page))
		return false;
	item = PageGetItemId(page, offset);
	if (!ItemIdIsNormal(item))
		return false;
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	tuple->t_tableOid = RelationGetRelid(rel);
	tuple->t_self = *tid;
	return HeapTupleSatisfiesVisibility(tuple, SnapshotSelf, buffer);
}

/* What is visible of the place under SnapshotSelf: that very version, or one of the chain. */
static bool
search_place(Relation rel, Buffer buffer, const ItemPointerData *place, bool chain,
			 HeapTuple tuple)
{
	ItemPointerData tid = *place;
	bool		found;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	found = chain ? heap_hot_search_buffer(&tid, rel, buffer, SnapshotSelf, tuple, NULL, true)
		: fetch_version(rel, buffer, &tid, tuple);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return found;
}

/* What is in the table's slot is the name's row: remember where. */
static void
remember_place(LockTable *table, const LockName *name)
{
	lockext_chain_remember(RelationGetRelid(table->rel), name, &table->root, &table->slot->tts_tid);
}

/*
 * Is it time to prune a page, as a row of that length is to be updated?  With room for
 * several versions left: other rows of the page are updated too, the last few versions
 * may have to stay, and while another process looks at the page it can't be pruned.  And
 * where a version found no room, having become longer perhaps.
 */
static bool
is_room_scarce(Buffer buffer, Size len)
{
	return PageIsFull(BufferGetPage(buffer)) ||
		!page_has_room(buffer, VERSIONS_TO_SPARE * len);
}

/*
 * The name's row, visible under SnapshotSelf, goes into the table's slot, if it is in that
 * place.
 *
 * Dead versions are pruned away when room gets scarce, many at once: an index scan would
 * do so as soon as the fillfactor's reserve is touched, a few at a time.
 */
static bool
look_at_place(LockTable *table, const LockName *name, const ItemPointerData *place, bool chain,
			  LockRow *row)
{
	Relation	rel = table->rel;
	HeapTuple	tuple = &((BufferHeapTupleTableSlot *) table->slot)->base.tupdata;
	Buffer		buffer;
	bool		found;

	ExecClearTuple(table->slot);
	buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(place));
	found = search_place(rel, buffer, place, chain, tuple);
	if (found && table->mode == RowExclusiveLock && is_room_scarce(buffer, tuple->t_len))
	{
		heap_page_prune_opt(rel, buffer);
		found = search_place(rel, buffer, place, chain, tuple);
	}
	if (!found)
	{
		ReleaseBuffer(buffer);
		return false;
	}
	ExecStorePinnedBufferHeapTuple(tuple, table->slot, buffer);
	return slot_is_of(table, name, row);
}

/*
 * The same if it is where it was last found: the version that was the newest then, or
 * else any of its HOT chain.  The table may have been rewritten since.
 */
static bool
look_where_it_was(LockTable *table, const LockName *name, LockRow *row)
{
	ItemPointerData newest;

	if (!lockext_chain_recall(RelationGetRelid(table->rel), name, &table->root, &newest) ||
		!block_exists(table->rel, ItemPointerGetBlockNumber(&newest)))
		return false;
	if (look_at_place(table, name, &newest, false, row))
		return true;
	if (!look_at_place(table, name, &table->root, true, row))
		return false;

	/* without KEY, what is found may be about to be replaced by what is remembered */
	if (table->mode == RowExclusiveLock)
		remember_place(table, name);
	return true;
}

/* As index_getnext_slot(); and tells what the index entry points to. */
static bool
next_version(IndexScanDesc scan, TupleTableSlot *slot, ItemPointer root)
{
	for (;;)
	{
		if (!scan->xs_heap_continue)
		{
			ItemPointer tid = index_getnext_tid(scan, BackwardScanDirection);

			if (tid == NULL)
				return false;
			*root = *tid;
		}
		if (index_fetch_heap(scan, slot))
			return true;
	}
}

/*
 * The newest version of the name's row that the snapshot shows goes into the
 * table's slot.  mvcc, if given, decides instead of the scan's own snapshot:
 * tested by hand, it takes no predicate locks.
 */
static bool
scan_name(LockTable *table, Relation index, const LockName *name,
		  Snapshot snapshot, Snapshot mvcc, LockRow *row)
{
	ScanKeyData keys[2];
	IndexScanDesc scan;
	bool		found = false;

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(name->domain));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(name->key));

	scan = compat_index_beginscan(table->rel, index, snapshot, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	while (!found && next_version(scan, table->slot, &table->root))
	{
		if (mvcc != NULL &&
			!table_tuple_satisfies_snapshot(table->rel, table->slot, mvcc))
			continue;

		/* a damaged index must not hand us another lock's row */
		found = slot_is_of(table, name, row) || row->damage != NULL;
	}
	index_endscan(scan);
	if (found)
		remember_place(table, name);
	return found;
}

/*
 * Look for the name's row: *found tells whether there is one.  Without KEY,
 * not found means only that it has to be looked for better.  Returns false if
 * the index could not be locked without waiting (as when the table was opened).
 */
bool
lockext_row_look(LockTable *table, const LockName *name, LockRow *row, bool *found)
{
	Relation	index;

	*found = look_where_it_was(table, name, row);
	if (*found)
		return true;

	index = open_index(table, table->wait);
	if (index == NULL)
		return false;
	*found = scan_name(table, index, name, SnapshotSelf, NULL, row);
	close_index(table, index);
	return true;
}

/*
 * The same, but *found is to be relied on: the name's newest committed row, or
 * the one this transaction made.  Needs no KEY, takes none, and never misses a
 * row; on a standby too.
 */
bool
lockext_row_find(LockTable *table, const LockName *name, LockRow *row, bool *found)
{
	Relation	index;

	*found = !RecoveryInProgress() && look_where_it_was(table, name, row);
	if (*found)
		return true;

	index = open_index(table, table->wait);
	if (index == NULL)
		return false;
	if (!RecoveryInProgress())
		*found = scan_name(table, index, name, SnapshotSelf, NULL, row);
	if (!*found)
	{
		Snapshot	snapshot;

		/*
		 * As fresh as GetLatestSnapshot()'s, which would also fix the snapshot of
		 * a REPEATABLE READ transaction that has none yet.
		 */
		snapshot = RegisterSnapshot(GetCatalogSnapshot(RelationGetRelid(table->rel)));

		/*
		 * On a standby an index scan must be under an MVCC snapshot, since
		 * replay does not wait for the pins of others.  There are no
		 * serializable transactions there.
		 */
		if (RecoveryInProgress())
			*found = scan_name(table, index, name, snapshot, NULL, row);
		else
			*found = scan_name(table, index, name, SnapshotAny, snapshot, row);
		UnregisterSnapshot(snapshot);
	}
	close_index(table, index);
	return true;
}

/* What makes a row unusable, or NULL.  The values were read before. */
static const char *
row_damage(const LockRow *row)
{
	if (row->token < 0 || row->token >= LOCKEXT_MAX_TOKEN)
		return "Its token is out of range.";
	if (row->scope != LOCKEXT_SCOPE_LEASE && row->scope != LOCKEXT_SCOPE_SESSION)
		return "Its scope is unknown.";
	if (!OidIsValid(row->owner))
		return "Its owner is not a role.";
	if (TIMESTAMP_NOT_FINITE(row->acquired_at) ||
		TIMESTAMP_IS_NOBEGIN(row->expires_at) ||
		TIMESTAMP_IS_NOBEGIN(row->released_at))
		return "One of its timestamps is infinite.";
	if ((row->timeout_ms == -1) != (row->expires_at == DT_NOEND) || row->timeout_ms < -1)
		return "Its timeout and its end do not agree.";
	if (VARSIZE_ANY_EXHDR(row->domain) > LOCKEXT_MAX_DOMAIN_BYTES ||
		VARSIZE_ANY_EXHDR(row->key) > LOCKEXT_FLOOR_KEY_BYTES)
		return "Its name is too long.";
	return NULL;
}

/* Take a row apart, and say in row->damage whether it can be trusted. */
void
lockext_row_read(TupleTableSlot *slot, LockRow *row)
{
	Datum	   *v;
	bool	   *null;

	slot_getallattrs(slot);
	v = slot->tts_values;
	null = slot->tts_isnull;

	memset(row, 0, sizeof(*row));
	row->tid = slot->tts_tid;
	for (int i = 0; i < NCOLS; i++)
	{
		if (null[i] && !columns[i].nullable)
		{
			row->damage = psprintf("Its column \"%s\" is null.", columns[i].name);
			return;
		}
	}

	row->gen = DatumGetInt64(v[COL_GEN - 1]);
	row->token = DatumGetInt64(v[COL_TOKEN - 1]);
	row->acquired_at = DatumGetTimestampTz(v[COL_ACQUIRED_AT - 1]);
	row->dboid = DatumGetObjectId(v[COL_DBOID - 1]);
	row->owner = DatumGetObjectId(v[COL_OWNER - 1]);
	row->pid = DatumGetInt32(v[COL_PID - 1]);
	row->scope = DatumGetChar(v[COL_SCOPE - 1]);
	row->domain = DatumGetTextPP(v[COL_DOMAIN - 1]);
	row->key = DatumGetTextPP(v[COL_KEY - 1]);
	row->calling_fn = DatumGetTextPP(v[COL_CALLING_FN - 1]);
	row->application_name = DatumGetTextPP(v[COL_APPLICATION_NAME - 1]);
	row->timeout_ms = null[COL_TIMEOUT_MS - 1] ? -1 : DatumGetInt64(v[COL_TIMEOUT_MS - 1]);
	row->expires_at = null[COL_EXPIRES_AT - 1] ? DT_NOEND
		: DatumGetTimestampTz(v[COL_EXPIRES_AT - 1]);
	row->released_at = null[COL_RELEASED_AT - 1] ? DT_NOEND
		: DatumGetTimestampTz(v[COL_RELEASED_AT - 1]);
	if (!null[COL_CLIENT_ADDR - 1])
		row->client_addr = DatumGetInetPP(v[COL_CLIENT_ADDR - 1]);
	if (!null[COL_DATA - 1])
		row->data = DatumGetJsonbP(v[COL_DATA - 1]);
	row->damage = row_damage(row);
}

/* Raises XX001 if the row cannot be trusted. */
void
lockext_row_must_be_sound(const LockName *name, const LockRow *row)
{
	if (row->damage == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("row of %s is damaged", lockext_name_display(name)),
			 errdetail_internal("%s", row->damage),
			 lockext_is_floor_key(name->key)
			 ? errhint("Have a superuser delete it, with the triggers of the lock table disabled.")
			 : errhint("lock_break() replaces it by a free one.")));
}

/*
 * Does the row say that somebody holds the lock at this moment?  With scope
 * "session" that is so only as long as the session is there: see
 * lockext_row_holds().  A row made in another database came here with a copy of
 * that database (CREATE DATABASE ... TEMPLATE) and holds nothing.
 */
bool
lockext_row_live(const LockRow *row, TimestampTz now)
{
	Assert(row->damage == NULL);
	return row->dboid == MyDatabaseId &&
		row->released_at == DT_NOEND &&
		row->expires_at > now;
}

/* Since when, or from when on, nobody holds the lock; DT_NOEND: no end in sight. */
TimestampTz
lockext_row_idle_since(const LockRow *row)
{
	if (row->dboid != MyDatabaseId)
		return row->acquired_at;
	return Min(row->released_at, row->expires_at);
}

/* ---------- writing ---------- */

static HeapTuple
form_row(TupleDesc desc, const LockRow *row)
{
	Datum		v[NCOLS] = {0};
	bool		null[NCOLS] = {false};

	v[COL_GEN - 1] = Int64GetDatum(row->gen);
	v[COL_TOKEN - 1] = Int64GetDatum(row->token);
	v[COL_ACQUIRED_AT - 1] = TimestampTzGetDatum(row->acquired_at);
	v[COL_DBOID - 1] = ObjectIdGetDatum(row->dboid);
	v[COL_OWNER - 1] = ObjectIdGetDatum(row->owner);
	v[COL_PID - 1] = Int32GetDatum(row->pid);
	v[COL_SCOPE - 1] = CharGetDatum(row->scope);
	v[COL_DOMAIN - 1] = PointerGetDatum(row->domain);
	v[COL_KEY - 1] = PointerGetDatum(row->key);
	v[COL_CALLING_FN - 1] = PointerGetDatum(row->calling_fn);
	v[COL_APPLICATION_NAME - 1] = PointerGetDatum(row->application_name);

	null[COL_TIMEOUT_MS - 1] = row->timeout_ms == -1;
	v[COL_TIMEOUT_MS - 1] = Int64GetDatum(row->timeout_ms);
	null[COL_EXPIRES_AT - 1] = row->expires_at == DT_NOEND;
	v[COL_EXPIRES_AT - 1] = TimestampTzGetDatum(row->expires_at);
	null[COL_RELEASED_AT - 1] = row->released_at == DT_NOEND;
	v[COL_RELEASED_AT - 1] = TimestampTzGetDatum(row->released_at);
	null[COL_CLIENT_ADDR - 1] = row->client_addr == NULL;
	v[COL_CLIENT_ADDR - 1] = PointerGetDatum(row->client_addr);
	null[COL_DATA - 1] = row->data == NULL;
	v[COL_DATA - 1] = PointerGetDatum(row->data);

	return heap_form_tuple(desc, v, null);
}

/*
 * Make the index entries a new row version needs: in every index that is ready
 * for them, ours, those a REINDEX CONCURRENTLY is building and any that
 * somebody added.
 */
static void
insert_index_entries(LockTable *table, TupleTableSlot *slot, TU_UpdateIndexes which)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *relinfo = makeNode(ResultRelInfo);

	InitResultRelInfo(relinfo, table->rel, 0, NULL, 0);
	ExecOpenIndices(relinfo, false);
	compat_insert_index_tuples(relinfo, slot, estate, which);
	ExecCloseIndices(relinfo);
	FreeExecutorState(estate);
}

/*
 * Can the row in the table's slot be changed at once?  *wait is set if it is
 * locked by this very transaction, and by nobody else: a change that may wait
 * then finds nothing to wait for, whereas one that may not would be refused.
 *
 * PostgreSQL's own callers always wait, so what it does otherwise is not well
 * trodden; the row is therefore asked first.
 */
static bool
row_can_be_changed(LockTable *table, bool *wait)
{
	Buffer		buffer = ((BufferHeapTupleTableSlot *) table->slot)->buffer;
	bool		unused;
	HeapTuple	tuple = ExecFetchSlotHeapTuple(table->slot, false, &unused);
	HeapTupleHeader header = tuple->t_data;
	TM_Result	state;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	state = HeapTupleSatisfiesUpdate(tuple, GetCurrentCommandId(true), buffer);
	*wait = state == TM_BeingModified &&
		!(header->t_infomask & HEAP_XMAX_IS_MULTI) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetRawXmax(header));
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return state == TM_Ok || *wait;
}

static bool
update_row(LockTable *table, const LockRow *old, LockRow *new, TupleTableSlot *slot)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	HeapTuple	tuple;
	TM_FailureData failure;
	LockTupleMode lockmode;
	TU_UpdateIndexes which;
	ItemPointerData tid = old->tid;
	bool		wait;

	if (!row_can_be_changed(table, &wait))
		return false;

	new->gen = old->gen;
	tuple = form_row(desc, new);
	if (!page_has_room(((BufferHeapTupleTableSlot *) table->slot)->buffer, tuple->t_len))
	{
		new->gen = Max(old->gen + 1, GetCurrentTimestamp());
		tuple = form_row(desc, new);
	}

	ExecStoreHeapTuple(tuple, slot, false);
	if (table_tuple_update(table->rel, &tid, slot, GetCurrentCommandId(true),
						   SnapshotAny, InvalidSnapshot, wait, &failure,
						   &lockmode, &which) != TM_Ok)
		return false;
	if (which != TU_None)
		insert_index_entries(table, slot, which);
	return true;
}

static void
insert_row(LockTable *table, LockRow *new, TupleTableSlot *slot)
{
	new->gen = GetCurrentTimestamp();
	ExecStoreHeapTuple(form_row(RelationGetDescr(table->rel), new), slot, false);
	table_tuple_insert(table->rel, slot, GetCurrentCommandId(true), 0, NULL);
	insert_index_entries(table, slot, TU_All);
}

/* Nobody may go by what was seen of a row that is about to change. */
static void
forget_seen(const LockRow *row, LockName *name)
{
	lockext_name_set(name, row->domain, row->key);
	lockext_seen_forget(name);
}

/*
 * Write a row: over old, which must be what the last look found, or as a
 * new one if old is NULL.  The caller holds KEY and a RowExclusiveLock on the
 * table, which it keeps to the end of the transaction.
 *
 * Returns false, with nothing changed, if somebody has locked the row itself
 * (SELECT ... FOR UPDATE by a superuser): waiting is not this function's.
 */
bool
lockext_row_write(LockTable *table, const LockRow *old, LockRow *new)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(table->rel),
													&TTSOpsHeapTuple);
	LockName	name;
	bool		done = true;
	bool		has_snapshot = ActiveSnapshotSet();

	/* PostgreSQL wants one for writing; lock_acquire_wait() comes without */
	if (!has_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	forget_seen(new, &name);
	if (old != NULL)
		done = update_row(table, old, new, slot);
	else
		insert_row(table, new, slot);
	if (!has_snapshot)
		PopActiveSnapshot();

	if (done)
	{
		bool		first = !HeapTupleIsHeapOnly(ExecFetchSlotHeapTuple(slot, false, NULL));

		lockext_chain_remember(RelationGetRelid(table->rel), &name,
							   first ? &slot->tts_tid : &table->root, &slot->tts_tid);
	}
	ExecDropSingleTupleTableSlot(slot);

	/* so that this transaction can change the row again */
	if (done)
		CommandCounterIncrement();
	return done;
}

/* Remove the row in the table's slot; conditions and result as for lockext_row_write(). */
bool
lockext_row_remove(LockTable *table, const LockRow *row)
{
	TM_FailureData failure;
	ItemPointerData tid = row->tid;
	LockName	name;
	bool		wait;

	forget_seen(row, &name);
	return row_can_be_changed(table, &wait) &&
		table_tuple_delete(table->rel, &tid, GetCurrentCommandId(true),
						   SnapshotAny, InvalidSnapshot, wait, &failure,
						   false) == TM_Ok;
}

static HeapTupleHeader
header_of(LockTable *table)
{
	bool		unused;

	return ExecFetchSlotHeapTuple(table->slot, false, &unused)->t_data;
}

/* Has this transaction written the row in the table's slot? */
bool
lockext_row_is_by_me(LockTable *table)
{
	return TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(header_of(table)));
}

/*
 * Has a transaction that is still open changed the row in the table's slot?
 * Then the worker is told when it ends.
 */
bool
lockext_row_being_changed(LockTable *table)
{
	HeapTupleHeader header = header_of(table);

	return !(header->t_infomask & HEAP_XMAX_INVALID) &&
		!HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask) &&
		TransactionIdIsInProgress(HeapTupleHeaderGetUpdateXid(header));
}
