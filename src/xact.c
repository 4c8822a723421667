/*
 * xact.c
 *		What lockext remembers about the current transaction: how many KEY locks
 *		it keeps, by subtransaction, and when the worker is to be told of a lock
 *		that becomes idle.
 *
 * The callbacks are cheap, and nothing in them can raise after commit.
 */
#include "postgres.h"

#include "keylock.h"
#include "xact.h"
#include "shared.h"
#include "waiters.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* keys[n]: KEY locks taken at nesting level n that are still held */
static int *keys = NULL;
static int	keys_size = 0;
static int	keys_total = 0;

/* Has this transaction changed rows?  The earliest idle time that brings about. */
static bool changed = false;
static TimestampTz due = DT_NOEND;

/* It took or renewed a lease: see lockext_xact_durable(). */
static bool durable = false;

/*
 * Where the WAL of this transaction ended when we last wrote to it, if none of it
 * need be flushed: see lockext_xact_wal_begin(); else has_other_wal.
 */
static XLogRecPtr minor_wal_end = InvalidXLogRecPtr;
static bool has_other_wal = false;

/* synchronous_commit was changed for the current commit. */
static bool flush_skipped = false;
static int	users_synchronous_commit;

static ProcessUtility_hook_type prev_process_utility = NULL;

static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId mine,
						   SubTransactionId parent, void *arg);
static void process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
							ProcessUtilityContext context, ParamListInfo params,
							QueryEnvironment *env, DestReceiver *dest,
							QueryCompletion *qc);

void
lockext_xact_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);

	/* without shared memory there is no worker to tell */
	if (process_shared_preload_libraries_in_progress)
	{
		prev_process_utility = ProcessUtility_hook;
		ProcessUtility_hook = process_utility;
	}
}

/* How many KEY locks this transaction keeps. */
int
lockext_xact_keys(void)
{
	return keys_total;
}

void
lockext_xact_key_taken(void)
{
	int			level = GetCurrentTransactionNestLevel();

	if (level >= keys_size)
	{
		int			size = Max(level + 1, 8);

		size = Max(size, 2 * keys_size);
		if (keys == NULL)
			keys = MemoryContextAllocZero(TopMemoryContext, size * sizeof(int));
		else
		{
			keys = repalloc(keys, size * sizeof(int));
			memset(keys + keys_size, 0, (size - keys_size) * sizeof(int));
		}
		keys_size = size;
	}
	keys[level]++;
	keys_total++;
}

/* At the nesting level at which it was taken. */
void
lockext_xact_key_given_back(void)
{
	keys[GetCurrentTransactionNestLevel()]--;
	keys_total--;
}

/*
 * What this transaction did must not be forgotten in a crash, once it is
 * committed, whatever synchronous_commit says; and where there are synchronous
 * standbys, not by the promotion of one either.
 */
void
lockext_xact_durable(void)
{
	ForceSyncCommit();
	durable = true;
}

/*
 * The second half of that promise, at the last moment, when nothing can set
 * synchronous_commit any more.
 */
static void
wait_for_standbys(void)
{
	if (SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0' &&
		synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_WRITE)
		(void) set_config_option("synchronous_commit", "on",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * lockext begins to look at its table or to write to it; and the WAL since then
 * need not be flushed by the commit: it is of a session-scoped lock, which a crash
 * ends anyway, of the release of a lock that has a timeout, or of pages tidied up while
 * looking.  Where there is no other WAL a transaction commits asynchronously.
 */
void
lockext_xact_wal_begin(void)
{
	if (XactLastRecEnd != minor_wal_end)
		has_other_wal = true;
}

void
lockext_xact_wal_is_minor(void)
{
	minor_wal_end = XactLastRecEnd;
}

/*
 * At the last moment: only deferred work of other extensions could still write.
 * The variable is put back in at_xact_end(), which is cheaper than to have it
 * done by PostgreSQL.
 */
static void
skip_flush_of_minor_wal(void)
{
	if (minor_wal_end == InvalidXLogRecPtr || minor_wal_end != XactLastRecEnd ||
		has_other_wal || synchronous_commit <= SYNCHRONOUS_COMMIT_OFF)
		return;
	users_synchronous_commit = synchronous_commit;
	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
	flush_skipped = true;
}

static void
restore_synchronous_commit(void)
{
	if (flush_skipped)
		synchronous_commit = users_synchronous_commit;
	flush_skipped = false;
}

/*
 * The current transaction has changed a row; once that is committed, its lock
 * is idle from this moment on (DT_NOEND: no end in sight).
 */
void
lockext_xact_due(TimestampTz idle_since)
{
	changed = true;
	due = Min(due, idle_since);
}

static void
forget_all(void)
{
	lockext_key_decided();
	if (keys_total > 0)
		memset(keys, 0, keys_size * sizeof(int));
	keys_total = 0;
	changed = false;
	due = DT_NOEND;
	durable = false;
	minor_wal_end = InvalidXLogRecPtr;
	has_other_wal = false;
}

static void
at_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (durable)
				wait_for_standbys();
			else if (event == XACT_EVENT_PRE_COMMIT)
				skip_flush_of_minor_wal();
			break;

		case XACT_EVENT_COMMIT:
			restore_synchronous_commit();
			if (due != DT_NOEND)
				lockext_due_lower(MyDatabaseId, due);
			forget_all();
			break;

		case XACT_EVENT_ABORT:
			restore_synchronous_commit();

			/*
			 * The worker may have passed over a row because this transaction
			 * was changing it; that row is as due as ever.
			 */
			if (changed)
				lockext_due_lower(MyDatabaseId, GetCurrentTimestamp());
			forget_all();
			break;

		case XACT_EVENT_PREPARE:
			/* process_utility() speaks up when the outcome is known */
			forget_all();
			break;

		default:
			break;
	}
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mine,
			   SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		lockext_key_decided();
	if (level >= keys_size || keys[level] == 0)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		keys[level - 1] += keys[level];
		keys[level] = 0;
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		keys_total -= keys[level];
		keys[level] = 0;
	}
}

/*
 * No transaction callback runs in the session that ends a prepared
 * transaction, so COMMIT PREPARED and ROLLBACK PREPARED are watched for.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	bool		ends_prepared = false;

	if (IsA(pstmt->utilityStmt, TransactionStmt))
	{
		TransactionStmtKind kind = ((TransactionStmt *) pstmt->utilityStmt)->kind;

		ends_prepared = kind == TRANS_STMT_COMMIT_PREPARED ||
			kind == TRANS_STMT_ROLLBACK_PREPARED;
	}

	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);

	if (ends_prepared)
	{
		lockext_announce_all();
		lockext_due_lower(MyDatabaseId, GetCurrentTimestamp());
	}
}
