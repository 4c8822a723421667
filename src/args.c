/*
 * args.c
 *		Reading the arguments of SQL functions.
 *
 * What they must be is in rules.c.
 */
#include "postgres.h"

#include "args.h"
#include "caller.h"
#include "rules.h"
#include "store.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#define ARGUMENT(name) "argument \"" name "\""

static void
read_name(FunctionCallInfo fcinfo, int key, int domain, int master,
		  void (*rule) (const char *what, const text *key), LockName *name)
{
	text	   *d;
	text	   *k;

	if (master != LOCKEXT_NO_ARG && PG_ARGISNULL(master))
		lockext_bad_value(ARGUMENT("master"), NULL, NULL, NULL);
	if (PG_ARGISNULL(domain))
		lockext_bad_value(ARGUMENT("domain"), NULL, "The default domain is the empty string.", NULL);
	d = PG_GETARG_TEXT_PP(domain);
	lockext_rule_domain(ARGUMENT("domain"), d);

	if (master != LOCKEXT_NO_ARG && PG_GETARG_BOOL(master))
		k = cstring_to_text("");
	else
	{
		if (PG_ARGISNULL(key))
			lockext_bad_value(ARGUMENT("key"), NULL, NULL,
							  master == LOCKEXT_NO_ARG ? NULL
							  : "A domain's master lock is taken with master => true.");
		k = PG_GETARG_TEXT_PP(key);
		rule(ARGUMENT("key"), k);
	}
	lockext_name_set(name, d, k);
}

/*
 * The lock named by the arguments at these positions; master may be LOCKEXT_NO_ARG.  With master the key is
 * neither needed nor read (requirements, decision 13).
 */
void
lockext_arg_name(FunctionCallInfo fcinfo, int key, int domain, int master, LockName *name)
{
	read_name(fcinfo, key, domain, master, lockext_rule_key, name);
}

/* The same where the key may also be one that lock_event() made from an id. */
void
lockext_arg_any_name(FunctionCallInfo fcinfo, int key, int domain, int master, LockName *name)
{
	read_name(fcinfo, key, domain, master, lockext_rule_any_key, name);
}

/* A lifetime in milliseconds, from an argument in seconds; -1: never ends. */
int64
lockext_arg_timeout(FunctionCallInfo fcinfo, int n, char scope)
{
	bool		given = !PG_ARGISNULL(n);

	return lockext_rule_timeout(ARGUMENT("timeout"), given,
								given ? PG_GETARG_INT32(n) : 0, scope);
}

/* A token, or -1 if none is given. */
int64
lockext_arg_token(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? -1
		: lockext_rule_token(ARGUMENT("token"), PG_GETARG_INT64(n));
}

char
lockext_arg_scope(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		lockext_bad_value(ARGUMENT("scope"), NULL, NULL, NULL);
	return lockext_rule_scope(ARGUMENT("scope"), PG_GETARG_TEXT_PP(n));
}

/* The same for a call that begins a transaction of its own. */
char
lockext_arg_outlasting_scope(FunctionCallInfo fcinfo, int n)
{
	char		scope = lockext_arg_scope(fcinfo, n);

	if (scope == LOCKEXT_SCOPE_TRANSACTION)
		lockext_bad_value(ARGUMENT("scope"), "\"transaction\"",
						  "lock_acquire_wait() ends the current transaction before it waits; its scope is \"lease\" or \"session\".",
						  "Use lock_acquire().");
	return scope;
}

/* How long to wait, in milliseconds; 0: not at all, -1: without limit. */
int64
lockext_arg_wait(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		lockext_bad_value(ARGUMENT("wait_ms"), NULL, NULL, NULL);
	return lockext_rule_wait(ARGUMENT("wait_ms"), PG_GETARG_INT32(n));
}

/* The label of a lock: the argument, or found on the call stack. */
text *
lockext_arg_calling_fn(FunctionCallInfo fcinfo, int n)
{
	text	   *label;

	if (PG_ARGISNULL(n))
		return lockext_caller_label();
	label = PG_GETARG_TEXT_PP(n);
	lockext_rule_label(ARGUMENT("calling_fn"), label);
	return label;
}

/* What the holder wants others to see with the lock; NULL if nothing. */
Jsonb *
lockext_arg_data(FunctionCallInfo fcinfo, int n)
{
	Jsonb	   *data;

	if (PG_ARGISNULL(n))
		return NULL;
	data = PG_GETARG_JSONB_P(n);
	lockext_rule_data(ARGUMENT("data"), data);
	return data;
}

/* 25006 in a read-only transaction and on a standby. */
void
lockext_must_be_able_to_write(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
}

/* The same for what changes no table: 25006 on a standby. */
void
lockext_must_be_able_to_lock(const char *function)
{
	PreventCommandIfParallelMode(function);
	PreventCommandDuringRecovery(function);
}
