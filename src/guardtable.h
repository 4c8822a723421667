/*
 * guardtable.h
 *		Tables that accept writes from the holder of a lock only.
 */
#ifndef LOCKEXT_GUARDTABLE_H
#define LOCKEXT_GUARDTABLE_H

#include "postgres.h"

#include "access/htup.h"
#include "guardschema.h"
#include "names.h"
#include "utils/rel.h"

typedef void (*GuardedTableVisitor) (Oid relid, const LockName *name, void *arg);

extern void lockext_trigger_lock(Relation pg_trigger, HeapTuple trigger, LockName *name);
extern void lockext_for_each_guarded_table(Oid write_fn, GuardedTableVisitor visit, void *arg);
extern bool lockext_guard_has_trigger(const GuardState *state, Oid relid,
									  const char *trigger, LockName *name);
extern bool lockext_any_table_is_guarded(Oid write_fn);
extern void lockext_adopt_tables(const GuardState *state, Oid relid);
extern char *lockext_relation_display(Oid relid);

#endif							/* LOCKEXT_GUARDTABLE_H */
