/*
 * args.c
 *		Reading and checking the arguments of SQL functions.
 *
 * All rules about arguments and all messages about them are here.  A bad
 * argument is 22023: the message names it, the detail gives the rule, the hint
 * the setting behind the rule, if there is one.
 */
#include "postgres.h"

#include "args.h"
#include "caller.h"
#include "result.h"
#include "settings.h"
#include "store.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

/* shown: the offending value, or NULL where it was null */
static void
bad_argument(const char *name, const char *shown, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 shown == NULL ? errmsg("argument \"%s\" must not be null", name)
			 : errmsg("invalid value for argument \"%s\": %s", name, shown),
			 detail == NULL ? 0 : errdetail_internal("%s", detail),
			 hint == NULL ? 0 : errhint("%s", hint)));
}

static char *
show_text(const text *t)
{
	return psprintf("\"%s\"", lockext_clip(t));
}

static char *
show_int(int64 n)
{
	return psprintf(INT64_FORMAT, n);
}

/* ^[A-Za-z0-9_-]{1,255}$, bytewise (requirements, decision 3) */
static void
check_key(const text *key)
{
	const char *s = VARDATA_ANY(key);
	int			len = VARSIZE_ANY_EXHDR(key);
	bool		good = len >= 1 && len <= LOCKEXT_MAX_KEY_BYTES;

	for (int i = 0; good && i < len; i++)
		good = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
			(s[i] >= '0' && s[i] <= '9') || s[i] == '_' || s[i] == '-';
	if (!good)
		bad_argument("key", show_text(key),
					 "A key is 1 to 255 ASCII letters, digits, hyphens and underscores.", NULL);
}

/*
 * The lock named by the arguments at these positions.  With master the key is
 * neither needed nor read (requirements, decision 13).
 */
void
lockext_arg_name(FunctionCallInfo fcinfo, int key, int domain, int master, LockName *name)
{
	text	   *d;
	text	   *k;

	if (PG_ARGISNULL(master))
		bad_argument("master", NULL, NULL, NULL);
	if (PG_ARGISNULL(domain))
		bad_argument("domain", NULL, "The default domain is the empty string.", NULL);
	d = PG_GETARG_TEXT_PP(domain);
	if (VARSIZE_ANY_EXHDR(d) > LOCKEXT_MAX_DOMAIN_BYTES)
		bad_argument("domain", show_text(d), "A domain is at most 255 bytes long.", NULL);

	if (PG_GETARG_BOOL(master))
		k = cstring_to_text("");
	else
	{
		if (PG_ARGISNULL(key))
			bad_argument("key", NULL, NULL, "A domain's master lock is taken with master => true.");
		k = PG_GETARG_TEXT_PP(key);
		check_key(k);
	}
	lockext_name_set(name, d, k);
}

/*
 * A lifetime in milliseconds, from an argument in seconds; -1: never ends.
 * Null stands for lockext.default_timeout (requirements, decision 1), except
 * with scope "transaction", which has no timeout.
 */
int64
lockext_arg_timeout(FunctionCallInfo fcinfo, int n, char scope)
{
	int32		seconds;

	if (scope == LOCKEXT_SCOPE_TRANSACTION)
	{
		if (!PG_ARGISNULL(n))
			bad_argument("timeout", show_int(PG_GETARG_INT32(n)),
						 "A lock with scope \"transaction\" ends with its transaction and has no timeout.",
						 NULL);
		return -1;
	}

	if (!PG_ARGISNULL(n))
		seconds = PG_GETARG_INT32(n);
	else if (lockext_default_timeout == -1)
		return -1;
	else
		seconds = lockext_default_timeout;

	if (seconds < 1 || seconds > lockext_max_timeout)
		bad_argument("timeout", show_int(seconds),
					 psprintf("A timeout is 1 to %d seconds.", lockext_max_timeout),
					 PG_ARGISNULL(n)
					 ? "The value comes from \"lockext.default_timeout\"; the longest allowed is set by \"lockext.max_timeout\"."
					 : "The longest timeout allowed is set by \"lockext.max_timeout\".");
	return (int64) seconds * 1000;
}

/* A token, or -1 if none is given. */
int64
lockext_arg_token(FunctionCallInfo fcinfo, int n)
{
	int64		token;

	if (PG_ARGISNULL(n))
		return -1;
	token = PG_GETARG_INT64(n);
	if (token < 1 || token > LOCKEXT_MAX_TOKEN)
		bad_argument("token", show_int(token), "A token is a number from 1 to 2^53 - 1.", NULL);
	return token;
}

static bool
is_word(const text *t, const char *word)
{
	return VARSIZE_ANY_EXHDR(t) == strlen(word) &&
		memcmp(VARDATA_ANY(t), word, strlen(word)) == 0;
}

/* The scope as rows have it, or 0. */
static char
find_scope(const text *scope)
{
	static const char scopes[] = {
		LOCKEXT_SCOPE_LEASE, LOCKEXT_SCOPE_SESSION, LOCKEXT_SCOPE_TRANSACTION
	};

	for (int i = 0; i < lengthof(scopes); i++)
		if (is_word(scope, lockext_scope_name(scopes[i])))
			return scopes[i];
	return 0;
}

char
lockext_arg_scope(FunctionCallInfo fcinfo, int n)
{
	char		scope;

	if (PG_ARGISNULL(n))
		bad_argument("scope", NULL, NULL, NULL);
	scope = find_scope(PG_GETARG_TEXT_PP(n));
	if (scope == 0)
		bad_argument("scope", show_text(PG_GETARG_TEXT_PP(n)),
					 "A scope is \"lease\", \"session\" or \"transaction\".", NULL);
	return scope;
}

/* The same for a call that begins a transaction of its own. */
char
lockext_arg_outlasting_scope(FunctionCallInfo fcinfo, int n)
{
	char		scope = lockext_arg_scope(fcinfo, n);

	if (scope == LOCKEXT_SCOPE_TRANSACTION)
		bad_argument("scope", "\"transaction\"",
					 "lock_acquire_wait() ends the current transaction before it waits; its scope is \"lease\" or \"session\".",
					 "Use lock_acquire().");
	return scope;
}

/* How long to wait, in milliseconds; 0: not at all, -1: without limit. */
int64
lockext_arg_wait(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		bad_argument("wait_ms", NULL, NULL, NULL);
	if (PG_GETARG_INT32(n) < -1)
		bad_argument("wait_ms", show_int(PG_GETARG_INT32(n)),
					 "It is a number of milliseconds; 0 does not wait, -1 waits without limit.", NULL);
	return PG_GETARG_INT32(n);
}

/* The label of a lock: the argument, or found on the call stack. */
text *
lockext_arg_calling_fn(FunctionCallInfo fcinfo, int n)
{
	text	   *label;

	if (PG_ARGISNULL(n))
		return lockext_caller_label();
	label = PG_GETARG_TEXT_PP(n);
	if (VARSIZE_ANY_EXHDR(label) < 1 || VARSIZE_ANY_EXHDR(label) > LOCKEXT_MAX_LABEL_BYTES)
		bad_argument("calling_fn", show_text(label),
					 "It is 1 to 255 bytes long, or null to have it found.", NULL);
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
	if (VARSIZE(data) > LOCKEXT_MAX_DATA_BYTES)
		bad_argument("data", psprintf("%zu bytes of jsonb", (size_t) VARSIZE(data)),
					 "A lock's data is at most 1024 bytes of jsonb.", NULL);
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
