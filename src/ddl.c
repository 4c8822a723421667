/*
 * ddl.c
 *		What watches over DDL where something is guarded.
 *
 * Three things see DDL, each what the others do not:
 *	- two event triggers: before a command, for those that cannot be rolled back and to
 *	  refuse the common ones before they wait for a table; and after it, for all
 *	  objects that it reports;
 *	- the object access hook, at each object that is created, altered or dropped, also by
 *	  commands that fire no event trigger, or elsewhere by CASCADE;
 *	- the utility hook, for commands that fire no event trigger and reach no object.
 * The hooks need the library.  Where it is not preloaded, the first event trigger to
 * fire in a session loads it.
 *
 * Guards are in effect as long as the second event trigger is there.  It is made with the
 * first guard, and so is not a part of the extension: a dump restores it last, when
 * all that is guarded has been restored; and a database without guards has neither.
 *
 * Nothing here asks who the current user is: see guard.c.
 */
#include "postgres.h"

#include "compat.h"
#include "ddl.h"
#include "guard.h"
#include "guardtable.h"
#include "keylock.h"
#include "table.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_default_acl.h"
#include "catalog/pg_event_trigger.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "commands/defrem.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(lockext_ddl_start);
PG_FUNCTION_INFO_V1(lockext_ddl_end);

#define START_TRIGGER "lockext_ddl_start"
#define END_TRIGGER "lockext_ddl_end"
#define STORE_NAME "lockext_guarded_schema"
#define WRITE_FUNCTION "lockext_guard_write"

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* What was found out about this database; again after each change of event triggers. */
static struct
{
	bool		known;
	bool		in_effect;
	GuardState	state;
}			cache;

/* ---------- are guards in effect? ---------- */

static void
forget_state(Datum arg, int cacheid, uint32 hash)
{
	cache.known = false;
}

static Oid
function_in_schema(const char *name, Oid schema)
{
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
						   PointerGetDatum(buildoidvector(NULL, 0)),
						   ObjectIdGetDatum(schema));
}

/* The parts of the extension that the function belongs to; false if one is missing. */
static bool
find_parts(Oid fn_oid, GuardState *state)
{
	Oid			schema = get_func_namespace(fn_oid);

	if (!OidIsValid(schema) || !OidIsValid(lockext_table_in_schema(schema, true)))
		return false;
	state->fn_oid = fn_oid;
	state->store = get_relname_relid(STORE_NAME, schema);
	state->write_fn = function_in_schema(WRITE_FUNCTION, schema);
	return OidIsValid(state->store) && OidIsValid(state->write_fn);
}

static bool
look_for_state(GuardState *state)
{
	HeapTuple	tuple = SearchSysCache1(EVENTTRIGGERNAME, CStringGetDatum(END_TRIGGER));
	Form_pg_event_trigger trigger;
	Oid			fn_oid = InvalidOid;

	if (!HeapTupleIsValid(tuple))
		return false;
	trigger = (Form_pg_event_trigger) GETSTRUCT(tuple);
	if (trigger->evtenabled != TRIGGER_DISABLED)
		fn_oid = trigger->evtfoid;
	ReleaseSysCache(tuple);
	return OidIsValid(fn_oid) && find_parts(fn_oid, state);
}

/* Is anything guarded in this database, as far as anybody has said so? */
bool
lockext_guards_in_effect(GuardState *state)
{
	if (!cache.known)
	{
		/* first, so that an invalidation on the way is not lost */
		cache.known = true;
		cache.in_effect = look_for_state(&cache.state);
	}
	*state = cache.state;
	return cache.in_effect;
}

static void
run_as_owner(Oid fn_oid, const char *command)
{
	Oid			role;
	int			context;
	HeapTuple	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(fn_oid));
	Oid			owner;
	int			result;

	if (!HeapTupleIsValid(function))
		elog(ERROR, "cache lookup failed for function %u", fn_oid);
	owner = ((Form_pg_proc) GETSTRUCT(function))->proowner;
	ReleaseSysCache(function);

	/* an error puts role and context back, with the (sub)transaction */
	GetUserIdAndSecContext(&role, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	result = SPI_execute(command, false, 0);
	if (result != SPI_OK_UTILITY)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	SPI_finish();
	SetUserIdAndSecContext(role, context);
}

static void
create_event_trigger(Oid fn_oid, const char *name, const char *event)
{
	char	   *schema = get_namespace_name(get_func_namespace(fn_oid));

	if (OidIsValid(get_event_trigger_oid(name, true)))
		return;
	run_as_owner(fn_oid, psprintf("CREATE EVENT TRIGGER %s ON %s EXECUTE FUNCTION %s()",
								  name, event, quote_qualified_identifier(schema, name)));
	run_as_owner(fn_oid, psprintf("ALTER EVENT TRIGGER %s ENABLE ALWAYS", name));
}

/*
 * Something is about to be guarded, or not to be guarded any more, by the function
 * fn_oid: one at a time, until the end of the transaction.
 */
void
lockext_guards_begin(Oid fn_oid, GuardState *state)
{
	if (!find_parts(fn_oid, state))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a part of the extension \"lockext\" does not exist"),
				 errhint("The extension was dropped or is not complete.")));
	LockRelationOid(state->store, ShareRowExclusiveLock);
	create_event_trigger(fn_oid, START_TRIGGER, "ddl_command_start");
	create_event_trigger(fn_oid, END_TRIGGER, "ddl_command_end");
}

static void
note_schema(const char *schema, const LockName *name, void *arg)
{
	*(bool *) arg = true;
}

/* If nothing is guarded any more, nothing is watched either. */
void
lockext_guards_end(const GuardState *state)
{
	bool		any = lockext_any_table_is_guarded(state->write_fn);

	lockext_for_each_guarded_schema(state->store, note_schema, &any);
	if (any)
		return;
	run_as_owner(state->fn_oid, "DROP EVENT TRIGGER IF EXISTS " START_TRIGGER);
	run_as_owner(state->fn_oid, "DROP EVENT TRIGGER IF EXISTS " END_TRIGGER);
}

/* ---------- to which schema does an object belong? ---------- */

/*
 * For the catalogs whose rows have no schema of their own, the column that leads to
 * one: through a table, or, where table is false, directly.
 */
static const struct
{
	Oid			catalog;
	Oid			index;			/* on its OID column */
	AttrNumber	oid;
	AttrNumber	column;
	bool		table;
}			ways[] = {
	{RelationRelationId, ClassOidIndexId, Anum_pg_class_oid, Anum_pg_class_relnamespace, false},
	{TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid, Anum_pg_trigger_tgrelid, true},
	{RewriteRelationId, RewriteOidIndexId, Anum_pg_rewrite_oid, Anum_pg_rewrite_ev_class, true},
	{PolicyRelationId, PolicyOidIndexId, Anum_pg_policy_oid, Anum_pg_policy_polrelid, true},
	{AttrDefaultRelationId, AttrDefaultOidIndexId, Anum_pg_attrdef_oid, Anum_pg_attrdef_adrelid, true},
	{DefaultAclRelationId, DefaultAclOidIndexId, Anum_pg_default_acl_oid,
	Anum_pg_default_acl_defaclnamespace, false},
};

/*
 * An OID in the catalog row of an object, as the snapshot sees it; NULL: before the
 * command that is running.  InvalidOid if there is no such row.
 */
static Oid
oid_in_row(Oid catalog, Oid index, AttrNumber oid_column, Oid oid, AttrNumber column,
		   Snapshot snapshot)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	Oid			result = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, oid_column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(rel, index, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

		result = isnull ? InvalidOid : DatumGetObjectId(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* The schema of an object; InvalidOid if it has none. */
static Oid
schema_of(Oid classId, Oid objectId, Snapshot snapshot)
{
	if (classId == NamespaceRelationId)
		return objectId;
	if (classId == IndexRelationId || classId == InheritsRelationId ||
		classId == ForeignTableRelationId)
		classId = RelationRelationId;	/* their rows go by the OID of a relation */
	for (int i = 0; i < lengthof(ways); i++)
	{
		Oid			oid;

		if (ways[i].catalog != classId)
			continue;
		oid = oid_in_row(classId, ways[i].index, ways[i].oid, objectId, ways[i].column, snapshot);
		return ways[i].table && OidIsValid(oid)
			? schema_of(RelationRelationId, oid, snapshot) : oid;
	}
	if (!is_objectclass_supported(classId) ||
		get_object_attnum_namespace(classId) == InvalidAttrNumber)
		return InvalidOid;
	return oid_in_row(classId, get_object_oid_index(classId), get_object_attnum_oid(classId),
					  objectId, get_object_attnum_namespace(classId), snapshot);
}

/* ---------- at each object ---------- */

static void
check_schema(const GuardState *state, Oid schema, const char *verb, Oid classId, Oid objectId)
{
	const Deed	deed = {verb, NULL, classId, objectId};

	lockext_check_schema(state, schema, &deed, false);
}

/* The object may move from one schema to another: both count. */
static void
check_object(const GuardState *state, const char *verb, Oid classId, Oid objectId)
{
	Oid			old = schema_of(classId, objectId, NULL);
	Oid			new = schema_of(classId, objectId, SnapshotSelf);

	if (OidIsValid(old))
		check_schema(state, old, verb, classId, objectId);
	if (OidIsValid(new) && new != old)
		check_schema(state, new, verb, classId, objectId);
}

static void
must_have_for_guard(const GuardState *state, Oid relid, const LockName *name)
{
	lockext_must_have(state->fn_oid, name,
					  psprintf("change the guard of table %s", lockext_relation_display(relid)));
}

/*
 * The triggers of guarded tables are not dropped, or altered so that they do not fire
 * always, without the lock either.
 */
static void
check_trigger(const GuardState *state, Oid objectId, bool altered)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		ours;
	LockName	name;
	Oid			relid = InvalidOid;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(objectId));
	scan = systable_beginscan(rel, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	ours = HeapTupleIsValid(tuple) &&
		((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid == state->write_fn;
	if (ours)
	{
		relid = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
		lockext_trigger_lock(rel, tuple, &name);
	}
	systable_endscan(scan);
	if (ours && altered)
	{
		scan = systable_beginscan(rel, TriggerOidIndexId, true, SnapshotSelf, 1, &key);
		tuple = systable_getnext(scan);
		ours = !HeapTupleIsValid(tuple) ||
			((Form_pg_trigger) GETSTRUCT(tuple))->tgenabled != TRIGGER_FIRES_ALWAYS;
		systable_endscan(scan);
	}
	table_close(rel, AccessShareLock);
	if (ours)
		must_have_for_guard(state, relid, &name);
}

/* A schema's guard goes by its name. */
static void
follow_schema(const GuardState *state, ObjectAccessType access, Oid schema)
{
	char	   *old = get_namespace_name(schema);
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (old == NULL)
		return;
	if (access == OAT_DROP)
	{
		lockext_guarded_schema_dropped(state->store, old);
		return;
	}
	rel = table_open(NamespaceRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_namespace_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(schema));
	scan = systable_beginscan(rel, NamespaceOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		const char *new = NameStr(((Form_pg_namespace) GETSTRUCT(tuple))->nspname);

		if (strcmp(old, new) != 0)
			lockext_guarded_schema_renamed(state->store, old, new);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
check_guarded_schema(const char *schema, const LockName *name, void *arg)
{
	const Deed	deed = {"end the guard of", NULL, NamespaceRelationId};

	lockext_check_schema_named(arg, schema, &deed, false);
}

static void
check_guarded_table(Oid relid, const LockName *name, void *arg)
{
	const GuardState *state = arg;

	lockext_must_have(state->fn_oid, name,
					  psprintf("end the guard of table %s", lockext_relation_display(relid)));
}

/* What puts all guards out of effect needs all their locks. */
static void
check_all(GuardState *state)
{
	lockext_for_each_guarded_schema(state->store, check_guarded_schema, state);
	lockext_for_each_guarded_table(state->write_fn, check_guarded_table, state);
}

/* The event trigger that keeps guards in effect is dropped or disabled. */
static void
check_event_trigger(GuardState *state, ObjectAccessType access, Oid objectId)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		disabled;

	if (objectId != get_event_trigger_oid(END_TRIGGER, true))
		return;
	if (access == OAT_DROP)
	{
		check_all(state);
		return;
	}
	rel = table_open(EventTriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_event_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(objectId));
	scan = systable_beginscan(rel, EventTriggerOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	disabled = HeapTupleIsValid(tuple) &&
		(((Form_pg_event_trigger) GETSTRUCT(tuple))->evtenabled == TRIGGER_DISABLED ||
		 strcmp(NameStr(((Form_pg_event_trigger) GETSTRUCT(tuple))->evtname), END_TRIGGER) != 0);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (disabled)
		check_all(state);
}

/* Is it work that PostgreSQL does for itself, as part of a command seen elsewhere? */
static bool
is_internal(ObjectAccessType access, void *arg)
{
	switch (access)
	{
		case OAT_POST_CREATE:
			return arg != NULL && ((ObjectAccessPostCreate *) arg)->is_internal;
		case OAT_POST_ALTER:
			return arg != NULL && ((ObjectAccessPostAlter *) arg)->is_internal;
		case OAT_DROP:
			return arg != NULL &&
				(((ObjectAccessDrop *) arg)->dropflags & PERFORM_DELETION_INTERNAL) != 0;
		default:
			return false;
	}
}

static const char *
verb_of(ObjectAccessType access)
{
	switch (access)
	{
		case OAT_POST_CREATE:
			return "create";
		case OAT_DROP:
			return "drop";
		case OAT_TRUNCATE:
			return "truncate";
		default:
			return "change";
	}
}

static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	GuardState	state;

	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);

	if ((access != OAT_POST_CREATE && access != OAT_DROP && access != OAT_POST_ALTER &&
		 access != OAT_TRUNCATE) ||
		is_internal(access, arg) ||
		IsBinaryUpgrade || IsLogicalWorker() || !IsTransactionState() ||
		!lockext_guards_in_effect(&state))
		return;

	if (classId == EventTriggerRelationId)
		check_event_trigger(&state, access, objectId);
	else
		check_object(&state, verb_of(access), classId, objectId);
	if (classId == TriggerRelationId && access != OAT_POST_CREATE)
		check_trigger(&state, objectId, access == OAT_POST_ALTER);
	else if (classId == NamespaceRelationId)
		follow_schema(&state, access, objectId);
}

/* ---------- before a command ---------- */

/* What a command is about to work on. */
typedef struct Targets
{
	const char *verb;
	List	   *relations;		/* RangeVars */
	bool		tree;			/* and what inherits from them */
	List	   *schemas;		/* or all of these, by name */
	bool		all;			/* or all of the database */
	bool		commits;		/* the command may commit before it ends */
} Targets;

static bool
has_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, name) == 0 && defGetBoolean(option))
			return true;
	}
	return false;
}

static void
targets_of_alter_table(const AlterTableStmt *stmt, Targets *targets)
{
	ListCell   *lc;

	targets->relations = list_make1(stmt->relation);
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst(lc);

		if (cmd->subtype == AT_DetachPartition || cmd->subtype == AT_DetachPartitionFinalize)
		{
			PartitionCmd *partition = (PartitionCmd *) cmd->def;

			targets->relations = lappend(targets->relations, partition->name);
			targets->commits |= partition->concurrent;
		}
	}
}

static void
targets_of_drop(const DropStmt *stmt, Targets *targets)
{
	ListCell   *lc;

	targets->verb = "drop";
	switch (stmt->removeType)
	{
		case OBJECT_TABLE:
		case OBJECT_INDEX:
		case OBJECT_VIEW:
		case OBJECT_MATVIEW:
		case OBJECT_SEQUENCE:
		case OBJECT_FOREIGN_TABLE:
			foreach(lc, stmt->objects)
				targets->relations = lappend(targets->relations,
											 makeRangeVarFromNameList(lfirst(lc)));
			targets->commits = stmt->concurrent;
			break;
		case OBJECT_SCHEMA:
			foreach(lc, stmt->objects)
				targets->schemas = lappend(targets->schemas, strVal(lfirst(lc)));
			break;
		default:
			break;
	}
}

static void
targets_of_reindex(const ReindexStmt *stmt, Targets *targets)
{
	targets->verb = "reindex";
	targets->commits = true;
	targets->tree = true;
	if (stmt->kind == REINDEX_OBJECT_SCHEMA)
		targets->schemas = list_make1(unconstify(char *, stmt->name));
	else if (stmt->kind == REINDEX_OBJECT_DATABASE)
		targets->all = true;
	else if (stmt->relation != NULL)
		targets->relations = list_make1(stmt->relation);
}

static void
targets_of_vacuum(const VacuumStmt *stmt, Targets *targets)
{
	ListCell   *lc;

	if (!stmt->is_vacuumcmd || !has_option(stmt->options, "full"))
		return;
	targets->verb = "rewrite";
	targets->commits = true;
	targets->tree = true;
	targets->all = stmt->rels == NIL;
	foreach(lc, stmt->rels)
	{
		VacuumRelation *rel = lfirst(lc);

		if (rel->relation != NULL)
			targets->relations = lappend(targets->relations, rel->relation);
	}
}

static void
targets_of_cluster(const ClusterStmt *stmt, Targets *targets)
{
	targets->verb = "rewrite";
	targets->commits = true;
	targets->tree = true;
	if (stmt->relation == NULL)
		targets->all = true;
	else
		targets->relations = list_make1(stmt->relation);
}

/* False: nothing is to be looked at before the command. */
static bool
find_targets(Node *stmt, Targets *targets)
{
	memset(targets, 0, sizeof(*targets));
	targets->verb = "change";
	switch (nodeTag(stmt))
	{
		case T_IndexStmt:
			targets->relations = list_make1(((IndexStmt *) stmt)->relation);
			targets->commits = ((IndexStmt *) stmt)->concurrent;
			break;
		case T_AlterTableStmt:
			targets_of_alter_table((AlterTableStmt *) stmt, targets);
			break;
		case T_DropStmt:
			targets_of_drop((DropStmt *) stmt, targets);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->relation != NULL)
				targets->relations = list_make1(((RenameStmt *) stmt)->relation);
			break;
		case T_AlterObjectSchemaStmt:
			if (((AlterObjectSchemaStmt *) stmt)->relation != NULL)
				targets->relations = list_make1(((AlterObjectSchemaStmt *) stmt)->relation);
			break;
		case T_TruncateStmt:
			targets->verb = "truncate";
			targets->relations = ((TruncateStmt *) stmt)->relations;
			break;
		case T_ReindexStmt:
			targets_of_reindex((ReindexStmt *) stmt, targets);
			break;
		case T_VacuumStmt:
			targets_of_vacuum((VacuumStmt *) stmt, targets);
			break;
		case T_ClusterStmt:
			targets_of_cluster((ClusterStmt *) stmt, targets);
			break;
		default:
			break;
	}
	return targets->relations != NIL || targets->schemas != NIL || targets->all;
}

/*
 * By name, without a lock: somebody may rename it meanwhile.  What can be rolled back is
 * looked at again, by OID, when it happens.
 */
static void
check_relation(const GuardState *state, const Targets *targets, const RangeVar *relation)
{
	Oid			relid = RangeVarGetRelid(relation, NoLock, true);
	List	   *members;
	ListCell   *lc;

	if (!OidIsValid(relid))
		return;
	members = targets->tree ? find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	foreach(lc, members)
	{
		const Deed	deed = {targets->verb, NULL, RelationRelationId, lfirst_oid(lc)};

		lockext_check_schema(state, get_rel_namespace(lfirst_oid(lc)), &deed, targets->commits);
	}
}

typedef struct AllSchemas
{
	const GuardState *state;
	const Targets *targets;
} AllSchemas;

static void
check_named_schema(const char *schema, const LockName *name, void *arg)
{
	const AllSchemas *all = arg;
	const Deed	deed = {all->targets->verb, NULL, NamespaceRelationId};

	lockext_check_schema_named(all->state, schema, &deed, all->targets->commits);
}

/* CREATE OR REPLACE TRIGGER: once it is replaced, the old one is not to be seen. */
static void
check_replaced_trigger(const GuardState *state, const CreateTrigStmt *stmt)
{
	Oid			relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	LockName	name;

	if (stmt->replace && OidIsValid(relid) &&
		lockext_guard_has_trigger(state, relid, stmt->trigname, &name))
		must_have_for_guard(state, relid, &name);
}

/* DROP EXTENSION: once it has begun, the lock table may be gone before the guards. */
static bool
drops_extension(Node *stmt, const GuardState *state)
{
	ListCell   *lc;

	if (!IsA(stmt, DropStmt) || ((DropStmt *) stmt)->removeType != OBJECT_EXTENSION)
		return false;
	foreach(lc, ((DropStmt *) stmt)->objects)
	{
		Oid			extension = get_extension_oid(strVal(lfirst(lc)), true);

		if (OidIsValid(extension) &&
			getExtensionOfObject(ProcedureRelationId, state->fn_oid) == extension)
			return true;
	}
	return false;
}

/*
 * Refuse a command that works on a guarded schema without the lock.  True if the
 * command may commit before it ends; then the lock is pinned until
 * lockext_key_unpin_command().
 */
static bool
before_command(Node *stmt)
{
	GuardState	state;
	Targets		targets;
	AllSchemas	all = {&state, &targets};
	ListCell   *lc;

	if (IsBinaryUpgrade || !lockext_guards_in_effect(&state))
		return false;
	if (drops_extension(stmt, &state))
		check_all(&state);
	if (IsA(stmt, CreateTrigStmt))
		check_replaced_trigger(&state, (CreateTrigStmt *) stmt);
	if (!find_targets(stmt, &targets))
		return false;
	foreach(lc, targets.relations)
		check_relation(&state, &targets, lfirst(lc));
	foreach(lc, targets.schemas)
		check_named_schema(lfirst(lc), NULL, &all);
	if (targets.all)
		lockext_for_each_guarded_schema(state.store, check_named_schema, &all);
	return targets.commits;
}

/* Commands that before_command() knows; none that is to work in a failed transaction. */
static bool
is_watched(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_IndexStmt:
		case T_AlterTableStmt:
		case T_DropStmt:
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
		case T_TruncateStmt:
		case T_ReindexStmt:
		case T_VacuumStmt:
		case T_ClusterStmt:
		case T_CreateTrigStmt:
			return IsTransactionState();
		default:
			return false;
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	bool		commits = is_watched(pstmt->utilityStmt) && before_command(pstmt->utilityStmt);

	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);

	if (commits)
		lockext_key_unpin_command();
}

static EventTriggerData *
event_trigger_data(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function can only be called as an event trigger")));
	return (EventTriggerData *) fcinfo->context;
}

/* Where the library is not preloaded, the first call loads it, and with it the hooks. */
Datum
lockext_ddl_start(PG_FUNCTION_ARGS)
{
	EventTriggerData *data = event_trigger_data(fcinfo);

	(void) before_command(data->parsetree);
	PG_RETURN_NULL();
}

/* ---------- after a command ---------- */

/* The objects that the command reports, in the current memory context. */
static List *
reported_objects(void)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext outer = CurrentMemoryContext;
	List	   *objects = NIL;
	int			result;

	SPI_connect();
	if (plan == NULL)
	{
		SPIPlanPtr	new = SPI_prepare("SELECT DISTINCT classid, objid FROM pg_catalog.pg_event_trigger_ddl_commands() WHERE objid IS NOT NULL",
									  0, NULL);

		if (new == NULL || SPI_keepplan(new) != 0)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		plan = new;
	}
	result = SPI_execute_plan(plan, NULL, NULL, false, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		MemoryContext spi = MemoryContextSwitchTo(outer);
		ObjectAddress *object = palloc0(sizeof(ObjectAddress));

		object->classId = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
														 SPI_tuptable->tupdesc, 1, &isnull));
		object->objectId = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
														  SPI_tuptable->tupdesc, 2, &isnull));
		objects = lappend(objects, object);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return objects;
}

/* The schema of what GRANT names, which is not reported. */
static Oid
schema_of_grant(ObjectType type, Node *object)
{
	switch (type)
	{
		case OBJECT_TABLE:
		case OBJECT_SEQUENCE:
			return get_rel_namespace(RangeVarGetRelid((RangeVar *) object, NoLock, true));
		case OBJECT_SCHEMA:
			return get_namespace_oid(strVal(object), true);
		case OBJECT_FUNCTION:
		case OBJECT_PROCEDURE:
		case OBJECT_ROUTINE:
			return get_func_namespace(LookupFuncWithArgs(type, (ObjectWithArgs *) object, true));
		case OBJECT_TYPE:
		case OBJECT_DOMAIN:
			return schema_of(TypeRelationId,
							 LookupTypeNameOid(NULL, makeTypeNameFromNameList((List *) object), true),
							 NULL);
		default:
			return InvalidOid;
	}
}

static void
check_grant(const GuardState *state, const GrantStmt *stmt)
{
	const Deed	deed = {"change", "privileges"};
	ListCell   *lc;

	if (stmt->targtype == ACL_TARGET_DEFAULTS)
		return;
	foreach(lc, stmt->objects)
		lockext_check_schema(state,
							 stmt->targtype == ACL_TARGET_ALL_IN_SCHEMA
							 ? get_namespace_oid(strVal(lfirst(lc)), true)
							 : schema_of_grant(stmt->objtype, lfirst(lc)),
							 &deed, false);
}

static bool
commits_inside(Node *stmt)
{
	Targets		targets;

	return is_watched(stmt) && find_targets(stmt, &targets) && targets.commits;
}

/* REFRESH MATERIALIZED VIEW is no DDL to us: it changes data. */
Datum
lockext_ddl_end(PG_FUNCTION_ARGS)
{
	EventTriggerData *data = event_trigger_data(fcinfo);
	GuardState	state;
	List	   *objects;
	ListCell   *lc;

	if (IsBinaryUpgrade || data->tag == CMDTAG_REFRESH_MATERIALIZED_VIEW ||
		!lockext_guards_in_effect(&state))
		PG_RETURN_NULL();

	objects = reported_objects();
	foreach(lc, objects)
	{
		ObjectAddress *object = lfirst(lc);

		check_schema(&state, schema_of(object->classId, object->objectId, SnapshotSelf),
					 "change", object->classId, object->objectId);
	}
	foreach(lc, objects)
	{
		ObjectAddress *object = lfirst(lc);

		if (object->classId == RelationRelationId)
			lockext_adopt_tables(&state, object->objectId);
	}
	if (IsA(data->parsetree, GrantStmt))
		check_grant(&state, (GrantStmt *) data->parsetree);
	if (commits_inside(data->parsetree))
		lockext_key_unpin_command();
	PG_RETURN_NULL();
}

/* ---------- ---------- */

static void
at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		lockext_key_unpin_command();
}

void
lockext_ddl_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	CacheRegisterSyscacheCallback(EVENTTRIGGEROID, forget_state, (Datum) 0);
	RegisterXactCallback(at_xact_end, NULL);
}
