/*
 * guardview.c
 *		lockext_guards(): what is guarded, by which lock, and who holds it.
 */
#include "postgres.h"

#include "guards.h"
#include "guardschema.h"
#include "guardtable.h"
#include "inspect.h"
#include "result.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(lockext_guards);

enum
{
	GUARDS_KIND,
	GUARDS_SCHEMA,
	GUARDS_RELATION,
	GUARDS_KEY,
	GUARDS_DOMAIN,
	GUARDS_LOCK,				/* from here on, columns of lock_info */
};

static const int lock_columns[] = {
	LOCKEXT_INFO_HELD, LOCKEXT_INFO_OWNER, LOCKEXT_INFO_SCOPE, LOCKEXT_INFO_CALLING_FN,
	LOCKEXT_INFO_ACQUIRED_AT, LOCKEXT_INFO_EXPIRES_AT, LOCKEXT_INFO_PID,
	LOCKEXT_INFO_APPLICATION_NAME
};

#define GUARDS_COLUMNS (GUARDS_LOCK + lengthof(lock_columns))

/* The state of the lock, into the columns from GUARDS_LOCK on.  row: NULL if it is free. */
static void
fill_lock(const LockName *name, const LockRow *row, Datum *values, bool *nulls)
{
	Datum		info[LOCKEXT_INFO_COLUMNS];
	bool		info_nulls[LOCKEXT_INFO_COLUMNS];

	lockext_fill_info(name, row, info, info_nulls);
	for (int i = 0; i < lengthof(lock_columns); i++)
	{
		values[GUARDS_LOCK + i] = info[lock_columns[i]];
		nulls[GUARDS_LOCK + i] = info_nulls[lock_columns[i]];
	}
}

static void
put_guard(FunctionCallInfo fcinfo, const char *kind, const char *schema,
		  const char *relation, const LockName *name)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[GUARDS_COLUMNS];
	bool		nulls[GUARDS_COLUMNS] = {false};
	LockTable	table;
	LockRow		row;
	bool		held;

	values[GUARDS_KIND] = CStringGetTextDatum(kind);
	values[GUARDS_SCHEMA] = CStringGetTextDatum(schema);
	nulls[GUARDS_RELATION] = relation == NULL;
	if (relation != NULL)
		values[GUARDS_RELATION] = CStringGetTextDatum(relation);
	values[GUARDS_KEY] = PointerGetDatum(name->key);
	values[GUARDS_DOMAIN] = PointerGetDatum(name->domain);

	/* the row is the table's, until that is closed */
	held = lockext_find_held(fcinfo->flinfo->fn_oid, name, &table, &row);
	fill_lock(name, held ? &row : NULL, values, nulls);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	lockext_table_close(&table, false);
}

static void
put_schema(const char *schema, const LockName *name, void *arg)
{
	put_guard(arg, "schema", schema, NULL, name);
}

static void
put_table(Oid relid, const LockName *name, void *arg)
{
	char	   *relation = get_rel_name(relid);
	char	   *schema = get_namespace_name(get_rel_namespace(relid));

	/* else it was dropped a moment ago */
	if (relation != NULL && schema != NULL)
		put_guard(arg, "table", schema, relation, name);
}

Datum
lockext_guards(PG_FUNCTION_ARGS)
{
	GuardState	state;

	InitMaterializedSRF(fcinfo, 0);
	if (lockext_guards_in_effect(&state))
	{
		lockext_for_each_guarded_schema(state.store, put_schema, fcinfo);
		lockext_for_each_guarded_table(state.write_fn, put_table, fcinfo);
	}
	return (Datum) 0;
}
