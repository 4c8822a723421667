/*
 * ddlobject.c
 *		Guards at each object that DDL creates, alters or drops: the object access hook.
 *
 * The hook comes when PostgreSQL has written the object's catalog row, before the
 * command counter is incremented: a catalog snapshot sees the row as it was,
 * SnapshotSelf as it is.  An object that moves from one schema to another belongs to
 * both.
 *
 * What PostgreSQL does for itself, as part of a command that is seen elsewhere, is marked
 * internal and passes: so do temporary tables at the end of a session.
 */
#include "postgres.h"

#include "compat.h"
#include "ddlobject.h"
#include "guard.h"
#include "guardschema.h"
#include "guardtable.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_default_acl.h"
#include "catalog/pg_event_trigger.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static object_access_hook_type prev_object_access = NULL;

/* ---------- to which schemas does an object belong? ---------- */

/*
 * Columns that lead to a schema: through a table, or, where table is false, directly.
 * For the catalogs whose rows have no schema of their own, and for those that lead to a
 * second one.
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
	{AttrDefaultRelationId, AttrDefaultOidIndexId, Anum_pg_attrdef_oid,
	Anum_pg_attrdef_adrelid, true},
	{DefaultAclRelationId, DefaultAclOidIndexId, Anum_pg_default_acl_oid,
	Anum_pg_default_acl_defaclnamespace, false},
	/* a foreign key puts triggers on the table it refers to */
	{ConstraintRelationId, ConstraintOidIndexId, Anum_pg_constraint_oid,
	Anum_pg_constraint_connamespace, false},
	{ConstraintRelationId, ConstraintOidIndexId, Anum_pg_constraint_oid,
	Anum_pg_constraint_confrelid, true},
};

/*
 * The catalog row of an object, a copy, as the snapshot sees it; NULL: as it was before
 * the command that is running.  NULL if there is none.
 */
static HeapTuple
row_of(Relation catalog, Oid index, AttrNumber oid_column, Oid oid, Snapshot snapshot)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, oid_column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(catalog, index, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	return tuple;
}

/* An OID in the row of an object; InvalidOid if there is no such row. */
static Oid
oid_in_row(Oid catalog, Oid index, AttrNumber oid_column, Oid oid, AttrNumber column,
		   Snapshot snapshot)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	HeapTuple	tuple = row_of(rel, index, oid_column, oid, snapshot);
	bool		isnull = true;
	Datum		value = 0;

	if (HeapTupleIsValid(tuple))
		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);
	table_close(rel, AccessShareLock);
	return isnull ? InvalidOid : DatumGetObjectId(value);
}

static List *
add_schema(List *schemas, Oid schema)
{
	return OidIsValid(schema) ? list_append_unique_oid(schemas, schema) : schemas;
}

static List *
add_schemas(List *schemas, Oid classId, Oid objectId, Snapshot snapshot)
{
	bool		known = false;

	if (classId == NamespaceRelationId)
		return add_schema(schemas, objectId);
	for (int i = 0; i < lengthof(ways); i++)
	{
		Oid			oid;

		if (ways[i].catalog != classId)
			continue;
		known = true;
		oid = oid_in_row(classId, ways[i].index, ways[i].oid, objectId, ways[i].column, snapshot);
		schemas = ways[i].table && OidIsValid(oid)
			? add_schemas(schemas, RelationRelationId, oid, snapshot)
			: add_schema(schemas, oid);
	}
	if (known || !is_objectclass_supported(classId) ||
		get_object_attnum_namespace(classId) == InvalidAttrNumber)
		return schemas;
	return add_schema(schemas,
					  oid_in_row(classId, get_object_oid_index(classId),
								 get_object_attnum_oid(classId), objectId,
								 get_object_attnum_namespace(classId), snapshot));
}

/* Raises LK002 if a schema of the object is guarded and its lock is not had. */
void
lockext_check_object(const GuardState *state, const char *verb, Oid classId, Oid objectId)
{
	const Deed	deed = {verb, NULL, classId, objectId};
	List	   *schemas = add_schemas(NIL, classId, objectId, NULL);
	ListCell   *lc;

	schemas = add_schemas(schemas, classId, objectId, SnapshotSelf);
	foreach(lc, schemas)
		lockext_check_schema(state, lfirst_oid(lc), &deed, false);
	list_free(schemas);
}

/*
 * Is it the row type of a table, or an array type?  They come with the table or the
 * element type, which is looked at; also those of the table that REFRESH MATERIALIZED
 * VIEW makes for itself.
 */
static bool
comes_with_another(Oid type)
{
	return OidIsValid(oid_in_row(TypeRelationId, TypeOidIndexId, Anum_pg_type_oid, type,
								 Anum_pg_type_typrelid, SnapshotSelf)) ||
		OidIsValid(oid_in_row(TypeRelationId, TypeOidIndexId, Anum_pg_type_oid, type,
							  Anum_pg_type_typelem, SnapshotSelf));
}

/* A table gets a parent; what is in pg_temp is no part of that to others. */
static void
check_parent(const GuardState *state, Oid relid, Oid parent)
{
	Oid			schema = oid_in_row(RelationRelationId, ClassOidIndexId, Anum_pg_class_oid,
									relid, Anum_pg_class_relnamespace, SnapshotSelf);

	if (!isAnyTempNamespace(schema))
		lockext_check_object(state, "change", RelationRelationId, parent);
}

/* A dropped table is missing from those that it is a partition or child of. */
static void
check_parents(const GuardState *state, Oid relid)
{
	ListCell   *lc;

	if (isAnyTempNamespace(get_rel_namespace(relid)))
		return;
	foreach(lc, lockext_parents_of(relid))
		lockext_check_object(state, "change", RelationRelationId, lfirst_oid(lc));
}

/* ---------- the objects that guards consist of ---------- */

/*
 * The triggers of guarded tables are not dropped, replaced or altered without the lock,
 * unless they go on guarding the table.  Right after it was created, a trigger may be
 * visible already; then there is no older row.
 */
static void
check_trigger(const GuardState *state, ObjectAccessType access, Oid objectId)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	HeapTuple	old = row_of(rel, TriggerOidIndexId, Anum_pg_trigger_oid, objectId, NULL);
	HeapTuple	new = row_of(rel, TriggerOidIndexId, Anum_pg_trigger_oid, objectId, SnapshotSelf);
	bool		created = access == OAT_POST_CREATE && HeapTupleIsValid(old) &&
		HeapTupleIsValid(new) && ItemPointerEquals(&old->t_self, &new->t_self);
	LockName	name;
	LockName	other;

	if (HeapTupleIsValid(old) && !created &&
		lockext_trigger_guards(rel, old, state->write_fn, &name) &&
		!(access != OAT_DROP && HeapTupleIsValid(new) &&
		  lockext_trigger_guards(rel, new, state->write_fn, &other) &&
		  lockext_name_equals(&name, other.domain, other.key)))
	{
		Oid			relid = ((Form_pg_trigger) GETSTRUCT(old))->tgrelid;

		lockext_must_have(state->fn_oid, &name,
						  psprintf("change the guard of table %s", lockext_relation_display(relid)));
	}
	table_close(rel, AccessShareLock);
}

/*
 * A schema's guard goes by its name, and follows it.  No other DDL, which might have
 * looked under the old name, may be under way then.
 */
static void
follow_schema(const GuardState *state, ObjectAccessType access, Oid schema)
{
	char	   *old = get_namespace_name(schema);
	Relation	rel;
	HeapTuple	tuple;

	if (old == NULL || !lockext_schema_is_guarded(state->store, old))
		return;
	if (access == OAT_DROP)
	{
		lockext_guarded_schema_dropped(state->store, old);
		return;
	}
	rel = table_open(NamespaceRelationId, AccessShareLock);
	tuple = row_of(rel, NamespaceOidIndexId, Anum_pg_namespace_oid, schema, SnapshotSelf);
	table_close(rel, AccessShareLock);
	if (HeapTupleIsValid(tuple))
	{
		const char *new = NameStr(((Form_pg_namespace) GETSTRUCT(tuple))->nspname);

		if (strcmp(old, new) == 0)
			return;
		LockDatabaseObject(NamespaceRelationId, schema, 0, AccessExclusiveLock);
		lockext_guarded_schema_renamed(state->store, old, new);
	}
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
void
lockext_check_all_guards(GuardState *state)
{
	lockext_for_each_guarded_schema(state->store, check_guarded_schema, state);
	lockext_for_each_guarded_table(state->write_fn, check_guarded_table, state);
}

/* An event trigger without which guards are not in effect: does it no longer fire always? */
static void
check_event_trigger(GuardState *state, ObjectAccessType access, Oid objectId)
{
	Relation	rel;
	HeapTuple	tuple;
	Form_pg_event_trigger trigger;

	if (objectId != get_event_trigger_oid(LOCKEXT_START_TRIGGER, true) &&
		objectId != get_event_trigger_oid(LOCKEXT_END_TRIGGER, true))
		return;
	if (access == OAT_POST_CREATE)
		return;
	rel = table_open(EventTriggerRelationId, AccessShareLock);
	tuple = row_of(rel, EventTriggerOidIndexId, Anum_pg_event_trigger_oid, objectId, SnapshotSelf);
	table_close(rel, AccessShareLock);
	if (access == OAT_POST_ALTER && HeapTupleIsValid(tuple))
	{
		trigger = (Form_pg_event_trigger) GETSTRUCT(tuple);
		if (trigger->evtenabled == TRIGGER_FIRES_ALWAYS &&
			(strcmp(NameStr(trigger->evtname), LOCKEXT_START_TRIGGER) == 0 ||
			 strcmp(NameStr(trigger->evtname), LOCKEXT_END_TRIGGER) == 0))
			return;
	}
	lockext_check_all_guards(state);
}

/* ---------- the hook ---------- */

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

/* subId: the object's column, that is, the object itself is there already */
static const char *
verb_of(ObjectAccessType access, int subId)
{
	if (access == OAT_TRUNCATE)
		return "truncate";
	if (subId != 0)
		return "change";
	return access == OAT_POST_CREATE ? "create" : access == OAT_DROP ? "drop" : "change";
}

static void
object_accessed(GuardState *state, ObjectAccessType access, Oid classId, Oid objectId,
				int subId, void *arg)
{
	if (classId == EventTriggerRelationId)
	{
		check_event_trigger(state, access, objectId);
		return;
	}

	/* these come with the OID of a relation */
	if (classId == IndexRelationId || classId == ForeignTableRelationId ||
		classId == InheritsRelationId ||
		(classId == AttrDefaultRelationId && access == OAT_POST_CREATE))
	{
		if (classId == InheritsRelationId && access == OAT_POST_ALTER && arg != NULL)
			check_parent(state, objectId, ((ObjectAccessPostAlter *) arg)->auxiliary_id);
		classId = RelationRelationId;
	}
	if (classId == TypeRelationId && access == OAT_POST_CREATE && comes_with_another(objectId))
		return;
	lockext_check_object(state, verb_of(access, subId), classId, objectId);
	if (classId == RelationRelationId && access == OAT_DROP && subId == 0)
		check_parents(state, objectId);
	else if (classId == TriggerRelationId)
		check_trigger(state, access, objectId);
	else if (classId == NamespaceRelationId)
		follow_schema(state, access, objectId);
}

static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	GuardState	state;

	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);

	if ((access != OAT_POST_CREATE && access != OAT_DROP && access != OAT_POST_ALTER &&
		 access != OAT_TRUNCATE) ||
		(is_internal(access, arg) && classId != InheritsRelationId) ||
		IsBinaryUpgrade || IsLogicalWorker() || !IsTransactionState() ||
		!lockext_guards_in_effect(&state))
		return;
	object_accessed(&state, access, classId, objectId, subId, arg);
}

void
lockext_ddlobject_init(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
