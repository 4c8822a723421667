/*
 * sleep.c
 *		Sleeping until a lock can be had or something happens, with a deadline.
 *
 * PostgreSQL's lock waits end by an error only.  A deadline of ours is put into
 * lock_timeout for the one wait, and its error turned into an answer.  The error
 * may arrive together with the lock, so that each such wait is a subtransaction:
 * its rollback leaves nothing.  It has no transaction ID.
 *
 * The user's own lock_timeout counts for the whole call, and stays an error, as
 * do cancel, statement_timeout, termination and deadlock.
 *
 * Deadlines go by the monotonic clock: a step of the wall clock must not make a
 * wait longer or shorter.
 */
#include "postgres.h"

#include "compat.h"
#include "keylock.h"
#include "sleep.h"

#include <limits.h>
#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/*
 * How often a waiting session looks whether its client is there, ms.  Not when
 * deadlock_timeout, by its default, is up: the look may reset the latch that that
 * has set, and the deadlock detector would have its turn late.
 */
#define CLIENT_CHECK_MS 900

/* SIGINT came from another process while we slept. */
static volatile sig_atomic_t canceled;
static bool noting_cancel = false;
static struct sigaction servers_sigint;

static bool watching_client = false;
static int	users_check_interval;

Moment
lockext_moment(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (Moment) INSTR_TIME_GET_MICROSEC(t);
}

/* When the wall clock will show t, as long as nobody sets it. */
Moment
lockext_moment_of(TimestampTz t)
{
	if (t == DT_NOEND)
		return MOMENT_NEVER;
	return lockext_moment() + (t - GetCurrentTimestamp());
}

/* wait_ms: -1 for no limit */
void
lockext_patience_begin(Patience *patience, int64 wait_ms)
{
	patience->begun = lockext_moment();
	patience->deadline = wait_ms < 0 ? MOMENT_NEVER : patience->begun + wait_ms * 1000;
	patience->lock_timeout = LockTimeout <= 0 ? MOMENT_NEVER
		: patience->begun + (Moment) LockTimeout * 1000;
	patience->deadlock_check = patience->begun + (Moment) DeadlockTimeout * 1000;
	patience->slept = false;
}

bool
lockext_patience_over(const Patience *patience)
{
	return lockext_moment() >= patience->deadline;
}

/* Milliseconds since the call began, not less than one, if it had to wait, else 0. */
int64
lockext_patience_ms(const Patience *patience)
{
	return patience->slept ? (lockext_moment() - patience->begun) / 1000 + 1 : 0;
}

/* Until then, in whole milliseconds, not less than one. */
static int
milliseconds_until(Moment until)
{
	Moment		us = until - lockext_moment();

	return (int) Max(1, Min(us / 1000 + 1, INT_MAX));
}

/*
 * Asleep, a session that has no snapshot otherwise must not keep one for the
 * catalogs: it would hold up VACUUM and CREATE INDEX CONCURRENTLY.
 */
static void
prepare_to_sleep(Patience *patience)
{
	patience->slept = true;
	InvalidateCatalogSnapshotConditionally();
}

static void
fail_lock_timeout(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("canceling statement due to lock timeout")));
}

/*
 * Of two timeouts that strike at once PostgreSQL reports one.  If that was our
 * deadline, the other must not be lost.
 */
static void
honor_statement_timeout(bool was_active)
{
	if (was_active && !get_timeout_active(STATEMENT_TIMEOUT))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling statement due to statement timeout")));
}

/*
 * deadlock_timeout for a sleep of so many milliseconds.  PostgreSQL looks for a
 * deadlock once in each sleep, after that time.  A wait that is made of many
 * short sleeps would never come to it: one of them has it done at once then.
 */
static int
deadlock_timeout(Patience *patience, int sleep_ms)
{
	Moment		now = lockext_moment();
	bool		is_due = now >= patience->deadlock_check;

	if (sleep_ms <= DeadlockTimeout && !is_due)
		return DeadlockTimeout;
	patience->deadlock_check = now + (Moment) DeadlockTimeout * 1000;
	return is_due ? 1 : DeadlockTimeout;
}

/*
 * A cancel that strikes together with our deadline would be reported as that, and
 * be lost.  PostgreSQL's timeouts cancel by a signal that the process sends to
 * itself, so the sender tells the two apart.
 */
static void
note_cancel(int signo, siginfo_t *info, void *context)
{
	if (info->si_pid != MyProcPid)
		canceled = true;
	servers_sigint.sa_handler(signo);
}

static void
begin_noting_cancel(void)
{
	struct sigaction action;

	canceled = false;
	noting_cancel = sigaction(SIGINT, NULL, &servers_sigint) == 0 &&
		!(servers_sigint.sa_flags & SA_SIGINFO) &&
		servers_sigint.sa_handler != SIG_IGN && servers_sigint.sa_handler != SIG_DFL;
	if (!noting_cancel)
		return;
	action = servers_sigint;
	action.sa_flags |= SA_SIGINFO;
	action.sa_sigaction = note_cancel;
	(void) sigaction(SIGINT, &action, NULL);
}

static void
end_noting_cancel(void)
{
	if (noting_cancel)
		(void) sigaction(SIGINT, &servers_sigint, NULL);
	noting_cancel = false;
}

static void
honor_cancel(void)
{
	if (canceled)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling statement due to user request")));
}

/* What is slept on: a lock that is to be had, or the end of a transaction. */
typedef struct Target
{
	const LOCKTAG *tag;			/* NULL: a transaction */
	LOCKMODE	mode;
	VirtualTransactionId vxid;
} Target;

static void
sleep_on(const Target *target)
{
	if (target->tag != NULL)
		(void) lockext_lock(target->tag, target->mode, true);
	else
		(void) VirtualXactLock(target->vxid, true);
}

/* Sleep on it in a subtransaction, for so many milliseconds; false if in vain. */
static bool
sleep_in_subtransaction(Patience *patience, const Target *target, int timeout_ms, bool is_error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int			users_timeout = LockTimeout;
	int			servers_timeout = DeadlockTimeout;
	bool		statement_timer = get_timeout_active(STATEMENT_TIMEOUT);
	volatile bool locked = false;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		begin_noting_cancel();
		LockTimeout = timeout_ms;
		DeadlockTimeout = deadlock_timeout(patience, timeout_ms);
		sleep_on(target);
		LockTimeout = users_timeout;
		DeadlockTimeout = servers_timeout;

		/* the timeout may have struck, and its interrupt be still to come */
		CHECK_FOR_INTERRUPTS();
		end_noting_cancel();
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		locked = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		end_noting_cancel();
		LockTimeout = users_timeout;
		DeadlockTimeout = servers_timeout;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE || is_error)
			ReThrowError(error);
		FreeErrorData(error);
		honor_cancel();
		honor_statement_timeout(statement_timer);
	}
	PG_END_TRY();
	return locked;
}

/* False if the time has come, or patience is at its end, before. */
static bool
sleep_until_had(Patience *patience, const Target *target, Moment until)
{
	Moment		limit = Min(until, patience->lock_timeout);

	if (limit == patience->lock_timeout && lockext_moment() >= limit)
		fail_lock_timeout();
	if (lockext_moment() >= limit)
		return false;

	prepare_to_sleep(patience);
	if (limit == MOMENT_NEVER)
	{
		sleep_on(target);
		return true;
	}
	return sleep_in_subtransaction(patience, target, milliseconds_until(limit),
								   limit == patience->lock_timeout);
}

/*
 * Take a lock for the current subtransaction, asleep in the lock manager until it
 * is free.  False if it could not be had by then; the lock is not held in that
 * case, nor after an error.  Raises 55P03 when the user's lock_timeout is up,
 * 40P01 on deadlock.
 *
 * For a lock that could not be had a moment ago: it is not tried first without
 * sleeping.
 */
bool
lockext_lock_until(Patience *patience, const LOCKTAG *tag, LOCKMODE mode, Moment until)
{
	Target		target = {.tag = tag,.mode = mode};

	return sleep_until_had(patience, &target, until);
}

/* The same for the end of another transaction, be it prepared. */
bool
lockext_wait_for_end_until(Patience *patience, VirtualTransactionId vxid, Moment until)
{
	Target		target = {.vxid = vxid};

	return sleep_until_had(patience, &target, until);
}

/*
 * Sleep until the condition variable is signalled or the time has come; cv is
 * NULL for a plain nap.  The caller has prepared for cv and looks again after.  True
 * if it was signalled.
 */
bool
lockext_sleep_until(Patience *patience, ConditionVariable *cv, Moment until)
{
	static uint32 wait_event = 0;
	Moment		limit = Min(until, patience->lock_timeout);
	int			ms = milliseconds_until(limit);
	bool		signalled = false;

	if (wait_event == 0)
		wait_event = compat_wait_event("LockextWaitForRelease");

	prepare_to_sleep(patience);
	if (cv != NULL)
		signalled = !ConditionVariableTimedSleep(cv, ms, wait_event);
	else
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (lockext_moment() >= patience->lock_timeout)
		fail_lock_timeout();
	return signalled;
}

/* ---------- the client ---------- */

/*
 * Until lockext_client_unwatch(), which must be called even after an error, find
 * out within a second that the client is gone, whatever
 * client_connection_check_interval says: a session that only waits learns of it
 * in no other way.
 */
void
lockext_client_watch(void)
{
	if (MyProcPort == NULL || !WaitEventSetCanReportClosed() ||
		(client_connection_check_interval > 0 &&
		 client_connection_check_interval <= CLIENT_CHECK_MS))
		return;
	watching_client = true;
	users_check_interval = client_connection_check_interval;
	client_connection_check_interval = CLIENT_CHECK_MS;
	enable_timeout_after(CLIENT_CONNECTION_CHECK_TIMEOUT, CLIENT_CHECK_MS);
}

void
lockext_client_unwatch(void)
{
	if (!watching_client)
		return;
	watching_client = false;
	client_connection_check_interval = users_check_interval;
	if (users_check_interval > 0)
		enable_timeout_after(CLIENT_CONNECTION_CHECK_TIMEOUT, users_check_interval);
	else
		disable_timeout(CLIENT_CONNECTION_CHECK_TIMEOUT, false);
}

/* Ends the session if its client is gone: a lock would be nobody's. */
void
lockext_client_must_be_there(void)
{
	if (MyProcPort == NULL || !WaitEventSetCanReportClosed() || pq_check_connection())
		return;
	ClientConnectionLost = true;
	InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}
