/*
 * waiters.c
 *		Who waits for which lock, and waking them.
 *
 * In shared memory, when the library is preloaded:
 *	- one slot for each process that may wait, for people to look at;
 *	- a fixed number of partitions, by the hash of the name, each with the number
 *	  of its waiters and a condition variable.
 *
 * None of it decides about a lock.  The queue itself is that of the QUEUE lock in
 * PostgreSQL's lock manager, and only the waiter at its head, and only while a
 * committed lease is in its way, sleeps on the condition variable.  That is
 * signalled when the locks of the transaction that ended the lease are free, so
 * that the woken one finds them free.
 */
#include "postgres.h"

#include "compat.h"
#include "result.h"
#include "waiters.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#define PARTITIONS 128

typedef struct Waiter
{
	int			pid;			/* 0: free */
	Oid			dboid;
	Oid			roleid;
	uint64		ticket;			/* order of arrival */
	TimestampTz since;
	uint32		hash;			/* of the name */
	bool		at_head;
	int			holder_pid;		/* at the head: whom it waits for, or 0 */
	char		scope;
	char		form;
	uint16		domain_len;
	uint16		key_len;
	char		domain[LOCKEXT_MAX_DOMAIN_BYTES];
	char		key[LOCKEXT_MAX_KEY_BYTES];
} Waiter;

typedef struct Partition
{
	pg_atomic_uint32 waiters;
	ConditionVariable cv;
} Partition;

typedef struct Waiters
{
	uint64		last_ticket;
	Partition	partitions[PARTITIONS];
	Waiter		slots[FLEXIBLE_ARRAY_MEMBER];	/* by number of the process */
} Waiters;

static Waiters *waiters = NULL;
static LWLock *waiters_lock = NULL;

/* This process has a slot. */
static bool waiting = false;

/* Partitions in which this transaction has ended a lease. */
static uint64 announced[PARTITIONS / 64];
static bool announcing = false;

PG_FUNCTION_INFO_V1(lockext_waiters);

static void at_xact_end(XactEvent event, void *arg);
static void after_locks(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
						void *arg);

/* ---------- shared memory ---------- */

Size
lockext_waiters_size(void)
{
	return add_size(offsetof(Waiters, slots),
					mul_size(compat_proc_count(), sizeof(Waiter)));
}

/* At the start of the server, and in each process where those don't inherit memory. */
void
lockext_waiters_attach(void *memory, bool found, LWLock *lock)
{
	waiters = memory;
	waiters_lock = lock;
	if (found)
		return;
	memset(waiters, 0, lockext_waiters_size());
	for (int i = 0; i < PARTITIONS; i++)
	{
		pg_atomic_init_u32(&waiters->partitions[i].waiters, 0);
		ConditionVariableInit(&waiters->partitions[i].cv);
	}
}

void
lockext_waiters_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterResourceReleaseCallback(after_locks, NULL);
}

static int
partition_number(uint32 hash)
{
	return hash % PARTITIONS;
}

static Partition *
partition_of(const LockName *name)
{
	return &waiters->partitions[partition_number(lockext_name_hash(name))];
}

/* ---------- slots ---------- */

static Waiter *
my_slot(void)
{
	return &waiters->slots[compat_my_proc_number()];
}

/*
 * True if it is known that nobody waits for the lock.  One who has only just
 * come may be overlooked.
 */
bool
lockext_nobody_waits(const LockName *name)
{
	return waiters != NULL &&
		pg_atomic_read_u32(&partition_of(name)->waiters) == 0;
}

/*
 * This session is about to wait for the lock.  Until lockext_waiter_end(), which
 * is called at the end of the transaction if by nobody else.
 */
void
lockext_waiter_begin(const LockName *name, char scope, char form)
{
	Waiter	   *slot;

	if (waiters == NULL)
		return;
	Assert(!waiting);
	slot = my_slot();

	LWLockAcquire(waiters_lock, LW_EXCLUSIVE);
	slot->dboid = MyDatabaseId;
	slot->roleid = GetUserId();
	slot->ticket = ++waiters->last_ticket;
	slot->since = GetCurrentTimestamp();
	slot->hash = lockext_name_hash(name);
	slot->at_head = false;
	slot->holder_pid = 0;
	slot->scope = scope;
	slot->form = form;
	slot->domain_len = VARSIZE_ANY_EXHDR(name->domain);
	memcpy(slot->domain, VARDATA_ANY(name->domain), slot->domain_len);
	slot->key_len = VARSIZE_ANY_EXHDR(name->key);
	memcpy(slot->key, VARDATA_ANY(name->key), slot->key_len);
	slot->pid = MyProcPid;
	LWLockRelease(waiters_lock);

	pg_atomic_fetch_add_u32(&partition_of(name)->waiters, 1);
	waiting = true;
}

/* It is this session's turn, and this process that it waits for (0: none, or not known). */
void
lockext_waiter_at_head(int holder_pid)
{
	Waiter	   *slot;

	if (!waiting)
		return;
	slot = my_slot();
	if (slot->at_head && slot->holder_pid == holder_pid)
		return;
	LWLockAcquire(waiters_lock, LW_EXCLUSIVE);
	slot->at_head = true;
	slot->holder_pid = holder_pid;
	LWLockRelease(waiters_lock);
}

void
lockext_waiter_end(void)
{
	Waiter	   *slot;

	if (!waiting)
		return;
	waiting = false;
	slot = my_slot();
	pg_atomic_fetch_sub_u32(&waiters->partitions[partition_number(slot->hash)].waiters, 1);
	LWLockAcquire(waiters_lock, LW_EXCLUSIVE);
	slot->pid = 0;
	LWLockRelease(waiters_lock);
}

static bool
is_name(const Waiter *slot, const char *domain, size_t domain_len,
		const char *key, size_t key_len)
{
	return slot->domain_len == domain_len &&
		slot->key_len == key_len &&
		memcmp(slot->domain, domain, domain_len) == 0 &&
		memcmp(slot->key, key, key_len) == 0;
}

static bool
waits_for(const Waiter *slot, const LockName *name)
{
	return slot->pid != 0 &&
		slot->dboid == MyDatabaseId &&
		slot->hash == lockext_name_hash(name) &&
		is_name(slot, VARDATA_ANY(name->domain), VARSIZE_ANY_EXHDR(name->domain),
				VARDATA_ANY(name->key), VARSIZE_ANY_EXHDR(name->key));
}

/* How many wait for the lock; -1 if that is not known. */
int
lockext_count_waiters(const LockName *name)
{
	int			n = 0;

	if (waiters == NULL)
		return -1;
	if (lockext_nobody_waits(name))
		return 0;
	LWLockAcquire(waiters_lock, LW_SHARED);
	for (int i = 0; i < compat_proc_count(); i++)
		if (waits_for(&waiters->slots[i], name))
			n++;
	LWLockRelease(waiters_lock);
	return n;
}

static int
by_ticket(const void *a, const void *b)
{
	const Waiter *x = *(Waiter *const *) a;
	const Waiter *y = *(Waiter *const *) b;

	return (x->ticket > y->ticket) - (x->ticket < y->ticket);
}

/* A copy of the slots in use in this database, in order of arrival. */
static Waiter **
copy_waiters(int *n)
{
	Waiter	  **copies = palloc(compat_proc_count() * sizeof(Waiter *));

	*n = 0;
	if (waiters == NULL)
		return copies;
	LWLockAcquire(waiters_lock, LW_SHARED);
	for (int i = 0; i < compat_proc_count(); i++)
	{
		if (waiters->slots[i].pid == 0 || waiters->slots[i].dboid != MyDatabaseId)
			continue;
		copies[*n] = palloc(sizeof(Waiter));
		*copies[(*n)++] = waiters->slots[i];
	}
	LWLockRelease(waiters_lock);
	qsort(copies, *n, sizeof(Waiter *), by_ticket);
	return copies;
}

/*
 * The processes that wait for the lock, first come first, as "1, 2, 3"; NULL if
 * that is not known.  *holder_pid is set to the process that the first of them
 * waits for, if it has found out.  Looks at no catalog.
 */
char *
lockext_list_waiters(const LockName *name, int *holder_pid)
{
	StringInfoData buf;
	Waiter	  **all;
	int			n;

	if (waiters == NULL)
		return NULL;
	initStringInfo(&buf);
	all = copy_waiters(&n);
	for (int i = 0; i < n; i++)
	{
		if (!waits_for(all[i], name))
			continue;
		appendStringInfo(&buf, "%s%d", buf.len > 0 ? ", " : "", all[i]->pid);
		if (all[i]->at_head && all[i]->holder_pid != 0)
			*holder_pid = all[i]->holder_pid;
	}
	return buf.data;
}

/* ---------- the view ---------- */

/* How many in the queue came before the i-th one, for the same lock. */
static int
position_of(Waiter **all, int i)
{
	int			position = 1;

	for (int j = 0; j < i; j++)
		if (is_name(all[j], all[i]->domain, all[i]->domain_len,
					all[i]->key, all[i]->key_len))
			position++;
	return position;
}

/* lockext_waiters(): one row for each session that waits for a lock of this database */
Datum
lockext_waiters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Waiter	  **all;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	all = copy_waiters(&n);
	for (int i = 0; i < n; i++)
	{
		Waiter	   *w = all[i];
		bool		master = w->key_len == 0;
		Datum		values[9];
		bool		nulls[9] = {false};

		values[0] = Int32GetDatum(w->pid);
		values[1] = CStringGetTextDatum(lockext_role_name(w->roleid));
		values[2] = PointerGetDatum(cstring_to_text_with_len(w->key, w->key_len));
		nulls[2] = master;
		values[3] = PointerGetDatum(cstring_to_text_with_len(w->domain, w->domain_len));
		values[4] = BoolGetDatum(master);
		values[5] = Int32GetDatum(position_of(all, i));
		values[6] = TimestampTzGetDatum(w->since);
		values[7] = CStringGetTextDatum(lockext_scope_name(w->scope));
		values[8] = CStringGetTextDatum(w->form == LOCKEXT_FORM_CALL ? "call" : "statement");
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---------- waking ---------- */

/*
 * Prepare to sleep until somebody announces a change of the lock: from now on no
 * announcement is missed.  NULL without shared memory.
 */
ConditionVariable *
lockext_watch(const LockName *name)
{
	ConditionVariable *cv;

	if (waiters == NULL)
		return NULL;
	cv = &partition_of(name)->cv;
	ConditionVariablePrepareToSleep(cv);
	return cv;
}

void
lockext_unwatch(void)
{
	ConditionVariableCancelSleep();
}

/*
 * The current transaction ends a lease, or brings its end forward: once it has
 * committed, whoever waits is to look.
 */
void
lockext_announce(const LockName *name)
{
	int			n = partition_number(lockext_name_hash(name));

	announced[n / 64] |= UINT64CONST(1) << (n % 64);
	announcing = true;
}

/* A prepared transaction has ended, which may have done anything. */
void
lockext_announce_all(void)
{
	if (waiters == NULL)
		return;
	for (int i = 0; i < PARTITIONS; i++)
		ConditionVariableBroadcast(&waiters->partitions[i].cv);
}

static void
after_locks(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	if (!announcing || phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel)
		return;
	announcing = false;
	for (int i = 0; i < PARTITIONS; i++)
		if (waiters != NULL && (announced[i / 64] & (UINT64CONST(1) << (i % 64))))
			ConditionVariableBroadcast(&waiters->partitions[i].cv);
	memset(announced, 0, sizeof(announced));
}

static void
at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
	{
		lockext_waiter_end();
		announcing = false;
		memset(announced, 0, sizeof(announced));
	}
}
