/*
 * own.c
 *		The locks of this session that end with it or with its transaction.
 *
 * Scope "transaction" has no row: the lock is KEY, kept to the end of the
 * transaction, and an entry in a list of this process.  Its release only marks
 * the entry.
 *
 * Scope "session" has a row like a lease's, and LIVE, a session-level lock, to
 * go with it.  PostgreSQL drops LIVE when the session ends, however it ends;
 * within the session, resource owners know nothing of it, so that it is this
 * file's business to drop it
 *	- when the transaction, or savepoint, that took the lock is rolled back,
 *	- when the transaction that released the lock has committed, after its other
 *	  locks are free, so that a waiter that this wakes finds KEY free too,
 *	- when the lock has ended some other way (it expired, another session released
 *	  or broke it): noticed by lockext_live_sweep().
 * pg_advisory_unlock_all() and DISCARD ALL drop LIVE as well.  That ends the
 * lock as the end of the session would.
 *
 * Entries of both kinds know the nesting level of the (sub)transaction that took
 * the lock, and of the one that released it.
 */
#include "postgres.h"

#include "compat.h"
#include "keylock.h"
#include "own.h"
#include "shared.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/* How many locks of earlier transactions a new one has looked at. */
#define SWEEP_AT_ONCE 2

/* Level of an entry that is not released; greater than any nesting level. */
#define NOT_RELEASED PG_INT32_MAX

typedef struct Span
{
	dlist_node	node;
	int			taken;			/* by this nesting level; 0: committed */
	int			released;		/* by this one, or NOT_RELEASED */
} Span;

typedef struct Hold
{
	Span		span;
	LockName	name;
	LockRow		row;
} Hold;

typedef struct Live
{
	Span		span;
	LockName	name;
	int64		token;
	bool		row_left;		/* released, but its row left as it was */
	LOCKTAG		tag;
} Live;

/* In TopTransactionContext: gone with the transaction. */
static dlist_head holds = DLIST_STATIC_INIT(holds);

/* In live_context; newest first. */
static dlist_head lives = DLIST_STATIC_INIT(lives);
static MemoryContext live_context = NULL;

/* KEY's tag of the last lease that this session took. */
static LOCKTAG last_lease;

/* Is there an entry in lives with something to do at the end of the transaction? */
static bool lives_changed = false;

static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId mine,
						   SubTransactionId parent, void *arg);
static void after_locks(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
						void *arg);
static void at_exit(int code, Datum arg);

void
lockext_own_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
	RegisterResourceReleaseCallback(after_locks, NULL);
}

static void
span_begin(Span *span, dlist_head *list)
{
	span->taken = GetCurrentTransactionNestLevel();
	span->released = NOT_RELEASED;
	dlist_push_head(list, &span->node);
}

/* ---------- scope "transaction" ---------- */

static Hold *
find_hold(const LockName *name)
{
	dlist_iter	iter;

	dlist_foreach(iter, &holds)
	{
		Hold	   *hold = dlist_container(Hold, span.node, iter.cur);

		if (hold->span.released == NOT_RELEASED &&
			lockext_name_equals(name, hold->name.domain, hold->name.key))
			return hold;
	}
	return NULL;
}

/*
 * The current transaction holds the lock from now on; the caller has taken KEY
 * for that.
 */
void
lockext_hold(const LockName *name, const LockRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Hold	   *hold = palloc(sizeof(Hold));

	lockext_name_copy(&hold->name, name);
	hold->row = *row;
	hold->row.domain = hold->name.domain;
	hold->row.key = hold->name.key;
	hold->row.calling_fn = DatumGetTextPCopy(PointerGetDatum(row->calling_fn));
	hold->row.application_name = DatumGetTextPCopy(PointerGetDatum(row->application_name));
	if (row->data != NULL)
		hold->row.data = DatumGetJsonbPCopy(JsonbPGetDatum(row->data));
	MemoryContextSwitchTo(old);

	span_begin(&hold->span, &holds);
}

/* The lock, as if it had a row, if this transaction holds it with that scope; else NULL. */
const LockRow *
lockext_held_by_transaction(const LockName *name)
{
	Hold	   *hold = dlist_is_empty(&holds) ? NULL : find_hold(name);

	return hold == NULL ? NULL : &hold->row;
}

/* Call visit for each lock that this transaction holds with that scope. */
void
lockext_for_each_hold(void (*visit) (const LockRow *row, void *arg), void *arg)
{
	dlist_iter	iter;

	dlist_foreach(iter, &holds)
	{
		Hold	   *hold = dlist_container(Hold, span.node, iter.cur);

		if (hold->span.released == NOT_RELEASED)
			visit(&hold->row, arg);
	}
}

/* Released; undone by a rollback to a savepoint before.  It must be held. */
void
lockext_hold_released(const LockName *name)
{
	find_hold(name)->span.released = GetCurrentTransactionNestLevel();
}

/* ---------- scope "session" ---------- */

static bool
live_is_held(const Live *live)
{
	return compat_lock_held_by_me(&live->tag, ExclusiveLock);
}

/* Drop LIVE, if pg_advisory_unlock_all() has not done so, and forget it.  Does not raise. */
static void
drop_live(Live *live)
{
	if (live_is_held(live))
		LockRelease(&live->tag, ExclusiveLock, true);
	dlist_delete(&live->span.node);
	pfree(live->name.domain);
	pfree(live->name.key);
	pfree(live);
}

static Live *
find_live(const LockName *name, int64 token)
{
	dlist_iter	iter;

	dlist_foreach(iter, &lives)
	{
		Live	   *live = dlist_container(Live, span.node, iter.cur);

		if (live->token == token &&
			lockext_name_equals(name, live->name.domain, live->name.key))
			return live;
	}
	return NULL;
}

/* First use in this process. */
static void
begin_live(void)
{
	live_context = AllocSetContextCreate(TopMemoryContext, "lockext session locks",
										 ALLOCSET_DEFAULT_SIZES);
	on_shmem_exit(at_exit, (Datum) 0);
}

/*
 * Take LIVE for a new acquisition with this token, or with a greater one, which
 * is returned.
 */
int64
lockext_live_take(const LockName *name, int64 token)
{
	Live	   *live;
	MemoryContext old;

	if (live_context == NULL)
		begin_live();
	old = MemoryContextSwitchTo(live_context);
	live = palloc0(sizeof(Live));
	lockext_name_copy(&live->name, name);
	MemoryContextSwitchTo(old);
	span_begin(&live->span, &lives);
	lives_changed = true;

	/*
	 * It is in the list first, so that an error leaves nothing behind.  Another
	 * token is tried in the case, once in 2^64, that its hash is in use.
	 */
	for (;; token++)
	{
		live->token = token;
		lockext_live_tag(&live->tag, name, token);
		if (LockAcquire(&live->tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL)
			return token;
	}
}

/* The acquisition came to nothing, in the transaction that tried it. */
void
lockext_live_give_back(const LockName *name, int64 token)
{
	drop_live(find_live(name, token));
}

/* Does this session seem to hold the lock with scope "session"? */
static bool
seems_mine(const LockName *name)
{
	dlist_iter	iter;

	dlist_foreach(iter, &lives)
	{
		Live	   *live = dlist_container(Live, span.node, iter.cur);

		if (live->span.released == NOT_RELEASED &&
			lockext_name_equals(name, live->name.domain, live->name.key))
			return true;
	}
	return false;
}

/* This session took a lease. */
void
lockext_lease_taken(const LockName *name)
{
	last_lease = name->tag;
}

/*
 * Does this session claim the lock, by its token or because it took it?  Then a look
 * under KEY, if that is free and can be kept, is enough.  Only a guess: leases go by
 * role and token, not by session.  Who is wrong has KEY for a moment, which others
 * outwait; without shared memory they would not know, so there one looks first.
 */
bool
lockext_is_claimed(const LockName *name, int64 token)
{
	if (!lockext_key_fits(name))
		return false;
	return seems_mine(name) ||
		(lockext_shared_ready() &&
		 (token != -1 || memcmp(&name->tag, &last_lease, sizeof(LOCKTAG)) == 0));
}

/*
 * The lock was released by the current (sub)transaction, which has written so into
 * its row or left that as it was.  If it is the one which took the lock, nobody else
 * has ever seen it, so LIVE goes at once.
 */
void
lockext_live_released(const LockName *name, int64 token, bool row_left)
{
	Live	   *live = find_live(name, token);

	if (live == NULL)
		return;					/* it is another session's */
	live->row_left = row_left;
	live->span.released = GetCurrentTransactionNestLevel();
	lives_changed = true;
	if (live->span.released == live->span.taken)
		drop_live(live);
}

/*
 * Can the lock be released by dropping LIVE alone, its row left as it is?  If this
 * session has LIVE, took the lock in an earlier transaction, and the current one
 * cannot be prepared: it is a single statement.
 */
bool
lockext_live_can_leave_row(const LockName *name, int64 token)
{
	Live	   *live = IsTransactionBlock() ? NULL : find_live(name, token);

	return live != NULL && live->span.taken == 0 && live_is_held(live);
}

/*
 * Has the lock ended otherwise than by our release?  As far as this transaction
 * can see, and not while another is at it or it is pinned: it may be renewed.  The clock
 * is read first: whoever comes to renew it after we saw KEY free finds the lock
 * expired too, if we do.
 */
static bool
live_is_over(LockTable *table, const Live *live)
{
	TimestampTz now = GetCurrentTimestamp();
	LockRow		row;
	bool		found;

	if (lockext_is_locked(&live->name.tag, LOCKEXT_KEY_CHANGE) ||
		lockext_key_is_guarded(&live->name) ||
		!lockext_row_find(table, &live->name, &row, &found))
		return false;
	return !found ||
		row.damage != NULL ||
		row.token != live->token ||
		!lockext_row_live(&row, now);
}

static void
report_unlocked(void)
{
	static bool reported = false;

	if (reported)
		return;
	reported = true;
	ereport(LOG,
			(errmsg("session-scoped locks of this session were ended by pg_advisory_unlock_all() or DISCARD ALL")));
}

/*
 * Drop LIVE of locks that have ended; but only when this transaction commits,
 * since what it sees may be undone.  A few at a time, the oldest first; those that
 * are looked at become the newest.  Called for each new session-scoped lock, so
 * that a session has at most about twice as many LIVE locks as it has locks.
 */
void
lockext_live_sweep(LockTable *table)
{
	LockTable	other = *table;

	if (dlist_is_empty(&lives))
		return;

	/* a slot of its own: the table's may hold the row to be changed */
	other.slot = table_slot_create(table->rel, NULL);
	for (int i = 0; i < SWEEP_AT_ONCE; i++)
	{
		Live	   *live = dlist_container(Live, span.node, dlist_tail_node(&lives));

		dlist_delete(&live->span.node);
		dlist_push_head(&lives, &live->span.node);
		if (live->span.taken > 0 || live->span.released != NOT_RELEASED)
			continue;			/* the end of the transaction sees to it */
		if (!live_is_held(live))
			report_unlocked();
		else if (!live_is_over(&other, live))
			continue;
		live->span.released = GetCurrentTransactionNestLevel();
		live->row_left = false;
		lives_changed = true;
	}
	ExecDropSingleTupleTableSlot(other.slot);
}

/* Has this transaction released the lock, which was this session's? */
bool
lockext_live_is_released(const LockName *name, int64 token)
{
	Live	   *live = find_live(name, token);

	return live != NULL && live->span.released != NOT_RELEASED;
}

/*
 * Is the session of a session-scoped lock still there?  A standby can't tell,
 * since LIVE is on the primary: there it counts as there.
 */
static bool
session_is_alive(const LockRow *row)
{
	LockName	name;
	LOCKTAG		tag;

	lockext_name_set(&name, row->domain, row->key);
	lockext_live_tag(&tag, &name, row->token);
	if (RecoveryInProgress())
		return true;
	if (compat_lock_held_by_me(&tag, ExclusiveLock))
		return !lockext_live_is_released(&name, row->token);

	/* Share, so that two who ask at once do not take each other for the holder */
	if (!lockext_lock(&tag, ShareLock, false))
		return true;
	lockext_unlock(&tag, ShareLock);
	return false;
}

/* Has the lock not ended with its session, if that is its scope? */
bool
lockext_session_holds(const LockRow *row)
{
	return row->scope != LOCKEXT_SCOPE_SESSION || session_is_alive(row);
}

/* Is somebody holding the lock at this moment, by its row and, if need be, LIVE? */
bool
lockext_row_holds(const LockRow *row, TimestampTz now)
{
	return lockext_row_live(row, now) && lockext_session_holds(row);
}

/* Was the lock taken by this very session?  Of the row, the name is not needed. */
bool
lockext_row_is_mine(const LockName *name, const LockRow *row)
{
	LOCKTAG		tag;

	if (row->scope != LOCKEXT_SCOPE_SESSION)
		return row->pid == MyProcPid && row->acquired_at >= MyStartTimestamp;
	lockext_live_tag(&tag, name, row->token);
	return compat_lock_held_by_me(&tag, ExclusiveLock);
}

/* ---------- the end of transactions ---------- */

/* The subtransaction has become part of its parent. */
static void
merge_level(dlist_head *list, int level)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
	{
		Span	   *span = dlist_container(Span, node, iter.cur);

		if (span->taken == level)
			span->taken--;
		if (span->released == level)
			span->released--;
	}
}

/* A subtransaction is undone; true if it had taken the lock. */
static bool
undo_level(Span *span, int level)
{
	if (span->released >= level)
		span->released = NOT_RELEASED;
	return span->taken >= level;
}

static void
undo_holds(int level)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &holds)
		if (undo_level(dlist_container(Span, node, iter.cur), level))
			dlist_delete(iter.cur);
}

static void
undo_lives(int level)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &lives)
		if (undo_level(dlist_container(Span, node, iter.cur), level))
			drop_live(dlist_container(Live, span.node, iter.cur));
}

/* What was taken and released in one (sub)transaction was never seen by others. */
static void
drop_invisible_lives(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &lives)
	{
		Span	   *span = dlist_container(Span, node, iter.cur);

		if (span->taken > 0 && span->released == span->taken)
			drop_live(dlist_container(Live, span.node, iter.cur));
	}
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mine,
			   SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (dlist_is_empty(&holds) && !lives_changed)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		merge_level(&holds, level);
		merge_level(&lives, level);
		drop_invisible_lives();
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		undo_holds(level);
		undo_lives(level);
	}
}

/*
 * A prepared transaction may be committed when this session is long gone, and
 * LIVE with it.
 */
static void
refuse_to_prepare(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &lives)
	{
		Live	   *live = dlist_container(Live, span.node, iter.cur);

		if (live->span.taken > 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has taken a session-scoped lock"),
					 errdetail("It would outlive its session: %s.",
							   lockext_name_display(&live->name))));

		/* a pipeline may turn into a transaction block what was none */
		if (live->row_left && live->span.released != NOT_RELEASED)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has released a session-scoped lock before it was a transaction block"),
					 errdetail("The lock would not end: %s.",
							   lockext_name_display(&live->name))));
	}
}

/* The releases of a prepared transaction: whether they took place, the sweep will see. */
static void
forget_releases(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &lives)
		dlist_container(Span, node, iter.cur)->released = NOT_RELEASED;
}

static void
at_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (lives_changed)
				refuse_to_prepare();
			break;

		case XACT_EVENT_PREPARE:
			if (lives_changed)
				forget_releases();
			lives_changed = false;
			dlist_init(&holds);
			break;

		case XACT_EVENT_ABORT:
			if (lives_changed)
				undo_lives(1);
			lives_changed = false;
			dlist_init(&holds);
			break;

		case XACT_EVENT_COMMIT:
			dlist_init(&holds);
			break;

		default:
			break;
	}
}

/* Committed, and KEY and the table are free: now LIVE of what was released. */
static void
after_locks(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	dlist_mutable_iter iter;

	if (!lives_changed || phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel)
		return;
	lives_changed = false;
	dlist_foreach_modify(iter, &lives)
	{
		Live	   *live = dlist_container(Live, span.node, iter.cur);

		live->span.taken = 0;
		if (live->span.released != NOT_RELEASED)
			drop_live(live);
	}
}

/*
 * The session ends, and its locks with it: their rows may go.  By now LIVE is
 * free.
 */
static void
at_exit(int code, Datum arg)
{
	if (!dlist_is_empty(&lives))
		lockext_due_lower(MyDatabaseId, GetCurrentTimestamp());
}
