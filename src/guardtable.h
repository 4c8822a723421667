/*
 * guardtable.h
 *		Tables that accept writes from the holder of a lock only.
 */
#ifndef LOCKEXT_GUARDTABLE_H
#define LOCKEXT_GUARDTABLE_H

#include "postgres.h"

#include "access/htup.h"
#include "guards.h"
#include "names.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

typedef void (*GuardedTableVisitor) (Oid relid, const LockName *name, void *arg);

extern bool lockext_trigger_guards(Relation pg_trigger, HeapTuple tuple, Oid write_fn,
								   LockName *name);
extern void lockext_for_each_guarded_table(Oid write_fn, GuardedTableVisitor visit, void *arg);
extern List *lockext_parents_of(Oid relid);
extern void lockext_check_mixed_guard(const GuardState *state, Oid trigger);
extern void lockext_adopt_tables(const GuardState *state, Oid relid);
extern char *lockext_relation_display(Oid relid);

#endif							/* LOCKEXT_GUARDTABLE_H */
