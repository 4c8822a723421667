/*
 * guards.c
 *		Are guards in effect in this database?
 *
 * They are as long as the event trigger lockext_ddl_end is there.  It is made, with
 * another one, when the first table or schema is guarded, and so is not a part of the
 * extension: a dump restores it last, when all that is guarded has been restored; and a
 * database without guards has no event triggers.
 */
#include "postgres.h"

#include "compat.h"
#include "guards.h"
#include "guardschema.h"
#include "guardtable.h"
#include "table.h"

#include "access/htup_details.h"
#include "catalog/pg_event_trigger.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define STORE_NAME "lockext_guarded_schema"
#define WRITE_FUNCTION "lockext_guard_write"

/* What was found out about this database; again after each change of event triggers. */
static struct
{
	bool		known;
	bool		in_effect;
	GuardState	state;
}			cache;
static uint64 changes = 0;

static void
forget_state(Datum arg, int cacheid, uint32 hash)
{
	changes++;
	cache.known = false;
}

void
lockext_guards_init(void)
{
	CacheRegisterSyscacheCallback(EVENTTRIGGEROID, forget_state, (Datum) 0);
}

static Oid
function_in_schema(const char *name, Oid schema)
{
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
						   PointerGetDatum(buildoidvector(NULL, 0)),
						   ObjectIdGetDatum(schema));
}

/*
 * The parts of the extension that the function belongs to.  False if one is missing: the
 * extension is being dropped.
 */
bool
lockext_guards_find(Oid fn_oid, GuardState *state)
{
	Oid			schema = get_func_namespace(fn_oid);

	if (!OidIsValid(schema) || !OidIsValid(lockext_table_in_schema(schema, true)))
		return false;
	state->fn_oid = fn_oid;
	state->store = get_relname_relid(STORE_NAME, schema);
	state->write_fn = function_in_schema(WRITE_FUNCTION, schema);
	return OidIsValid(state->store) && OidIsValid(state->write_fn);
}

/* The event trigger's function and how it fires; InvalidOid if there is none. */
static Oid
find_event_trigger(const char *name, char *enabled)
{
	HeapTuple	tuple = SearchSysCache1(EVENTTRIGGERNAME, CStringGetDatum(name));
	Form_pg_event_trigger trigger;
	Oid			function;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	trigger = (Form_pg_event_trigger) GETSTRUCT(tuple);
	*enabled = trigger->evtenabled;
	function = trigger->evtfoid;
	ReleaseSysCache(tuple);
	return function;
}

/*
 * Is anything guarded in this database, as far as anybody has said so?
 *
 * A look that meets ALTER EXTENSION SET SCHEMA half-way does not find the parts, and the
 * next one does; where they are really gone, the extension is being dropped.
 */
bool
lockext_guards_in_effect(GuardState *state)
{
	uint64		seen = changes;
	char		enabled = TRIGGER_DISABLED;
	Oid			function;

	if (!cache.known)
	{
		function = find_event_trigger(LOCKEXT_END_TRIGGER, &enabled);
		cache.in_effect = enabled != TRIGGER_DISABLED;
		if (cache.in_effect && !lockext_guards_find(function, &cache.state) &&
			!lockext_guards_find(function, &cache.state))
			return false;
		cache.known = seen == changes;
	}
	*state = cache.state;
	return cache.in_effect;
}

/*
 * Run a command as the owner of the extension, to whom its parts belong.  It names all
 * it means in full; but other event triggers that it fires may not, and must not find
 * what the caller has put into their way.
 */
void
lockext_run_as_owner(Oid fn_oid, const char *command)
{
	Oid			role;
	int			context;
	HeapTuple	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(fn_oid));
	Oid			owner;
	int			result;
	int			nest_level;

	if (!HeapTupleIsValid(function))
		elog(ERROR, "cache lookup failed for function %u", fn_oid);
	owner = ((Form_pg_proc) GETSTRUCT(function))->proowner;
	ReleaseSysCache(function);

	/* an error puts role, context and settings back, with the (sub)transaction */
	GetUserIdAndSecContext(&role, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	result = SPI_execute(command, false, 0);
	if (result != SPI_OK_UTILITY)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
	SPI_finish();
	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(role, context);
}

/* True if the event trigger is new.  Raises 55000 if it is another's, or switched off. */
static bool
need_event_trigger(Oid fn_oid, const char *name, const char *event)
{
	Oid			schema = get_func_namespace(fn_oid);
	char		enabled = TRIGGER_DISABLED;
	Oid			function = find_event_trigger(name, &enabled);

	if (OidIsValid(function) && function != function_in_schema(name, schema))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event trigger \"%s\" does not belong to the extension \"lockext\"", name),
				 errhint("Rename or drop it.")));
	if (OidIsValid(function) && enabled != TRIGGER_FIRES_ALWAYS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event trigger \"%s\", without which guards are not in effect, is not enabled", name),
				 errhint("Use ALTER EVENT TRIGGER %s ENABLE ALWAYS.", name)));
	if (OidIsValid(function))
		return false;

	lockext_run_as_owner(fn_oid, psprintf("CREATE EVENT TRIGGER %s ON %s EXECUTE FUNCTION %s()",
										  name, event,
										  quote_qualified_identifier(get_namespace_name(schema), name)));
	lockext_run_as_owner(fn_oid, psprintf("ALTER EVENT TRIGGER %s ENABLE ALWAYS", name));
	return true;
}

/*
 * Something is about to be guarded, or not to be guarded any more, by the function
 * fn_oid: one at a time, until the end of the transaction.  Before a lock on what that
 * is.  True if guards come into effect by this.
 */
bool
lockext_guards_begin(Oid fn_oid, GuardState *state)
{
	if (!lockext_guards_find(fn_oid, state))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a part of the extension \"lockext\" does not exist"),
				 errhint("The extension was dropped or is not complete.")));
	LockRelationOid(state->store, ShareRowExclusiveLock);
	(void) need_event_trigger(fn_oid, LOCKEXT_START_TRIGGER, "ddl_command_start");
	return need_event_trigger(fn_oid, LOCKEXT_END_TRIGGER, "ddl_command_end");
}

static void
note_schema(const char *schema, const LockName *name, void *arg)
{
	*(bool *) arg = true;
}

static void
note_table(Oid relid, const LockName *name, void *arg)
{
	*(bool *) arg = true;
}

/* If nothing is guarded any more, nothing is watched either. */
void
lockext_guards_end(const GuardState *state)
{
	bool		any = false;

	lockext_for_each_guarded_table(state->write_fn, note_table, &any);
	lockext_for_each_guarded_schema(state->store, note_schema, &any);
	if (any)
		return;
	lockext_run_as_owner(state->fn_oid, "DROP EVENT TRIGGER IF EXISTS " LOCKEXT_START_TRIGGER);
	lockext_run_as_owner(state->fn_oid, "DROP EVENT TRIGGER IF EXISTS " LOCKEXT_END_TRIGGER);
}
