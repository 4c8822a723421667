/*
 * table.h
 *		Finding, locking and opening the lock table.
 */
#ifndef LOCKEXT_TABLE_H
#define LOCKEXT_TABLE_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "storage/lock.h"
#include "utils/rel.h"

/* The lock table, opened and locked. */
typedef struct LockTable
{
	Relation	rel;
	LOCKMODE	mode;
	bool		wait;			/* may locks on it and its indexes be waited for? */
	List	   *indexes;		/* those locked with the table */
	LOCKMODE	index_mode;		/* lock on the index in use; NoLock: locked with the table */
	TupleTableSlot *slot;		/* the row last found, */
	ItemPointerData root;		/* and, after a look, what is thought to be its chain's root */
	LOCKTAG		refused;		/* the lock that could not be had, */
	LOCKMODE	refused_mode;	/* in this mode */
} LockTable;

extern void lockext_table_init(void);
extern Oid	lockext_table_in_schema(Oid nspoid, bool missing_ok);
extern Oid	lockext_table_oid(Oid fn_oid);
extern Oid	lockext_table_checked(Oid fn_oid);
extern bool lockext_table_open(LockTable *table, Oid fn_oid, LOCKMODE mode, bool wait);
extern bool lockext_table_open_relid(LockTable *table, Oid relid, LOCKMODE mode, bool wait);
extern void lockext_table_refused(LockTable *table, Oid relid, LOCKMODE mode);
extern void lockext_table_close(LockTable *table, bool keep);

#endif							/* LOCKEXT_TABLE_H */
