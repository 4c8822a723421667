/*
 * wait.c
 *		Waiting for a lock: lock_acquire(wait_ms => ...), lock_acquire_wait().
 *
 * Those who wait for the same lock queue for its QUEUE lock, in PostgreSQL's own
 * lock queue, so in order of arrival.  Who has it is at the head, and sleeps on
 * what is in the way:
 *	- a transaction that takes, ends or has the lock, open or prepared: on KEY;
 *	- one that guards or renews it: on that transaction;
 *	- a session that holds the lock: on its LIVE;
 *	- somebody rewriting the lock table: on that;
 *	- a committed lease, which no process stands for: on a condition variable,
 *	  or, without shared memory, by looking again every POLL_US.
 * The lock manager thus knows all but the last of these, and with it the
 * deadlock detector, pg_blocking_pids() and whoever waits for a session to die.
 *
 * The head looks again when the row's lifetime is over and, since neither a
 * lease nor LIVE tells of everything (another session released a session-scoped
 * lock, the extension was dropped, the clock set), every second.
 *
 * A waiter that was granted the lock keeps QUEUE, as it keeps KEY, to the end of
 * its transaction: the next has no need to wake before.  A transaction that keeps
 * KEY does not queue, as those in the queue wait for it; nor does a session wait
 * for its own lock.
 */
#include "postgres.h"

#include "acquire.h"
#include "args.h"
#include "own.h"
#include "settings.h"
#include "sleep.h"
#include "wait.h"
#include "waiters.h"
#include "xact.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

/* How often the head polls a lease without shared memory. */
#define POLL_US 50000

/*
 * How often the head looks again otherwise.  A little longer than deadlock_timeout
 * by its default, so that one sleep has room for the deadlock detector.
 */
#define RELOOK_US INT64CONST(1050000)

/* Where the server speaks of long lock waits, and how. */
#define CORE_FUNCTION "ProcSleep"
#define CORE_MESSAGE "process %d still waiting for "

/* The wait that this process is in. */
typedef struct Wait
{
	Request    *request;
	Outcome    *outcome;		/* what was last seen to be in the way */
	Patience   *patience;
	char		form;
	bool		log_due;		/* a long wait is to be logged, and was not yet */
	bool		users_log_lock_waits;
	ErrorContextCallback context;
	LOCKTAG		table;			/* lock on the table or an index that was waited for, */
	LOCKMODE	table_mode;		/* held in this mode; NoLock: none */
} Wait;

static Wait *current_wait = NULL;
static emit_log_hook_type prev_emit_log_hook = NULL;

PG_FUNCTION_INFO_V1(lockext_acquire_wait);

static bool must_queue(Wait *wait);
static void wait_in_queue(Wait *wait);
static bool wait_at_head(Wait *wait);
static bool sleep_on_table(Wait *wait);
static void give_table_back(Wait *wait);
static bool sleep_on_obstacle(Wait *wait, ConditionVariable *cv, bool *gone);
static void log_core_message(ErrorData *edata);
static void log_wait(Wait *wait);

void
lockext_wait_init(void)
{
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = log_core_message;
}

/* ---------- entry points ---------- */

/* Was the lock refused because this session holds it itself? */
static bool
is_own(const Request *request, const Outcome *outcome)
{
	return outcome->row_valid && lockext_row_is_mine(&request->name, &outcome->row);
}

/* Was it refused without a look, the lock table or an index of it being locked? */
static bool
is_table_in_the_way(const Outcome *outcome)
{
	return outcome->mode != NoLock &&
		outcome->in_the_way.locktag_type == LOCKTAG_RELATION;
}

static void
begin_wait(Wait *wait)
{
	Request    *request = wait->request;

	lockext_waiter_begin(&request->name, request->scope, wait->form);
	lockext_client_watch();

	wait->log_due = lockext_log_waits;
	wait->users_log_lock_waits = log_lock_waits;
	if (wait->log_due)
		log_lock_waits = true;

	current_wait = wait;
}

/* After success and error alike. */
static void
end_wait(Wait *wait)
{
	current_wait = NULL;
	log_lock_waits = wait->users_log_lock_waits;
	lockext_client_unwatch();
	lockext_unwatch();
	lockext_waiter_end();
}

/*
 * Take the lock, waiting for it until patience is at its end.  False if that was not
 * long enough, or if it would be of no use, as the lock is the session's own.
 */
bool
lockext_wait_and_acquire(Request *request, char form, Patience *patience, Outcome *outcome)
{
	Wait		wait = {
		.request = request,.outcome = outcome,.patience = patience,.form = form
	};

	if (lockext_try_acquire(request, outcome))
		return true;
	if (lockext_key_is_kept(&request->name) || is_own(request, outcome))
		return false;
	lockext_key_must_fit(&request->name);

	begin_wait(&wait);
	PG_TRY();
	{
		/* PG_END_TRY() takes it away again */
		wait.context.callback = lockext_wait_context;
		wait.context.arg = &request->name;
		wait.context.previous = error_context_stack;
		error_context_stack = &wait.context;

		if (must_queue(&wait))
			wait_in_queue(&wait);
	}
	PG_FINALLY();
	{
		end_wait(&wait);
	}
	PG_END_TRY();

	outcome->waited_ms = lockext_patience_ms(patience);
	return outcome->reason == NULL;
}

/* The caller's transaction is about to be committed: 2D000 unless that is of no consequence. */
static void
must_not_matter_to_commit(FunctionCallInfo fcinfo)
{
	const char *why = NULL;

	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		why = "It was called in a transaction block, among several statements sent as one, in a function, in a block with an EXCEPTION clause, or in a procedure that cannot commit.";
	else if (lockext_xact_keys() > 0)
		why = "The current transaction has taken or released a lock.";
	else if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		why = "The current transaction has written something.";

	if (why != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("lock_acquire_wait() must end the current transaction before it waits"),
				 errdetail_internal("%s", why),
				 errhint("COMMIT before, and call it alone, with autocommit; or use lock_acquire() with wait_ms.")));
}

/*
 * End the transaction, and with it its snapshot; a new one begins.  With the
 * transaction ends its SET LOCAL; the lock must not go to another role by that.
 */
static void
begin_new_transaction(void)
{
	Oid			user = GetUserId();

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	SPI_commit();
	SPI_finish();
	if (GetUserId() != user)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("lock_acquire_wait() ended the transaction, and with it SET LOCAL ROLE"),
				 errhint("Use SET ROLE, or lock_acquire() with wait_ms.")));
}

/*
 * CALL lock_acquire_wait(key, timeout, wait_ms, scope, calling_fn, domain, master,
 * data, INOUT result)
 *
 * The same as lock_acquire(), but asleep without snapshot, transaction ID or
 * relation lock: the transaction is ended first.  The lock is taken by the one
 * that goes on after the call.  Raises 2D000 where the transaction can't be
 * ended, and what lock_acquire() does.
 */
Datum
lockext_acquire_wait(PG_FUNCTION_ARGS)
{
	Request		request;
	Patience	patience;
	Outcome		outcome;
	TupleDesc	desc;

	lockext_read_request(fcinfo, LOCKEXT_FORM_CALL, &request);
	lockext_must_be_able_to_write("lock_acquire_wait()");
	must_not_matter_to_commit(fcinfo);
	desc = lockext_call_result_desc(fcinfo);

	/* before SET LOCAL lock_timeout is over */
	lockext_patience_begin(&patience, request.wait_ms);
	begin_new_transaction();
	lockext_must_be_able_to_write("lock_acquire_wait()");
	lockext_wait_and_acquire(&request, LOCKEXT_FORM_CALL, &patience, &outcome);
	PG_RETURN_DATUM(lockext_form_call_result(desc, &request.name, request.calling_fn,
											 &outcome));
}

/* ---------- the queue ---------- */

/*
 * Nobody may queue for a lock of his own, so whose it is must be known first: as
 * long as that can't be seen, wait for the table.  False if the outcome is final.
 */
static bool
must_queue(Wait *wait)
{
	Request    *request = wait->request;
	Outcome    *outcome = wait->outcome;

	while (is_table_in_the_way(outcome))
	{
		bool		granted;

		if (!sleep_on_table(wait))
			return false;
		request->waited = true;
		granted = lockext_try_acquire(request, outcome);
		give_table_back(wait);
		if (granted)
			return false;
	}
	return !is_own(request, outcome);
}

/* Leaves in the outcome whether the lock was granted. */
static void
wait_in_queue(Wait *wait)
{
	Request    *request = wait->request;
	MemoryContext context = CurrentMemoryContext;
	LOCKTAG		queue;
	bool		granted;

	lockext_queue_tag(&queue, &request->name);
	if (!lockext_lock(&queue, ExclusiveLock, false) &&
		!lockext_lock_until(wait->patience, &queue, ExclusiveLock, wait->patience->deadline))
	{
		lockext_why_not(request, wait->outcome);
		return;
	}
	granted = wait_at_head(wait);
	MemoryContextSwitchTo(context);
	if (!granted)
		lockext_unlock(&queue, ExclusiveLock);
}

/*
 * A wait may last for days, and each look leaves some memory behind: that of the
 * last one alone is kept.
 */
static bool
wait_at_head(Wait *wait)
{
	Request    *request = wait->request;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "lockext wait",
												  ALLOCSET_DEFAULT_SIZES);
	bool		gone = false;

	MemoryContextSwitchTo(scratch);
	for (;;)
	{
		/* to be watched for before the look; what may be gone is claimed without either */
		ConditionVariable *cv = gone ? NULL : lockext_watch(&request->name);
		bool		granted;

		MemoryContextReset(scratch);
		request->waited = wait->patience->slept;
		granted = lockext_try_at_head(request, gone, wait->outcome);
		give_table_back(wait);
		if (granted)
			return true;
		if (is_own(request, wait->outcome) || lockext_patience_over(wait->patience))
			return false;
		if (gone)
			gone = false;
		else if (sleep_on_obstacle(wait, cv, &gone))
			return true;
		if (wait->log_due &&
			lockext_moment() >= wait->patience->begun + (Moment) DeadlockTimeout * 1000)
			log_wait(wait);
	}
}

/* Sleep until KEY is free, and then try.  Whatever comes of it, KEY is not waited for any more. */
static bool
sleep_on_key(Wait *wait)
{
	Request    *request = wait->request;
	KeyLock		key;

	lockext_unwatch();
	if (!lockext_key_lock_until(&key, &request->name, lockext_claim_mode(request),
								wait->patience))
		return false;
	request->waited = true;
	memset(wait->outcome, 0, sizeof(Outcome));
	return lockext_claim_with_key(request, &key, wait->outcome);
}

/*
 * Sleep until the lock on the table or an index of it can be had; false if the
 * time has come before.  It is kept for the next try: without, that would be
 * refused again as long as anybody waits for the table, and the deadlock detector
 * could let us pass such a one again and again to no avail.
 */
static bool
sleep_on_table(Wait *wait)
{
	const Outcome *outcome = wait->outcome;

	lockext_unwatch();
	wait->table = outcome->in_the_way;
	if (!lockext_lock_until(wait->patience, &wait->table, outcome->mode,
							wait->patience->deadline))
		return false;
	wait->table_mode = outcome->mode;
	return true;
}

static void
give_table_back(Wait *wait)
{
	if (wait->table_mode != NoLock)
		lockext_unlock(&wait->table, wait->table_mode);
	wait->table_mode = NoLock;
}

/* Sleep until the session is gone; false if the time has come before. */
static bool
sleep_on_session(Wait *wait)
{
	LockRow    *holder = &wait->outcome->row;
	LOCKTAG		live;
	Moment		until = Min(wait->patience->deadline, lockext_moment() + RELOOK_US);

	lockext_live_tag(&live, &wait->request->name, holder->token);
	lockext_unwatch();
	if (!lockext_lock_until(wait->patience, &live, ShareLock,
							Min(until, lockext_moment_of(holder->expires_at))))
		return false;
	lockext_unlock(&live, ShareLock);
	return true;
}

/* Sleep until a lease has ended, perhaps this one: then true. */
static bool
sleep_on_lease(Wait *wait, ConditionVariable *cv)
{
	Moment		until = lockext_moment() + (cv != NULL ? RELOOK_US : POLL_US);

	until = Min(until, lockext_moment_of(wait->outcome->row.expires_at));
	if (wait->log_due)
		until = Min(until, wait->patience->begun + (Moment) DeadlockTimeout * 1000);
	return lockext_sleep_until(wait->patience, cv, Min(until, wait->patience->deadline));
}

/*
 * Sleep until a transaction that guards or renews the lock has ended.  Not on KEY:
 * whoever waits for that is in the way of the holder's other guards and renewals.  As a
 * rollback to a savepoint gives KEY back too, not for long.
 */
static void
sleep_on_guard(Wait *wait)
{
	Moment		until = Min(wait->patience->deadline, lockext_moment() + RELOOK_US);

	lockext_unwatch();
	(void) lockext_wait_for_holder(&wait->request->name.tag, lockext_claim_mode(wait->request),
								   wait->patience, until);
}

/*
 * Is a transaction that is still open ending the lock, or about to take it?  What
 * excludes guards is not a guard, nor a renewal.
 */
static bool
is_being_changed(const LockName *name)
{
	return lockext_is_locked(&name->tag, LOCKEXT_KEY_GUARD);
}

/*
 * Sleep until what is in the way may be gone, or it is time to look again; *gone
 * tells whether it probably is.  True if the lock was granted already.
 */
static bool
sleep_on_obstacle(Wait *wait, ConditionVariable *cv, bool *gone)
{
	Outcome    *outcome = wait->outcome;
	const LockName *name = &wait->request->name;

	*gone = false;
	lockext_waiter_at_head(outcome->row_valid ? outcome->row.pid : outcome->blocker.pid);

	if (outcome->row_valid && is_being_changed(name))
		return sleep_on_key(wait);
	if (outcome->row_valid && outcome->row.scope == LOCKEXT_SCOPE_SESSION)
		*gone = sleep_on_session(wait);
	else if (outcome->row_valid)
		*gone = sleep_on_lease(wait, cv);
	else if (outcome->mode == NoLock)
		(void) lockext_sleep_until(wait->patience, NULL,
								   Min(wait->patience->deadline, lockext_moment() + POLL_US));
	else if (memcmp(&outcome->in_the_way, &name->tag, sizeof(LOCKTAG)) != 0)
		(void) sleep_on_table(wait);
	else if (is_being_changed(name))
		return sleep_on_key(wait);
	else
		sleep_on_guard(wait);
	return false;
}

/* ---------- messages ---------- */

/*
 * The server tells of a long wait in its lock manager by numbers only; where we
 * asked it to, by log_lock_waits, our own line takes the place of that.
 */
static void
log_core_message(ErrorData *edata)
{
	Wait	   *wait = current_wait;

	if (wait != NULL && edata->elevel == LOG &&
		edata->funcname != NULL && strcmp(edata->funcname, CORE_FUNCTION) == 0)
	{
		edata->output_to_server = wait->users_log_lock_waits;
		if (edata->message_id != NULL &&
			strncmp(edata->message_id, CORE_MESSAGE, strlen(CORE_MESSAGE)) == 0)
		{
			/* once is enough for a wait of many sleeps */
			log_lock_waits = false;
			if (wait->log_due)
				log_wait(wait);
		}
	}
	if (prev_emit_log_hook && edata->output_to_server)
		prev_emit_log_hook(edata);
}

/* Once for each wait.  May be called while asleep in the lock manager: no catalogs. */
static void
log_wait(Wait *wait)
{
	const Outcome *outcome = wait->outcome;
	const LockName *name = &wait->request->name;
	int			holder = outcome->row_valid ? outcome->row.pid : outcome->blocker.pid;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "lockext log",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext context = MemoryContextSwitchTo(scratch);
	char	   *queue = lockext_list_waiters(name, &holder);
	Moment		us = lockext_moment() - wait->patience->begun;

	wait->log_due = false;
	log_lock_waits = false;
	ereport(LOG,
			(errmsg("process %d still waiting for %s after " INT64_FORMAT ".%03d ms",
					MyProcPid, lockext_name_display(name), us / 1000, (int) (us % 1000)),
			 errdetail_log("Process holding the lock: %s. Wait queue: %s.",
						   holder != 0 ? psprintf("%d", holder) : "unknown",
						   queue != NULL ? queue : "unknown"),
			 errhidecontext(true),
			 wait->form == LOCKEXT_FORM_STATEMENT
			 ? errhint("A statement that waits keeps its snapshot, which holds up VACUUM and CREATE INDEX CONCURRENTLY; CALL lock_acquire_wait() does not.")
			 : 0));
	MemoryContextSwitchTo(context);
	MemoryContextDelete(scratch);
}
