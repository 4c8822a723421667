/*
 * guard.c
 *		Ownership enforced by the database: lock_guard(), and the question behind
 *		guarded tables and schemas.
 *
 * A guard looks whether the lock is ours and pins the acquisition: it keeps KEY, in a
 * mode that excludes whoever would take, end or remove the lock, until its transaction
 * ends.  What the transaction does is then done under the lock, whether or not the
 * lock's time runs out before the commit.  Guards pass each other, and renewals pass
 * guards.
 *
 * lock_guard() goes by role and token, like lock_release().  Guarded tables and schemas
 * must not ask for the current role, which is another in a SECURITY DEFINER function
 * or a foreign key's action: there a lock is had by the transaction that took, renewed
 * or pinned it, by the session that holds it with scope "session", and by whoever
 * presents its token.
 *
 * The lock manager knows what is pinned, and forgets it with the savepoint in which it
 * was.  But its KEY is a hash, which another name may have too, so the names are
 * remembered here, with the nesting level of the (sub)transaction that pinned them.
 */
#include "postgres.h"

#include "args.h"
#include "guard.h"
#include "keylock.h"
#include "own.h"
#include "presented.h"
#include "release.h"
#include "result.h"
#include "settings.h"
#include "store.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The lock is not ours, or not any more. */
#define ERRCODE_LOCK_LOST MAKE_SQLSTATE('L', 'K', '0', '0', '1')

/* Something guarded was touched without its lock. */
#define ERRCODE_GUARDED MAKE_SQLSTATE('L', 'K', '0', '0', '2')

PG_FUNCTION_INFO_V1(lockext_guard);

typedef struct Pin
{
	dlist_node	node;
	int			level;			/* of nesting, when it was taken */
	bool		command;		/* see lockext_pin_for_command() */
	LockName	name;
} Pin;

/* Newest first; in TopMemoryContext, as those for a command outlast transactions. */
static dlist_head pins = DLIST_STATIC_INIT(pins);

static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId mine,
						   SubTransactionId parent, void *arg);

void
lockext_guard_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
}

/* ---------- what is pinned ---------- */

static void
remember_pin(const LockName *name, bool command)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Pin		   *pin = palloc(sizeof(Pin));

	pin->level = GetCurrentTransactionNestLevel();
	pin->command = command;
	lockext_name_copy(&pin->name, name);
	dlist_push_head(&pins, &pin->node);
	MemoryContextSwitchTo(old);
}

static void
forget_pin(Pin *pin)
{
	dlist_delete(&pin->node);
	pfree(pin->name.domain);
	pfree(pin->name.key);
	pfree(pin);
}

static bool
is_pinned(const LockName *name)
{
	dlist_iter	iter;

	dlist_foreach(iter, &pins)
	{
		Pin		   *pin = dlist_container(Pin, node, iter.cur);

		if (lockext_name_equals(name, pin->name.domain, pin->name.key))
			return compat_lock_held_by_me(&name->tag, LOCKEXT_KEY_GUARD);
	}
	return false;
}

/* How many there are, as a mark for lockext_unpin_command(). */
int
lockext_pin_mark(void)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &pins)
		n += dlist_container(Pin, node, iter.cur)->command;
	return n;
}

/*
 * A lock that this transaction has stays pinned until the end of the command even if
 * that commits in between, as CREATE INDEX CONCURRENTLY does: KEY is taken for the
 * session.  lockext_unpin_command() ends that, or the end of the (sub)transaction by an
 * error.
 */
void
lockext_pin_for_command(const LockName *name)
{
	remember_pin(name, true);
	(void) LockAcquire(&name->tag, LOCKEXT_KEY_GUARD, true, false);
}

static void
end_command_pin(Pin *pin)
{
	if (compat_lock_held_by_me(&pin->name.tag, LOCKEXT_KEY_GUARD))
		LockRelease(&pin->name.tag, LOCKEXT_KEY_GUARD, true);
	forget_pin(pin);
}

/*
 * The command has ended without an error: what it pinned, all but the oldest mark, stays
 * pinned until the end of its last transaction only.
 */
void
lockext_unpin_command(int mark)
{
	int			n = lockext_pin_mark() - mark;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pins)
	{
		Pin		   *pin = dlist_container(Pin, node, iter.cur);
		KeyLock		key;

		if (!pin->command || n-- <= 0)
			continue;
		if (lockext_key_lock_once(&key, &pin->name, LOCKEXT_KEY_GUARD))
			remember_pin(&pin->name, false);
		end_command_pin(pin);
	}
}

/* commit: pins for a command outlast it.  Else all that the (sub)transaction took end. */
static void
forget_pins(bool commit, int level)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &pins)
	{
		Pin		   *pin = dlist_container(Pin, node, iter.cur);

		if (pin->level < level)
			continue;
		if (!pin->command)
			forget_pin(pin);
		else if (!commit)
			end_command_pin(pin);
	}
}

static void
at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
		forget_pins(true, 0);
	else if (event == XACT_EVENT_ABORT)
		forget_pins(false, 0);
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	dlist_iter	iter;

	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget_pins(false, level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		dlist_foreach(iter, &pins)
		{
			Pin		   *pin = dlist_container(Pin, node, iter.cur);

			if (pin->level == level)
				pin->level--;
		}
}

/* ---------- lock_guard() ---------- */

/* Why it is not ours.  row: that of the lock, or NULL. */
static char *
why_lost(const LockName *name, const LockRow *row, int64 token)
{
	Outcome		holder = {.row_valid = true};
	Blocker		transaction;

	if (row == NULL || row->dboid != MyDatabaseId || row->released_at != DT_NOEND)
		return lockext_find_transaction_holder(&name->tag, &transaction)
			? lockext_describe_blocker(&transaction) : "Nobody holds it.";
	if (row->expires_at <= GetCurrentTimestamp() && !is_pinned(name))
		return psprintf("It expired at %s.", timestamptz_to_str(row->expires_at));
	if (!lockext_session_holds(row))
		return "The session that held it is gone.";
	if (token != -1 && token != row->token && has_privs_of_role(GetUserId(), row->owner))
		return "It is held with another token.";
	holder.row = *row;
	return lockext_describe_holder(NULL, &holder);
}

static void
fail_lost(const LockName *name, const LockRow *row, int64 token)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_LOST),
			 errmsg("could not guard %s", lockext_name_display(name)),
			 errdetail_internal("%s", why_lost(name, row, token)),
			 errhint("What was to be done under the lock must not be done now; take it again first.")));
}

/*
 * Raises LK001 unless the lock is ours; pinned tells whether this transaction has
 * found that before and kept it so.
 */
static void
must_be_ours(Oid fn_oid, const LockName *name, int64 token, bool pinned)
{
	LockTable	table;
	LockRow		row;
	bool		found;

	(void) lockext_table_open(&table, fn_oid, AccessShareLock, true);
	(void) lockext_row_find(&table, name, &row, &found);
	if (found)
		lockext_row_must_be_sound(name, &row);
	if (!found ||
		!(pinned ? lockext_is_ours_or_pinned : lockext_is_ours) (name, &row, token))
		fail_lost(name, found ? &row : NULL, token);
	lockext_table_close(&table, false);
}

/*
 * Take KEY for a guard.  With wait it waits, bounded by lock_timeout, for a transaction
 * that ends the lock; else false if there is one.
 */
static bool
lock_key(KeyLock *key, const LockName *name, bool wait)
{
	ErrorContextCallback context = {
		error_context_stack, lockext_wait_context, unconstify(LockName *, name)
	};
	bool		locked;

	error_context_stack = &context;
	locked = wait ? lockext_key_lock(key, name, LOCKEXT_KEY_GUARD, true)
		: lockext_key_lock_to_look(key, name, LOCKEXT_KEY_GUARD);
	error_context_stack = context.previous;
	return locked;
}

/*
 * Pin the lock until the end of the transaction, or of the savepoint.  Raises LK001 if
 * it is not ours; the end of the (sub)transaction then gives KEY back.
 */
static void
pin(Oid fn_oid, const LockName *name, int64 token)
{
	KeyLock		key;

	if (is_pinned(name))
	{
		must_be_ours(fn_oid, name, token, true);
		return;
	}
	if (!lockext_is_claimed(name, token) || !lock_key(&key, name, false))
	{
		must_be_ours(fn_oid, name, token, false);
		(void) lock_key(&key, name, true);
	}
	must_be_ours(fn_oid, name, token, false);
	lockext_key_decided();
	remember_pin(name, false);
}

/* A lock with scope "transaction" is held as long as its transaction lasts anyway. */
static void
must_be_held_by_transaction(const LockName *name, const LockRow *hold, int64 token)
{
	if (!lockext_is_ours(name, hold, token))
		fail_lost(name, hold, token);
}

/* lock_guard(key, token, domain, master); without token the one of lockext.token */
Datum
lockext_guard(PG_FUNCTION_ARGS)
{
	LockName	name;
	int64		token;
	const LockRow *hold;

	lockext_arg_name(fcinfo, 0, 2, 3, &name);
	token = lockext_arg_token(fcinfo, 1);
	if (token == -1)
		token = lockext_presented_token(&name);
	hold = lockext_held_by_transaction(&name);
	if (hold != NULL)
		must_be_held_by_transaction(&name, hold, token);
	else
	{
		lockext_must_be_able_to_lock("lock_guard()");
		pin(fcinfo->flinfo->fn_oid, &name, token);
	}
	PG_RETURN_VOID();
}

/* ---------- what guarded tables and schemas ask ---------- */

/*
 * Is it the lock of a role that this session may act for, whatever function it is in?
 * Tokens can be guessed, being made of the time.
 */
static bool
may_present(const LockRow *row)
{
	return has_privs_of_role(GetSessionUserId(), row->owner) ||
		has_privs_of_role(GetOuterUserId(), row->owner);
}

/* Does the row in the table's slot say that we have the lock? */
static bool
row_is_had(LockTable *table, const LockName *name, const LockRow *row, bool pinned)
{
	if (row->dboid != MyDatabaseId || row->released_at != DT_NOEND ||
		!lockext_session_holds(row))
		return false;
	if (pinned || lockext_row_is_by_me(table))
		return true;			/* nobody can take it before we end */
	return row->expires_at > GetCurrentTimestamp() &&
		((row->scope == LOCKEXT_SCOPE_SESSION && lockext_row_is_mine(name, row)) ||
		 (lockext_presented_token(name) == row->token && may_present(row)));
}

/* What a look at the row found. */
typedef struct Look
{
	bool		had;
	bool		kept;			/* and KEY is kept already, since the row was written */
	const char *why;			/* if not had */
} Look;

static Look
look(Oid fn_oid, const LockName *name, bool pinned)
{
	LockTable	table;
	LockRow		row;
	Look		look = {false};
	bool		found;

	(void) lockext_table_open(&table, fn_oid, AccessShareLock, true);
	(void) lockext_row_find(&table, name, &row, &found);
	if (found)
	{
		lockext_row_must_be_sound(name, &row);
		look.had = row_is_had(&table, name, &row, pinned);
		look.kept = look.had && lockext_row_is_by_me(&table);
	}
	if (!look.had)
		look.why = why_lost(name, found ? &row : NULL, lockext_presented_token(name));
	lockext_table_close(&table, false);
	return look;
}

/*
 * Take KEY and look under it; had: the lock is pinned.  Else KEY is given back.  With
 * wait false it may not be to be had: then the answer is worth nothing, and *locked false.
 */
static Look
look_under_key(Oid fn_oid, const LockName *name, bool wait, bool *locked)
{
	KeyLock		key;
	Look		found = {false};

	*locked = lock_key(&key, name, wait);
	if (!*locked)
		return found;
	found = look(fn_oid, name, false);
	if (found.had)
		remember_pin(name, false);
	else
		lockext_key_give_back(&key);
	lockext_key_decided();
	return found;
}

static bool
guards_are_bypassed(void)
{
	return lockext_bypass_guards[0] != '\0';
}

/*
 * Does this transaction have the lock, as told in the header?  Then it is pinned until
 * the end of the (sub)transaction; else *why says what is the matter.  May wait, bounded
 * by lock_timeout, for a transaction that ends the lock.
 *
 * Nobody else can have changed a lock that is pinned, and this transaction would keep
 * KEY in another mode if it had.
 */
bool
lockext_transaction_has(Oid fn_oid, const LockName *name, const char **why)
{
	bool		pinned = is_pinned(name);
	bool		locked = false;
	Look		found;

	*why = "";
	if (lockext_held_by_transaction(name) != NULL ||
		(pinned && !compat_lock_held_by_me(&name->tag, LOCKEXT_KEY_CHANGE)))
		return true;

	/* whoever bypasses guards may do so because the lock cannot even be looked at */
	if (guards_are_bypassed())
		return false;

	if (!pinned && !lockext_key_is_kept(name) && lockext_is_claimed(name, lockext_presented_token(name)))
		found = look_under_key(fn_oid, name, false, &locked);
	if (!locked)
	{
		found = look(fn_oid, name, pinned);
		if (found.had && !found.kept && !pinned)
			found = look_under_key(fn_oid, name, true, &locked);
	}
	*why = found.why;
	return found.had;
}

/* Log it, but once for all rows of a statement. */
static void
log_bypass(const LockName *name, const char *what)
{
	static TimestampTz last_statement = 0;
	static uint32 last_what = 0;
	TimestampTz statement = GetCurrentStatementStartTimestamp();
	uint32		hash = hash_bytes((const unsigned char *) what, strlen(what));

	if (statement == last_statement && hash == last_what)
		return;
	last_statement = statement;
	last_what = hash;
	ereport(LOG,
			(errmsg("guard bypassed: %s without %s", what, lockext_name_display(name)),
			 errhidestmt(true),
			 errdetail("Role \"%s\" (session role \"%s\"); reason: %s; command: %s",
					   lockext_role_name(GetUserId()), lockext_role_name(GetSessionUserId()),
					   lockext_bypass_guards,
					   debug_query_string == NULL ? "" : debug_query_string)));
}

/*
 * Raises LK002: what, like "write to table t", is not to be done without the lock.
 * Returns if a superuser has bypassed the guards.
 */
void
lockext_refuse_unless_bypassed(const LockName *name, const char *why, const char *what)
{
	if (guards_are_bypassed())
	{
		log_bypass(name, what);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_GUARDED),
			 errmsg("cannot %s without %s", what, lockext_name_display(name)),
			 errdetail_internal("%s", why),
			 errhint("Take the lock in this transaction, or in this session with scope \"session\"; a lock taken elsewhere counts once lock_guard() has pinned it, or with its token in \"lockext.token\".")));
}

void
lockext_must_have(Oid fn_oid, const LockName *name, const char *what)
{
	const char *why;

	if (!lockext_transaction_has(fn_oid, name, &why))
		lockext_refuse_unless_bypassed(name, why, what);
}
