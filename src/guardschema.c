/*
 * guardschema.c
 *		Schemas that accept DDL from the holder of a lock only: lock_guard_schema(),
 *		lock_unguard_schema(), and the table that says which they are.
 *
 * The table has a row per guarded schema, under its name: a dump carries it, and
 * pg_upgrade takes no columns of type regnamespace.  It is read as it is at the moment
 * (SnapshotSelf), under a lock on the schema which lock_guard_schema() waits for: DDL
 * either finds the guard, or has ended when the schema begins to be guarded.  But not
 * DDL that was under way when guards came into effect in the database, with the first
 * of them: unless it creates a relation, it has no such lock.
 *
 * What DDL is, ddl.c knows.
 */
#include "postgres.h"

#include "args.h"
#include "compat.h"
#include "guard.h"
#include "guards.h"
#include "guardschema.h"
#include "rules.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(lockext_guard_schema);
PG_FUNCTION_INFO_V1(lockext_unguard_schema);

enum
{
	STORE_SCHEMA = 1,
	STORE_DOMAIN,
	STORE_KEY,
	STORE_COLUMNS = STORE_KEY
};

/* ---------- the table ---------- */

static text *
column(HeapTuple tuple, Relation rel, AttrNumber n)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, n, RelationGetDescr(rel), &isnull);

	if (isnull)
		elog(ERROR, "null in column %d of \"%s\"", n, RelationGetRelationName(rel));
	return DatumGetTextPP(value);
}

static SysScanDesc
begin_scan(Relation rel)
{
	return systable_beginscan(rel, InvalidOid, false, SnapshotSelf, 0, NULL);
}

/* The row of a schema, a copy; NULL if it is not guarded. */
static HeapTuple
find_row(Relation rel, const char *schema)
{
	SysScanDesc scan;
	HeapTuple	tuple;

	if (RelationGetNumberOfBlocks(rel) == 0)
		return NULL;
	scan = begin_scan(rel);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		text	   *t = column(tuple, rel, STORE_SCHEMA);

		if (VARSIZE_ANY_EXHDR(t) == strlen(schema) &&
			memcmp(VARDATA_ANY(t), schema, strlen(schema)) == 0)
			break;
	}
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	return tuple;
}

static void
read_name(Relation rel, HeapTuple tuple, LockName *name)
{
	lockext_name_set(name, column(tuple, rel, STORE_DOMAIN), column(tuple, rel, STORE_KEY));
}

static void
form_values(const char *schema, const LockName *name, Datum *values)
{
	values[STORE_SCHEMA - 1] = CStringGetTextDatum(schema);
	values[STORE_DOMAIN - 1] = PointerGetDatum(name->domain);
	values[STORE_KEY - 1] = PointerGetDatum(name->key);
}

/* The lock that guards the schema; false if none does. */
static bool
find_guard(Oid store, const char *schema, LockName *name)
{
	Relation	rel = table_open(store, AccessShareLock);
	HeapTuple	tuple = find_row(rel, schema);

	if (HeapTupleIsValid(tuple))
		read_name(rel, tuple, name);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

bool
lockext_schema_is_guarded(Oid store, const char *schema)
{
	LockName	name;

	return find_guard(store, schema, &name);
}

void
lockext_for_each_guarded_schema(Oid store, GuardedSchemaVisitor visit, void *arg)
{
	Relation	rel = table_open(store, AccessShareLock);
	SysScanDesc scan = begin_scan(rel);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		LockName	name;
		HeapTuple	copy = heap_copytuple(tuple);

		read_name(rel, copy, &name);
		visit(text_to_cstring(column(copy, rel, STORE_SCHEMA)), &name, arg);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Its guard follows it. */
void
lockext_guarded_schema_renamed(Oid store, const char *old, const char *new)
{
	Relation	rel = table_open(store, RowExclusiveLock);
	HeapTuple	tuple = find_row(rel, old);

	if (HeapTupleIsValid(tuple))
	{
		LockName	name;
		Datum		values[STORE_COLUMNS];
		bool		nulls[STORE_COLUMNS] = {false};
		HeapTuple	changed;

		read_name(rel, tuple, &name);
		form_values(new, &name, values);
		changed = heap_form_tuple(RelationGetDescr(rel), values, nulls);
		CatalogTupleUpdate(rel, &tuple->t_self, changed);
	}
	table_close(rel, NoLock);
}

/* And ends with it. */
void
lockext_guarded_schema_dropped(Oid store, const char *schema)
{
	Relation	rel = table_open(store, RowExclusiveLock);
	HeapTuple	tuple = find_row(rel, schema);

	if (HeapTupleIsValid(tuple))
		CatalogTupleDelete(rel, &tuple->t_self);
	table_close(rel, NoLock);
}

/* ---------- what DDL asks ---------- */

/* Like: drop table t in schema s.  A new object cannot be described yet. */
static char *
describe_deed(const Deed *deed, const char *schema)
{
	ObjectAddress object = {deed->classId, deed->objectId, 0};
	const char *what = deed->object;

	if (deed->classId == NamespaceRelationId)
		return psprintf("%s schema %s", deed->verb, quote_identifier(schema));
	if (what == NULL)
		what = getObjectDescription(&object, true);
	return psprintf("%s %s in schema %s", deed->verb, what == NULL ? "an object" : what,
					quote_identifier(schema));
}

/*
 * Raises LK002 if the schema is guarded and this transaction does not have the lock;
 * else the lock is pinned, on request for the whole command.
 */
void
lockext_check_schema_named(const GuardState *state, const char *schema,
						   const Deed *deed, bool pin_for_command)
{
	LockName	name;
	const char *why;

	if (!find_guard(state->store, schema, &name))
		return;
	if (!lockext_transaction_has(state->fn_oid, &name, &why))
		lockext_refuse_unless_bypassed(&name, why, describe_deed(deed, schema));
	else if (pin_for_command)
		lockext_pin_for_command(&name);
}

/* The same of a schema that exists: the lock on it is first. */
void
lockext_check_schema(const GuardState *state, Oid schema, const Deed *deed,
					 bool pin_for_command)
{
	char	   *name;

	if (!OidIsValid(schema) || IsCatalogNamespace(schema) || IsToastNamespace(schema) ||
		isAnyTempNamespace(schema))
		return;
	LockDatabaseObject(NamespaceRelationId, schema, 0, AccessShareLock);
	name = get_namespace_name(schema);
	if (name != NULL)
		lockext_check_schema_named(state, name, deed, pin_for_command);
}

/* ---------- the functions ---------- */

/* Its name.  Raises an error unless it is a schema that the caller may guard. */
static char *
must_be_own_schema(Oid schema)
{
	char	   *name = get_namespace_name(schema);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema with OID %u does not exist", schema)));
	if (!compat_owns_schema(schema, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_SCHEMA, name);
	if (IsCatalogNamespace(schema) || IsToastNamespace(schema) || isAnyTempNamespace(schema))
		lockext_bad_value("argument \"schema\"", quote_identifier(name),
						  "System and temporary schemas cannot be guarded.", NULL);
	return name;
}

/* The schema in argument 0, which the caller owns: known before a lock is asked for. */
static Oid
arg_schema(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		lockext_bad_value("argument \"schema\"", NULL, NULL, NULL);
	(void) must_be_own_schema(PG_GETARG_OID(0));
	return PG_GETARG_OID(0);
}

/* After lockext_guards_begin(). */
static char *
lock_own_schema(Oid schema, LOCKMODE mode)
{
	LockDatabaseObject(NamespaceRelationId, schema, 0, mode);
	return must_be_own_schema(schema);
}

/*
 * lock_guard_schema(schema, key, domain)
 *
 * Waits, bounded by lock_timeout, for transactions that have created something in the
 * schema, which then began before it was guarded.
 */
Datum
lockext_guard_schema(PG_FUNCTION_ARGS)
{
	GuardState	state;
	LockName	name;
	Oid			oid;
	char	   *schema;
	Relation	rel;
	HeapTuple	old;
	Datum		values[STORE_COLUMNS];
	bool		nulls[STORE_COLUMNS] = {false};

	lockext_arg_name(fcinfo, 1, 2, LOCKEXT_NO_ARG, &name);
	lockext_must_be_able_to_write("lock_guard_schema()");
	oid = arg_schema(fcinfo);
	(void) lockext_guards_begin(fcinfo->flinfo->fn_oid, &state);
	schema = lock_own_schema(oid, AccessExclusiveLock);

	rel = table_open(state.store, RowExclusiveLock);
	old = find_row(rel, schema);
	if (HeapTupleIsValid(old))
	{
		LockName	other;

		read_name(rel, old, &other);
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("schema \"%s\" is guarded already, by %s",
						schema, lockext_name_display(&other)),
				 errhint("End that guard first, with lock_unguard_schema().")));
	}
	form_values(schema, &name, values);
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values, nulls));
	table_close(rel, NoLock);
	CommandCounterIncrement();
	PG_RETURN_VOID();
}

/* lock_unguard_schema(schema): for who has the lock */
Datum
lockext_unguard_schema(PG_FUNCTION_ARGS)
{
	const Deed	deed = {"end the guard of", NULL, NamespaceRelationId};
	GuardState	state;
	Oid			oid;
	char	   *schema;

	lockext_must_be_able_to_write("lock_unguard_schema()");
	oid = arg_schema(fcinfo);
	(void) lockext_guards_begin(fcinfo->flinfo->fn_oid, &state);
	schema = lock_own_schema(oid, AccessShareLock);
	if (!lockext_schema_is_guarded(state.store, schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("schema \"%s\" is not guarded", schema)));

	lockext_check_schema_named(&state, schema, &deed, false);
	lockext_guarded_schema_dropped(state.store, schema);
	CommandCounterIncrement();
	lockext_guards_end(&state);
	PG_RETURN_VOID();
}
