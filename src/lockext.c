/*
 * lockext.c
 *		Named, durable locks: what happens when the library is loaded, and the
 *		parts of the extension that guard its own table.
 */
#include "postgres.h"

#include "chains.h"
#include "compat.h"
#include "ddl.h"
#include "ddlobject.h"
#include "guard.h"
#include "guards.h"
#include "own.h"
#include "refused.h"
#include "settings.h"
#include "shared.h"
#include "table.h"
#include "wait.h"
#include "waiters.h"
#include "worker.h"
#include "xact.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"

LOCKEXT_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

PG_FUNCTION_INFO_V1(lockext_refuse_write);
PG_FUNCTION_INFO_V1(lockext_ignore_replicated);
PG_FUNCTION_INFO_V1(lockext_note_preload);

static void say_not_preloaded(XactEvent event, void *arg);

/* CREATE EXTENSION, in this transaction, is to say that the library is not preloaded. */
static bool note_due = false;

void
_PG_init(void)
{
	RegisterXactCallback(say_not_preloaded, NULL);
	lockext_settings_init();
	lockext_chains_init();
	lockext_table_init();
	lockext_xact_init();
	lockext_own_init();
	lockext_refused_init();
	lockext_waiters_init();
	lockext_wait_init();
	lockext_guard_init();
	lockext_guards_init();
	lockext_ddlobject_init();
	lockext_ddl_init();
	if (process_shared_preload_libraries_in_progress)
	{
		lockext_shared_init();
		lockext_launcher_register();
	}
}

/*
 * Trigger of the lock table.  Its rows are changed by lockext's functions,
 * which fire no triggers, and by nobody else.  Rows that arrive by logical
 * replication are another server's locks: they are dropped, so that a
 * publication FOR ALL TABLES works.
 */
Datum
lockext_refuse_write(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" can only be called as a trigger", "lockext_refuse_write")));

	if (IsLogicalWorker() && TRIGGER_FIRED_FOR_ROW(((TriggerData *) fcinfo->context)->tg_event))
		return PointerGetDatum(NULL);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the lock table can be changed by lockext's functions only"),
			 errhint("Use lock_break() to end somebody else's lock.")));
	return PointerGetDatum(NULL);
}

/*
 * Trigger of the table of guarded schemas: another server's guards, that arrive by
 * logical replication, are dropped.
 */
Datum
lockext_ignore_replicated(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" can only be called as a row trigger", "lockext_ignore_replicated")));
	if (IsLogicalWorker())
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event)
						   ? data->tg_newtuple : data->tg_trigtuple);
}

/*
 * Called once, by CREATE EXTENSION, which lets no notice of its script through:
 * it is given when the transaction commits.
 */
Datum
lockext_note_preload(PG_FUNCTION_ARGS)
{
	note_due = !lockext_shared_ready();
	PG_RETURN_VOID();
}

static void
say_not_preloaded(XactEvent event, void *arg)
{
	bool		due = note_due;

	note_due = false;
	if (due && (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE))
		ereport(NOTICE,
				(errmsg("lockext is not in shared_preload_libraries"),
				 errdetail("Locks work and expire all the same, but rows of ended locks are not removed from the lock table, the first who waits for a lease looks every 50 ms, lockext_waiters is empty, and tokens of different keys may be equal.")));
}
