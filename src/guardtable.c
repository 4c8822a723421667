/*
 * guardtable.c
 *		Tables that accept writes from the holder of a lock only: lock_guard_table(),
 *		lock_unguard_table(), and the trigger that they put on tables.
 *
 * The triggers are the configuration: they are dumped, renamed and dropped with their
 * table, and their arguments name the lock.  They are ENABLE ALWAYS, so that
 * session_replication_role does not pass them.  Three per table:
 *	- one per statement, for INSERT, UPDATE and DELETE,
 *	- one per statement, for TRUNCATE,
 *	- one per row, where rows can be written through another table: on a partition or
 *	  inheritance child.  A partitioned table has it too, for PostgreSQL to copy to
 *	  each partition it has or will have.
 * New members of a guarded tree get the other two when the command that made them
 * ends: lockext_adopt_tables().
 */
#include "postgres.h"

#include "args.h"
#include "compat.h"
#include "guard.h"
#include "guards.h"
#include "guardtable.h"
#include "rules.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/indexing.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(lockext_guard_table);
PG_FUNCTION_INFO_V1(lockext_unguard_table);
PG_FUNCTION_INFO_V1(lockext_guard_write);

#define STATEMENT_TRIGGER "lockext_guard"
#define TRUNCATE_TRIGGER "lockext_guard_truncate"
#define ROW_TRIGGER "lockext_guard_row"

/* The guard of a table, as its triggers say. */
typedef struct TableGuard
{
	bool		guarded;
	LockName	name;
	bool		mixed;			/* there are triggers for another lock, too */
	char	   *statement;		/* the triggers' names, NULL: not there */
	char	   *truncate;
	char	   *row;
	bool		row_is_copy;	/* of the parent's */
} TableGuard;

/* The table's name with its schema, as messages show it. */
char *
lockext_relation_display(Oid relid)
{
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	char	   *name = get_rel_name(relid);

	return schema == NULL || name == NULL ? psprintf("%u", relid)
		: quote_qualified_identifier(schema, name);
}

/* ---------- the trigger ---------- */

/* What its arguments say: the lock, with texts in the current memory context. */
static void
name_of_args(const char *key, const char *domain, LockName *name)
{
	lockext_name_set(name, cstring_to_text(domain), cstring_to_text(key));
}

/* The lock of the trigger being called, kept for further calls in the same statement. */
static const LockName *
called_for(FunctionCallInfo fcinfo, const Trigger *trigger)
{
	FmgrInfo   *flinfo = fcinfo->flinfo;
	MemoryContext old;

	if (flinfo->fn_extra != NULL)
		return flinfo->fn_extra;
	if (trigger->tgnargs != 2)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must have two arguments, a key and a domain", trigger->tgname),
				 errhint("Use lock_guard_table().")));
	old = MemoryContextSwitchTo(flinfo->fn_mcxt);
	flinfo->fn_extra = palloc(sizeof(LockName));
	name_of_args(trigger->tgargs[0], trigger->tgargs[1], flinfo->fn_extra);
	MemoryContextSwitchTo(old);
	return flinfo->fn_extra;
}

/* What a BEFORE trigger returns to let the change pass. */
static Datum
pass(const TriggerData *data)
{
	if (!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event)
						   ? data->tg_newtuple : data->tg_trigtuple);
}

/*
 * Trigger of guarded tables.  What logical replication applies was written under the
 * publisher's locks, and passes; as does what a restore writes, until guards are in
 * effect.
 */
Datum
lockext_guard_write(PG_FUNCTION_ARGS)
{
	const TriggerData *data = (TriggerData *) fcinfo->context;
	GuardState	state;
	const LockName *name;
	const char *why;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" can only be called as a BEFORE trigger", "lockext_guard_write")));
	if (IsLogicalWorker() || !lockext_guards_in_effect(&state))
		return pass(data);

	name = called_for(fcinfo, data->tg_trigger);
	if (!lockext_transaction_has(fcinfo->flinfo->fn_oid, name, &why))
		lockext_refuse_unless_bypassed(name, why,
									   psprintf("write to table %s",
												lockext_relation_display(RelationGetRelid(data->tg_relation))));
	return pass(data);
}

/* ---------- which tables are guarded ---------- */

/* What a trigger that guards a table fires for, as pg_trigger has it. */
#define WRITES (TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE)
#define STATEMENT_TYPE (TRIGGER_TYPE_BEFORE | WRITES)
#define TRUNCATE_TYPE (TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_TRUNCATE)
#define ROW_TYPE (TRIGGER_TYPE_ROW | STATEMENT_TYPE)

/*
 * Does the trigger ask for a lock at all writes of a kind, as those of lock_guard_table()
 * do?  Then *name is the lock.  The owner of a table can put the function on it by
 * hand, for some columns or under a condition: that guards nothing.
 */
static bool
asks_for_lock(Relation pg_trigger, HeapTuple tuple, Oid write_fn, LockName *name)
{
	Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
	TupleDesc	desc = RelationGetDescr(pg_trigger);
	const char *key;
	Datum		args;
	bool		isnull;

	if (trigger->tgfoid != write_fn || trigger->tgnargs != 2 || trigger->tgattr.dim1 != 0 ||
		(trigger->tgtype != STATEMENT_TYPE && trigger->tgtype != TRUNCATE_TYPE &&
		 trigger->tgtype != ROW_TYPE) ||
		!heap_attisnull(tuple, Anum_pg_trigger_tgqual, desc))
		return false;
	args = heap_getattr(tuple, Anum_pg_trigger_tgargs, desc, &isnull);
	if (isnull)
		return false;
	key = VARDATA_ANY(DatumGetByteaPP(args));
	name_of_args(key, key + strlen(key) + 1, name);
	return true;
}

/* And does it fire always, so that it guards its table? */
bool
lockext_trigger_guards(Relation pg_trigger, HeapTuple tuple, Oid write_fn, LockName *name)
{
	return ((Form_pg_trigger) GETSTRUCT(tuple))->tgenabled == TRIGGER_FIRES_ALWAYS &&
		asks_for_lock(pg_trigger, tuple, write_fn, name);
}

static void
add_trigger(TableGuard *guard, const Form_pg_trigger trigger)
{
	char	   *name = pstrdup(NameStr(trigger->tgname));

	if (trigger->tgtype == TRUNCATE_TYPE)
		guard->truncate = name;
	else if (trigger->tgtype == STATEMENT_TYPE)
		guard->statement = name;
	else
	{
		guard->row = name;
		guard->row_is_copy = OidIsValid(trigger->tgparentid);
	}
}

static void
find_table_guard(Oid write_fn, Oid relid, TableGuard *guard)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	memset(guard, 0, sizeof(*guard));
	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		LockName	name;

		if (!asks_for_lock(rel, tuple, write_fn, &name))
			continue;
		if (guard->guarded && !lockext_name_equals(&guard->name, name.domain, name.key))
		{
			guard->mixed = true;
			continue;
		}
		guard->guarded = true;
		guard->name = name;
		add_trigger(guard, (Form_pg_trigger) GETSTRUCT(tuple));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Call visit for each table of which writes are guarded; one call for all its triggers. */
void
lockext_for_each_guarded_table(Oid write_fn, GuardedTableVisitor visit, void *arg)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		LockName	name;

		if (lockext_trigger_guards(rel, tuple, write_fn, &name) &&
			trigger->tgtype == STATEMENT_TYPE)
			visit(trigger->tgrelid, &name, arg);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* ---------- putting triggers on tables ---------- */

/*
 * As the owner of the extension: who adds a partition to a guarded table may know nothing
 * of its schema.  only: of a partitioned table, not of its partitions too.
 */
static void
create_trigger(const GuardState *state, Oid relid, const LockName *name,
			   const char *trigger, const char *events, const char *level, bool only)
{
	char	   *table = lockext_relation_display(relid);
	char	   *schema = get_namespace_name(get_func_namespace(state->write_fn));

	lockext_run_as_owner(state->fn_oid,
			psprintf("CREATE TRIGGER %s BEFORE %s ON %s FOR EACH %s EXECUTE FUNCTION %s(%s, %s)",
				 trigger, events, table, level,
				 quote_qualified_identifier(schema, "lockext_guard_write"),
				 quote_literal_cstr(text_to_cstring(name->key)),
				 quote_literal_cstr(text_to_cstring(name->domain))));
	lockext_run_as_owner(state->fn_oid,
			psprintf("ALTER TABLE %s %s ENABLE ALWAYS TRIGGER %s",
				 only ? "ONLY" : "", table, trigger));
}

/* Can rows of the table be written by naming another, or has it partitions to copy to? */
static bool
needs_row_trigger(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE || has_superclass(relid);
}

static void
fail_renamed(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the guard of table %s could not be changed", lockext_relation_display(relid)),
			 errdetail("Its schema was renamed meanwhile.")));
}

/*
 * Make the triggers that a table, guarded by this lock, should have and has not.  Each
 * command that makes one ends in lockext_adopt_tables(), which may have made the next.
 */
static void
complete(const GuardState *state, Oid relid, const LockName *name)
{
	bool		foreign = get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE;
	TableGuard	guard;

	find_table_guard(state->write_fn, relid, &guard);
	if (guard.statement == NULL)
		create_trigger(state, relid, name, STATEMENT_TRIGGER,
					   "INSERT OR UPDATE OR DELETE", "STATEMENT", true);
	find_table_guard(state->write_fn, relid, &guard);
	if (guard.truncate == NULL && !(foreign && !COMPAT_FOREIGN_TRUNCATE_TRIGGERS))
		create_trigger(state, relid, name, TRUNCATE_TRIGGER, "TRUNCATE", "STATEMENT", true);
	find_table_guard(state->write_fn, relid, &guard);
	if (guard.row == NULL && needs_row_trigger(relid))
		create_trigger(state, relid, name, ROW_TRIGGER,
					   "INSERT OR UPDATE OR DELETE", "ROW", false);

	/* they were made by name, of which a schema's can change */
	find_table_guard(state->write_fn, relid, &guard);
	if (guard.statement == NULL || (guard.row == NULL && needs_row_trigger(relid)))
		fail_renamed(relid);
}

/* The tables that a table is a partition or child of. */
List *
lockext_parents_of(Oid relid)
{
	Relation	rel = table_open(InheritsRelationId, AccessShareLock);
	List	   *parents = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = lappend_oid(parents, ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return parents;
}

/*
 * A guarded parent of the table: true, and the lock.  If other_than is given, one by
 * another lock than that.
 */
static bool
find_guarded_parent(const GuardState *state, Oid relid, const LockName *other_than,
					Oid *parent, LockName *name)
{
	ListCell   *lc;

	foreach(lc, lockext_parents_of(relid))
	{
		TableGuard	guard;

		find_table_guard(state->write_fn, lfirst_oid(lc), &guard);
		if (guard.guarded &&
			(other_than == NULL ||
			 !lockext_name_equals(other_than, guard.name.domain, guard.name.key)))
		{
			*parent = lfirst_oid(lc);
			*name = guard.name;
			return true;
		}
	}
	return false;
}

/* Raises 55000 if different locks guard the table, or it and a parent. */
static void
must_be_one_lock(const GuardState *state, Oid relid)
{
	TableGuard	guard;
	Oid			parent;
	LockName	name;

	find_table_guard(state->write_fn, relid, &guard);
	if (guard.guarded &&
		(guard.mixed || find_guarded_parent(state, relid, &guard.name, &parent, &name)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is guarded already, by %s",
						lockext_relation_display(relid), lockext_name_display(&guard.name)),
				 errdetail("A table, its partitions and its children are guarded by one lock only."),
				 errhint("End that guard first, with lock_unguard_table().")));
}

/* A command has created or replaced a trigger, maybe with our function. */
void
lockext_check_mixed_guard(const GuardState *state, Oid trigger)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	Oid			relid = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		relid = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (OidIsValid(relid))
		must_be_one_lock(state, relid);
}

/*
 * A command has created or altered the table: complete the guards of it and its
 * children, which may have become part of a guarded tree, or have got a parent.
 */
void
lockext_adopt_tables(const GuardState *state, Oid relid)
{
	ListCell   *lc;
	char		kind = get_rel_relkind(relid);

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE &&
		kind != RELKIND_FOREIGN_TABLE)
		return;
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Oid			member = lfirst_oid(lc);
		Oid			parent;
		TableGuard	guard;
		LockName	name;

		must_be_one_lock(state, member);
		find_table_guard(state->write_fn, member, &guard);
		if (guard.statement != NULL)
		{
			if (guard.row == NULL && needs_row_trigger(member))
				complete(state, member, &guard.name);
		}
		else if (find_guarded_parent(state, member, NULL, &parent, &name))
		{
			complete(state, member, &name);
			must_be_one_lock(state, member);
		}
	}
}

/* ---------- the functions ---------- */

/* Raises an error unless it is a table that the caller may guard. */
static void
must_be_own_table(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	if (kind == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", get_rel_name(relid))));
	if (!compat_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
	if (IsCatalogRelationOid(relid) || IsToastNamespace(get_rel_namespace(relid)) ||
		get_rel_namespace(relid) == PG_CATALOG_NAMESPACE)
		lockext_bad_value("argument \"relation\"", lockext_relation_display(relid),
						  "System catalogs cannot be guarded.", NULL);
}

/*
 * The table in argument 0, which the caller owns: no lock is asked for before that is
 * known.  Then it is locked, after lockext_guards_begin(), as CREATE TRIGGER does.
 */
static Oid
arg_table(FunctionCallInfo fcinfo)
{
	Oid			relid;

	if (PG_ARGISNULL(0))
		lockext_bad_value("argument \"relation\"", NULL, NULL, NULL);
	relid = PG_GETARG_OID(0);
	must_be_own_table(relid);
	return relid;
}

static void
lock_own_table(Oid relid)
{
	LockRelationOid(relid, ShareRowExclusiveLock);
	must_be_own_table(relid);
}

/*
 * restored: guards were not in effect, so that a guard by the same lock is one that came
 * with a table from a dump, to be completed.
 */
static void
must_not_be_guarded(const GuardState *state, Oid relid, const LockName *name, bool restored)
{
	TableGuard	guard;

	find_table_guard(state->write_fn, relid, &guard);
	if (guard.guarded &&
		!(restored && lockext_name_equals(name, guard.name.domain, guard.name.key)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table %s is guarded already, by %s",
						lockext_relation_display(relid), lockext_name_display(&guard.name)),
				 errhint("End that guard first, with lock_unguard_table().")));
}

/*
 * lock_guard_table(relation, key, domain)
 *
 * Waits, as CREATE TRIGGER does, for transactions that have written to the table.
 */
Datum
lockext_guard_table(PG_FUNCTION_ARGS)
{
	GuardState	state;
	LockName	name;
	Oid			relid;
	List	   *members;
	ListCell   *lc;
	bool		restored;

	lockext_arg_name(fcinfo, 1, 2, LOCKEXT_NO_ARG, &name);
	lockext_must_be_able_to_write("lock_guard_table()");
	relid = arg_table(fcinfo);
	restored = lockext_guards_begin(fcinfo->flinfo->fn_oid, &state);
	lock_own_table(relid);
	members = find_all_inheritors(relid, ShareRowExclusiveLock, NULL);
	foreach(lc, members)
		must_not_be_guarded(&state, lfirst_oid(lc), &name, restored);

	foreach(lc, members)
		complete(&state, lfirst_oid(lc), &name);
	PG_RETURN_VOID();
}

static void
drop_trigger(const GuardState *state, Oid relid, const char *trigger)
{
	if (trigger != NULL)
		lockext_run_as_owner(state->fn_oid,
							 psprintf("DROP TRIGGER %s ON %s", quote_identifier(trigger),
									  lockext_relation_display(relid)));
}

static void
drop_guard(const GuardState *state, Oid relid, const LockName *name)
{
	TableGuard	guard;

	find_table_guard(state->write_fn, relid, &guard);
	if (!guard.guarded || !lockext_name_equals(name, guard.name.domain, guard.name.key))
		return;
	drop_trigger(state, relid, guard.statement);
	drop_trigger(state, relid, guard.truncate);
	if (!guard.row_is_copy)
		drop_trigger(state, relid, guard.row);
	find_table_guard(state->write_fn, relid, &guard);
	if (guard.statement != NULL)
		fail_renamed(relid);
}

/* lock_unguard_table(relation): for who has the lock */
Datum
lockext_unguard_table(PG_FUNCTION_ARGS)
{
	GuardState	state;
	TableGuard	guard;
	Oid			relid;
	Oid			parent;
	LockName	name;
	ListCell   *lc;

	lockext_must_be_able_to_write("lock_unguard_table()");
	relid = arg_table(fcinfo);
	(void) lockext_guards_begin(fcinfo->flinfo->fn_oid, &state);
	lock_own_table(relid);
	find_table_guard(state.write_fn, relid, &guard);
	if (!guard.guarded)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table %s is not guarded", lockext_relation_display(relid))));
	if (find_guarded_parent(&state, relid, NULL, &parent, &name) &&
		lockext_name_equals(&name, guard.name.domain, guard.name.key))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is guarded as a part of table %s",
						lockext_relation_display(relid), lockext_relation_display(parent)),
				 errhint("End the guard of that table.")));

	lockext_must_have(state.fn_oid, &guard.name,
					  psprintf("end the guard of table %s", lockext_relation_display(relid)));
	foreach(lc, find_all_inheritors(relid, ShareRowExclusiveLock, NULL))
		drop_guard(&state, lfirst_oid(lc), &guard.name);
	lockext_guards_end(&state);
	PG_RETURN_VOID();
}
