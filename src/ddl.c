/*
 * ddl.c
 *		Guards before and after a command: the event triggers and the utility hook.
 *
 * Three things see DDL, each what the others do not:
 *	- two event triggers: before a command, for those that cannot be rolled back and to
 *	  refuse the common ones before they wait for a table; and after it, for all
 *	  objects that it reports;
 *	- the object access hook (ddlobject.c), at each object that is created, altered or
 *	  dropped, also by commands that fire no event trigger, or elsewhere by CASCADE;
 *	- the utility hook, for commands that fire no event trigger and reach no object.
 * The hooks need the library.  Where it is not preloaded, the first event trigger to
 * fire in a session loads it: for that command, the event triggers stand in for the
 * utility hook.
 *
 * Nothing here asks who the current user is: see guard.c.
 */
#include "postgres.h"

#include "compat.h"
#include "ddl.h"
#include "ddlobject.h"
#include "guard.h"
#include "guards.h"
#include "guardschema.h"
#include "guardtable.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_shdepend.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(lockext_ddl_start);
PG_FUNCTION_INFO_V1(lockext_ddl_end);

static ProcessUtility_hook_type prev_process_utility = NULL;

/* Of how many watched commands, one in another, the utility hook has been called. */
static int	depth = 0;

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

		if (cmd->subtype == AT_AddInherit || cmd->subtype == AT_DropInherit)
			targets->relations = lappend(targets->relations, cmd->def);
		else if (cmd->subtype == AT_DetachPartition || cmd->subtype == AT_DetachPartitionFinalize)
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
		case T_CreateStmt:
			/* its parents; what is in pg_temp is no part of them to others */
			if (((CreateStmt *) stmt)->relation->relpersistence != RELPERSISTENCE_TEMP)
				targets->relations = ((CreateStmt *) stmt)->inhRelations;
			break;
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

/* DROP OWNED: the privileges that it revokes are those of objects it does not reach. */
static void
check_drop_owned(const GuardState *state, const DropOwnedStmt *stmt)
{
	Relation	rel = table_open(SharedDependRelationId, AccessShareLock);
	ListCell   *lc;

	foreach(lc, roleSpecsToIds(stmt->roles))
	{
		ScanKeyData keys[2];
		SysScanDesc scan;
		HeapTuple	tuple;

		ScanKeyInit(&keys[0], Anum_pg_shdepend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(AuthIdRelationId));
		ScanKeyInit(&keys[1], Anum_pg_shdepend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(lfirst_oid(lc)));
		scan = systable_beginscan(rel, SharedDependReferenceIndexId, true, NULL, 2, keys);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			Form_pg_shdepend depend = (Form_pg_shdepend) GETSTRUCT(tuple);

			if (depend->dbid == MyDatabaseId && depend->deptype == SHARED_DEPENDENCY_ACL)
				lockext_check_object(state, "change", depend->classid, depend->objid);
		}
		systable_endscan(scan);
	}
	table_close(rel, AccessShareLock);
}

/*
 * Refuse a command that works on a guarded schema without the lock.  If the command may
 * commit before it ends, the lock is pinned until lockext_unpin_command().
 */
static void
before_command(Node *stmt)
{
	GuardState	state;
	Targets		targets;
	AllSchemas	all = {&state, &targets};
	ListCell   *lc;

	if (IsBinaryUpgrade || !lockext_guards_in_effect(&state))
		return;
	if (drops_extension(stmt, &state))
		lockext_check_all_guards(&state);
	if (IsA(stmt, DropOwnedStmt))
		check_drop_owned(&state, (DropOwnedStmt *) stmt);
	if (!find_targets(stmt, &targets))
		return;
	foreach(lc, targets.relations)
		check_relation(&state, &targets, lfirst(lc));
	foreach(lc, targets.schemas)
		check_named_schema(lfirst(lc), NULL, &all);
	if (targets.all)
		lockext_for_each_guarded_schema(state.store, check_named_schema, &all);
}

/* Commands that are looked at here; none that is to work in a failed transaction. */
static bool
is_watched(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateStmt:
		case T_IndexStmt:
		case T_AlterTableStmt:
		case T_DropStmt:
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
		case T_TruncateStmt:
		case T_ReindexStmt:
		case T_VacuumStmt:
		case T_ClusterStmt:
		case T_DropOwnedStmt:
		case T_GrantStmt:
			return IsTransactionState();
		default:
			return false;
	}
}

/* InvalidOid if there is no such type. */
static Oid
schema_of_type(List *names)
{
	HeapTuple	type = LookupTypeName(NULL, makeTypeNameFromNameList(names), NULL, true);
	Oid			schema;

	if (!HeapTupleIsValid(type))
		return InvalidOid;
	schema = ((Form_pg_type) GETSTRUCT(type))->typnamespace;
	ReleaseSysCache(type);
	return schema;
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
			return schema_of_type((List *) object);
		default:
			return InvalidOid;
	}
}

static void
check_grant(const GrantStmt *stmt)
{
	const Deed	deed = {"change", "privileges"};
	GuardState	state;
	ListCell   *lc;

	if (stmt->targtype == ACL_TARGET_DEFAULTS || !lockext_guards_in_effect(&state))
		return;
	foreach(lc, stmt->objects)
		lockext_check_schema(&state,
							 stmt->targtype == ACL_TARGET_ALL_IN_SCHEMA
							 ? get_namespace_oid(strVal(lfirst(lc)), true)
							 : schema_of_grant(stmt->objtype, lfirst(lc)),
							 &deed, false);
}

/* It has ended without an error. */
static void
after_command(Node *stmt, int mark)
{
	if (IsA(stmt, GrantStmt))
		check_grant((GrantStmt *) stmt);
	lockext_unpin_command(mark);
}

static void
next_process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
					 ProcessUtilityContext context, ParamListInfo params,
					 QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	int			mark = lockext_pin_mark();

	if (!is_watched(stmt))
	{
		next_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
		return;
	}
	depth++;
	PG_TRY();
	{
		before_command(stmt);
		next_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
		after_command(stmt, mark);
	}
	PG_FINALLY();
	{
		depth--;
	}
	PG_END_TRY();
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

	if (depth == 0 && is_watched(data->parsetree))
		before_command(data->parsetree);
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

		lockext_check_object(&state, "change", object->classId, object->objectId);
	}
	foreach(lc, objects)
	{
		ObjectAddress *object = lfirst(lc);

		if (object->classId == RelationRelationId)
			lockext_adopt_tables(&state, object->objectId);
		else if (object->classId == TriggerRelationId)
			lockext_check_mixed_guard(&state, object->objectId);
	}
	if (depth == 0 && is_watched(data->parsetree))
		after_command(data->parsetree, 0);
	PG_RETURN_NULL();
}

void
lockext_ddl_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
