/*
 * release.c
 *		Keeping and ending a lock: lock_release(), lock_renew(), lock_break().
 *
 * Release and renew of a lock that the session claims, by its token or because it
 * took it, look under KEY at once, if that is free.  Others look first without KEY: who
 * does not hold the lock learns so and disturbs nobody.  The holder then waits for KEY,
 * if it has to: for another transaction of the same owner that works on the lock, or a
 * break.  Such a wait is an ordinary lock wait (lock_timeout, deadlock detection).  It
 * is begun without a lock on the table, unless the transaction has changed another lock
 * before.
 */
#include "postgres.h"

#include "args.h"
#include "caller.h"
#include "keylock.h"
#include "own.h"
#include "release.h"
#include "result.h"
#include "store.h"
#include "token.h"
#include "waiters.h"
#include "xact.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(lockext_release);
PG_FUNCTION_INFO_V1(lockext_renew);
PG_FUNCTION_INFO_V1(lockext_break);

/* Who counts as the holder: lockext_is_ours() or lockext_is_ours_or_pinned(). */
typedef bool (*IsOurs) (const LockName *name, const LockRow *row, int64 token);

/*
 * Was the lock taken by the caller: with the privileges of its owner and, if a token is
 * given, by exactly that acquisition?
 */
static bool
is_of_us(const LockRow *row, int64 token)
{
	return has_privs_of_role(GetUserId(), row->owner) &&
		(token == -1 || token == row->token);
}

/* And is it live? */
bool
lockext_is_ours(const LockName *name, const LockRow *row, int64 token)
{
	return is_of_us(row, token) && lockext_row_holds(row, GetCurrentTimestamp());
}

/*
 * The same for what keeps the lock, where a pin counts too: as long as this
 * transaction has guarded the acquisition, nobody else can have taken the lock, even
 * if it has expired meanwhile.
 */
bool
lockext_is_ours_or_pinned(const LockName *name, const LockRow *row, int64 token)
{
	return lockext_is_ours(name, row, token) ||
		(is_of_us(row, token) && lockext_key_is_guarded(name) &&
		 row->dboid == MyDatabaseId && row->released_at == DT_NOEND &&
		 lockext_session_holds(row));
}

/*
 * Look without KEY: does it seem to be ours?  If not, and outcome is given, it
 * tells who holds the lock.
 */
static bool
seems_ours(Oid fn_oid, const LockName *name, int64 token, IsOurs is_ours, Outcome *outcome)
{
	LockTable	table;
	LockRow		row;
	bool		found;
	bool		ours = false;

	(void) lockext_table_open(&table, fn_oid, AccessShareLock, true);
	(void) lockext_row_find(&table, name, &row, &found);
	if (found)
	{
		lockext_row_must_be_sound(name, &row);
		ours = is_ours(name, &row, token);
		if (!ours && outcome != NULL && lockext_row_holds(&row, GetCurrentTimestamp()))
			lockext_outcome_row(outcome, &row);
	}
	lockext_table_close(&table, false);
	return ours;
}

/*
 * Take KEY and the table, and find our row in the table's slot.  True if it is
 * ours; both are then kept to the end of the transaction.  False if not;
 * then both were given back, and outcome, if given, tells who holds the lock.
 */
static bool
take_ours(Oid fn_oid, const LockName *name, int64 token, LOCKMODE mode, IsOurs is_ours,
		  LockTable *table, LockRow *row, Outcome *outcome)
{
	KeyLock		key;
	bool		found;

	/* of a lock that this session claims, a look under KEY is enough, if that is free */
	if (!lockext_is_claimed(name, token) || !lockext_key_lock_to_look(&key, name, mode))
	{
		ErrorContextCallback context = {
			error_context_stack, lockext_wait_context, unconstify(LockName *, name)
		};

		if (!seems_ours(fn_oid, name, token, is_ours, outcome))
			return false;
		error_context_stack = &context;
		(void) lockext_key_lock(&key, name, mode, true);
		error_context_stack = context.previous;
	}
	(void) lockext_table_open(table, fn_oid, RowExclusiveLock, true);
	(void) lockext_row_look(table, name, row, &found);
	if (found)
		lockext_row_must_be_sound(name, row);
	if (found && is_ours(name, row, token))
	{
		lockext_key_decided();
		return true;
	}

	if (found && outcome != NULL && lockext_row_holds(row, GetCurrentTimestamp()))
		lockext_outcome_row(outcome, row);
	lockext_table_close(table, false);
	lockext_key_give_back(&key);
	lockext_key_decided();
	return false;
}

/* Write over the row in the table's slot, or raise 55P03. */
static void
must_write(LockTable *table, const LockName *name, const LockRow *old, LockRow *new)
{
	bool		ends = new->released_at != DT_NOEND;

	if (!lockext_row_write(table, old, new))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not change the row of %s", lockext_name_display(name)),
				 errdetail("Another transaction has locked the row itself.")));
	lockext_table_close(table, true);

	if (new->scope == LOCKEXT_SCOPE_SESSION)
	{
		lockext_xact_wal_is_minor();
		if (ends)
			lockext_live_released(name, new->token, false);
	}
	lockext_xact_due(lockext_row_idle_since(new));
	if (lockext_row_idle_since(new) < lockext_row_idle_since(old))
		lockext_announce(name);
}

/*
 * Somebody waits for the session-scoped lock in the table's slot, and will write
 * its row in a moment: then there is no need to do so twice.  True if the lock is
 * released.
 *
 * If the waiter changes its mind, the row stays as that of a session that is gone: the
 * worker removes it, and until then a standby, which knows nothing of LIVE, shows the
 * lock as held.
 */
static bool
leave_row_to_next(LockTable *table, const LockName *name, const LockRow *row)
{
	LOCKTAG		queue;

	if (row->scope != LOCKEXT_SCOPE_SESSION ||
		!lockext_live_can_leave_row(name, row->token) ||
		!lockext_is_waited_for(name, &queue))
		return false;
	lockext_live_released(name, row->token, true);
	lockext_xact_due(GetCurrentTimestamp());
	lockext_table_close(table, false);
	return true;
}

/*
 * End the lock, when this transaction commits.  False: it is not there, has expired,
 * or is another owner's or another token's (-1: any); nothing changes.  Raises 25006,
 * with the name of the function, where nothing can be written.
 */
bool
lockext_release_now(Oid fn_oid, const LockName *name, int64 token, const char *function)
{
	LockTable	table;
	LockRow		old;
	LockRow		new;
	const LockRow *hold = lockext_held_by_transaction(name);

	if (hold != NULL)
	{
		bool		ours = lockext_is_ours(name, hold, token);

		if (ours)
			lockext_hold_released(name);
		return ours;
	}
	lockext_must_be_able_to_write(function);

	lockext_xact_wal_begin();
	if (!take_ours(fn_oid, name, token, LOCKEXT_KEY_CHANGE, lockext_is_ours, &table, &old, NULL))
		return false;
	if (leave_row_to_next(&table, name, &old))
		return true;

	new = old;
	new.released_at = GetCurrentTimestamp();
	new.data = NULL;
	must_write(&table, name, &old, &new);

	/* if a crash undoes it, the lock ends by its timeout */
	if (new.timeout_ms != -1)
		lockext_xact_wal_is_minor();
	return true;
}

/* lock_release(key, token, domain, master) -> boolean */
Datum
lockext_release(PG_FUNCTION_ARGS)
{
	LockName	name;
	int64		token;

	lockext_arg_name(fcinfo, 0, 2, 3, &name);
	token = lockext_arg_token(fcinfo, 1);
	PG_RETURN_BOOL(lockext_release_now(fcinfo->flinfo->fn_oid, &name, token,
									   "lock_release()"));
}

static void
refuse_renewal(const LockName *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("cannot renew %s", lockext_name_display(name)),
			 errdetail("Its scope is \"transaction\": it ends with its transaction and has no timeout.")));
}

/*
 * lock_renew(key, timeout, token, domain, master) -> lock_result
 *
 * The lock's lifetime begins anew, now.  Reason "lost" if it is no longer
 * ours; then the holder, if there is one, is given.
 */
Datum
lockext_renew(PG_FUNCTION_ARGS)
{
	Oid			fn_oid = fcinfo->flinfo->fn_oid;
	LockName	name;
	LockTable	table;
	LockRow		old;
	LockRow		new;
	Outcome		outcome;
	int64		timeout_ms;
	int64		token;
	const LockRow *hold;

	lockext_arg_name(fcinfo, 0, 3, 4, &name);
	token = lockext_arg_token(fcinfo, 2);
	memset(&outcome, 0, sizeof(outcome));
	hold = lockext_held_by_transaction(&name);
	if (hold != NULL)
	{
		if (lockext_is_ours(&name, hold, token))
			refuse_renewal(&name);
		lockext_outcome_row(&outcome, hold);
		outcome.reason = LOCKEXT_REASON_LOST;
		PG_RETURN_DATUM(lockext_form_result(fcinfo, &name, lockext_caller_label(), &outcome));
	}
	timeout_ms = lockext_arg_timeout(fcinfo, 1, LOCKEXT_SCOPE_LEASE);
	lockext_must_be_able_to_write("lock_renew()");

	lockext_xact_wal_begin();
	if (!take_ours(fn_oid, &name, token, LOCKEXT_KEY_RENEW, lockext_is_ours_or_pinned,
				   &table, &old, &outcome))
	{
		outcome.reason = LOCKEXT_REASON_LOST;
		PG_RETURN_DATUM(lockext_form_result(fcinfo, &name, lockext_caller_label(), &outcome));
	}

	new = old;
	new.timeout_ms = timeout_ms;
	new.expires_at = lockext_end_of(GetCurrentTimestamp(), timeout_ms);
	lockext_outcome_row(&outcome, &new);
	must_write(&table, &name, &old, &new);

	/* as for an acquire: its holder relies on it */
	if (new.scope == LOCKEXT_SCOPE_LEASE)
		lockext_xact_durable();
	PG_RETURN_DATUM(lockext_form_result(fcinfo, &name, outcome.row.calling_fn, &outcome));
}

/* ---------- break ---------- */

static void
refuse_break(const LockName *name, const Blocker *blocker)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not break %s", lockext_name_display(name)),
			 errdetail_internal("%s", lockext_describe_blocker(blocker)),
			 !blocker->found ? errhint("Try again.")
			 : blocker->prepared ? errhint("End it with COMMIT PREPARED or ROLLBACK PREPARED; pg_prepared_xacts lists it.")
			 : errhint("End that transaction, for example with pg_terminate_backend(%d), and try again.",
					   blocker->pid)));
}

/* The lock table is being rewritten, dropped or moved. */
static void
refuse_break_of_table(const LockTable *table, const LockName *name)
{
	Blocker		blocker;

	lockext_find_blocker(&table->refused, table->refused_mode, &blocker);
	refuse_break(name, &blocker);
}

/*
 * The row that a broken lock leaves.  All that is kept of the old one is the
 * token, and that only if the row is sound.
 */
static void
broken_row(LockTable *table, const LockName *name, const LockRow *old, LockRow *new)
{
	TimestampTz now = GetCurrentTimestamp();

	*new = *old;
	new->released_at = now;
	new->data = NULL;
	if (old->damage == NULL)
		return;

	if (!lockext_next_token(table, old, now, &new->token))
		refuse_break_of_table(table, name);
	new->acquired_at = now;
	new->dboid = MyDatabaseId;
	new->owner = GetUserId();
	new->pid = 0;
	new->scope = LOCKEXT_SCOPE_LEASE;
	new->domain = name->domain;
	new->key = name->key;
	new->calling_fn = new->application_name = cstring_to_text("");
	new->timeout_ms = -1;
	new->expires_at = DT_NOEND;
	new->client_addr = NULL;
}

/* Does anybody hold the lock, or is it damaged, so that there is something to break? */
static bool
is_breakable(const LockRow *row)
{
	return row->damage != NULL || lockext_row_holds(row, GetCurrentTimestamp());
}

/*
 * Look without KEY: is there something to break?  A lock that is free, but
 * that an open transaction holds or is about to take, is in that transaction's
 * way.
 */
static bool
seems_breakable(Oid fn_oid, const LockName *name)
{
	LockTable	table;
	LockRow		row;
	Blocker		blocker;
	bool		found;
	bool		free;

	if (!lockext_table_open(&table, fn_oid, AccessShareLock, false) ||
		!lockext_row_look(&table, name, &row, &found))
		refuse_break_of_table(&table, name);
	free = found && !is_breakable(&row);
	lockext_table_close(&table, false);
	if (!free)
		return true;			/* or not found, which says nothing */

	lockext_find_blocker(&name->tag, LOCKEXT_KEY_CHANGE, &blocker);
	return blocker.found;
}

/* As an administrator who has left meanwhile would not want anything broken, see to that. */
static bool
wait_for_key_to_break(const LockName *name, int64 wait_ms, KeyLock *key)
{
	Patience	patience;
	volatile bool locked = false;

	lockext_patience_begin(&patience, wait_ms);
	lockext_client_watch();
	PG_TRY();
	{
		locked = lockext_key_lock_until(key, name, LOCKEXT_KEY_CHANGE, &patience);
	}
	PG_FINALLY();
	{
		lockext_client_unwatch();
	}
	PG_END_TRY();
	if (locked)
		lockext_client_must_be_there();
	return locked;
}

/* Take KEY, waiting so many milliseconds, or raise 55P03. */
static void
take_key_to_break(const LockName *name, int64 wait_ms, KeyLock *key)
{
	Blocker		blocker;

	if (lockext_key_lock(key, name, LOCKEXT_KEY_CHANGE, false) ||
		(wait_ms != 0 && wait_for_key_to_break(name, wait_ms, key)))
		return;
	lockext_find_blocker(&name->tag, LOCKEXT_KEY_CHANGE, &blocker);
	refuse_break(name, &blocker);
}

/*
 * End the lock, whoever holds it, when this transaction commits.  False: nobody
 * does.  Raises 55P03 if an open transaction is in the way for longer than wait_ms.
 */
static bool
break_now(Oid fn_oid, const LockName *name, int64 wait_ms)
{
	LockTable	table;
	LockRow		old;
	LockRow		new;
	KeyLock		key;
	bool		found;

	if (lockext_held_by_transaction(name) != NULL)
	{
		lockext_hold_released(name);
		return true;
	}
	lockext_must_be_able_to_write("lock_break()");

	lockext_xact_wal_begin();
	if (!seems_breakable(fn_oid, name))
		return false;

	take_key_to_break(name, wait_ms, &key);
	if (!lockext_table_open(&table, fn_oid, RowExclusiveLock, false) ||
		!lockext_row_look(&table, name, &old, &found))
		refuse_break_of_table(&table, name);

	if (!found || !is_breakable(&old))
	{
		lockext_table_close(&table, false);
		lockext_key_give_back(&key);
		return false;
	}
	broken_row(&table, name, &old, &new);
	must_write(&table, name, &old, &new);
	return true;
}

/*
 * lock_break(key, wait_ms, domain, master) -> boolean
 *
 * wait_ms 0: does not wait, -1: without limit.  A damaged row is replaced by a sound
 * one.  The key may be an id of lock_event(); one that could be nothing else is an
 * error, rather than false, if no such lock is held.
 */
Datum
lockext_break(PG_FUNCTION_ARGS)
{
	LockName	name;
	int64		wait_ms;
	bool		broken;

	lockext_arg_any_name(fcinfo, 0, 2, 3, &name);
	wait_ms = lockext_arg_wait(fcinfo, 1);
	broken = break_now(fcinfo->flinfo->fn_oid, &name, wait_ms);
	if (!broken)
		lockext_arg_name(fcinfo, 0, 2, 3, &name);
	PG_RETURN_BOOL(broken);
}
