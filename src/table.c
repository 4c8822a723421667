/*
 * table.c
 *		Finding, locking and opening the lock table.
 *
 * Locks on it that are kept belong to the current subtransaction, like KEY and
 * for the same reason: see keylock.c.
 */
#include "postgres.h"

#include "compat.h"
#include "names.h"
#include "store.h"
#include "table.h"

#include "access/relation.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/resowner.h"

#define TABLE_NAME "lockext_lock"

/*
 * Which table the functions of an extension work on, and which tables were
 * found to have the shape expected here.  Forgotten on every relcache
 * invalidation that concerns the table.
 */
#define CACHE_SIZE 16
static struct
{
	Oid			fn_oid;
	Oid			relid;
}			cache[CACHE_SIZE];
static int	cached = 0;
static Oid	checked_relid = InvalidOid;

static void
forget_table(Datum arg, Oid relid)
{
	if (OidIsValid(relid) && relid != checked_relid &&
		(cached == 0 || relid != cache[0].relid))
		return;
	cached = 0;
	checked_relid = InvalidOid;
}

void
lockext_table_init(void)
{
	CacheRegisterRelcacheCallback(forget_table, (Datum) 0);
}

/*
 * The lock table in a schema; with missing_ok InvalidOid if there is none, else
 * raises 42P01, as happens when the extension is dropped while its functions
 * run.
 */
Oid
lockext_table_in_schema(Oid nspoid, bool missing_ok)
{
	Oid			relid = OidIsValid(nspoid) ? get_relname_relid(TABLE_NAME, nspoid) : InvalidOid;

	if (!OidIsValid(relid) && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("lock table \"%s\" does not exist", TABLE_NAME),
				 errhint("The extension \"lockext\" was dropped or is not complete.")));
	return relid;
}

/* The lock table beside the given function, that is, in its schema.  Raises 42P01. */
Oid
lockext_table_oid(Oid fn_oid)
{
	Oid			relid;

	for (int i = 0; i < cached; i++)
		if (cache[i].fn_oid == fn_oid)
			return cache[i].relid;

	relid = lockext_table_in_schema(get_func_namespace(fn_oid), false);
	if (cached == CACHE_SIZE || (cached > 0 && cache[0].relid != relid))
		cached = 0;
	cache[cached].fn_oid = fn_oid;
	cache[cached].relid = relid;
	cached++;
	return relid;
}

/*
 * The same, as if the table had just been locked; InvalidOid unless this session has
 * found it to be as expected since it was last altered.  For what is known of its rows
 * without opening it.
 */
Oid
lockext_table_checked(Oid fn_oid)
{
	Oid			relid;

	AcceptInvalidationMessages();
	relid = lockext_table_oid(fn_oid);
	return relid == checked_relid ? relid : InvalidOid;
}

/*
 * Lock the table, for the current subtransaction.  False if that cannot be had
 * at once and wait is false.
 */
static bool
lock_table(Oid relid, LOCKMODE mode, bool wait)
{
	ResourceOwner owner = CurrentResourceOwner;
	bool		locked = true;

	CurrentResourceOwner = CurTransactionResourceOwner;
	if (wait)
		LockRelationOid(relid, mode);
	else
		locked = ConditionalLockRelationOid(relid, mode);
	CurrentResourceOwner = owner;
	return locked;
}

static void
unlock_table(Oid relid, LOCKMODE mode)
{
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = CurTransactionResourceOwner;
	UnlockRelationOid(relid, mode);
	CurrentResourceOwner = owner;
}

/*
 * The mode to ask for: the stronger one if this transaction holds that already,
 * since a new, weaker request would queue behind somebody who waits for us.
 */
static LOCKMODE
effective_mode(Oid relid, LOCKMODE mode)
{
	LOCKTAG		tag;

	if (mode == RowExclusiveLock)
		return mode;
	lockext_relation_tag(&tag, relid);
	return compat_lock_held_by_me(&tag, RowExclusiveLock) ? RowExclusiveLock : mode;
}

/* A lock on the table or an index of it could not be had at once: whose is to be found out. */
void
lockext_table_refused(LockTable *table, Oid relid, LOCKMODE mode)
{
	lockext_relation_tag(&table->refused, relid);
	table->refused_mode = mode;
}

/*
 * Lock all indexes of the table, as changing a row does, but without waiting:
 * ALTER INDEX locks an index and not its table.
 */
static bool
lock_indexes(LockTable *table)
{
	List	   *indexes = RelationGetIndexList(table->rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		if (!ConditionalLockRelationOid(lfirst_oid(lc), RowExclusiveLock))
		{
			lockext_table_refused(table, lfirst_oid(lc), RowExclusiveLock);
			list_free(indexes);
			return false;
		}
		table->indexes = lappend_oid(table->indexes, lfirst_oid(lc));
	}
	list_free(indexes);
	return true;
}

static void
unlock_indexes(LockTable *table)
{
	ListCell   *lc;

	foreach(lc, table->indexes)
		UnlockRelationOid(lfirst_oid(lc), RowExclusiveLock);
	list_free(table->indexes);
}

/*
 * Open and lock the table.  False if the lock cannot be had at once and wait is
 * false; which lock that was is left in *table.  To write without waiting takes a
 * lock on every index as well, until the table is closed.  If the table is gone,
 * true, with table->rel NULL and no lock.
 */
bool
lockext_table_open_relid(LockTable *table, Oid relid, LOCKMODE mode, bool wait)
{
	table->mode = effective_mode(relid, mode);
	table->wait = wait;
	table->indexes = NIL;
	if (!lock_table(relid, table->mode, wait))
	{
		lockext_table_refused(table, relid, table->mode);
		return false;
	}

	table->rel = try_relation_open(relid, NoLock);
	if (table->rel == NULL)
		unlock_table(relid, table->mode);
	else
	{
		if (relid != checked_relid)
		{
			lockext_check_shape(table->rel);
			checked_relid = relid;
		}
		table->slot = table_slot_create(table->rel, NULL);
		if (mode == RowExclusiveLock && !wait && !lock_indexes(table))
		{
			lockext_table_close(table, false);
			return false;
		}
	}
	return true;
}

/*
 * Open the lock table beside the given function and lock it.  False if the
 * lock cannot be had without waiting and wait is false.
 */
bool
lockext_table_open(LockTable *table, Oid fn_oid, LOCKMODE mode, bool wait)
{
	for (;;)
	{
		Oid			relid = lockext_table_oid(fn_oid);

		if (!lockext_table_open_relid(table, relid, mode, wait))
			return false;

		/* getting the lock may have brought news: is it still the one? */
		if (table->rel != NULL)
		{
			if (lockext_table_oid(fn_oid) == relid)
				return true;
			lockext_table_close(table, false);
		}
		cached = 0;
		CHECK_FOR_INTERRUPTS();
	}
}

/* keep: the lock on the table (alone) stays until the end of the transaction. */
void
lockext_table_close(LockTable *table, bool keep)
{
	Oid			relid = RelationGetRelid(table->rel);

	ExecDropSingleTupleTableSlot(table->slot);
	unlock_indexes(table);
	table_close(table->rel, NoLock);
	if (!keep)
		unlock_table(relid, table->mode);
}
