/*
 * rules.c
 *		The rules for the values that callers give, as SQL arguments or as members
 *		of a JSON object, and all messages about them.
 *
 * A bad value is 22023: the message names it, the detail gives the rule, the hint
 * the setting behind the rule, if there is one.  what is the name of the value in
 * messages, as in: argument "key".
 */
#include "postgres.h"

#include "caller.h"
#include "names.h"
#include "result.h"
#include "rules.h"
#include "settings.h"
#include "store.h"

#include "utils/builtins.h"

/* Raises 22023.  shown: the offending value, or NULL where it was null. */
void
lockext_bad_value(const char *what, const char *shown, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 shown == NULL ? errmsg("%s must not be null", what)
			 : errmsg("invalid value for %s: %s", what, shown),
			 detail == NULL ? 0 : errdetail_internal("%s", detail),
			 hint == NULL ? 0 : errhint("%s", hint)));
}

char *
lockext_show_text(const text *t)
{
	return psprintf("\"%s\"", lockext_clip(t));
}

char *
lockext_show_int(int64 n)
{
	return psprintf(INT64_FORMAT, n);
}

/* ^[A-Za-z0-9_-]{1,255}$, bytewise (requirements, decision 3) */
void
lockext_rule_key(const char *what, const text *key)
{
	const char *s = VARDATA_ANY(key);
	int			len = VARSIZE_ANY_EXHDR(key);
	bool		good = len >= 1 && len <= LOCKEXT_MAX_KEY_BYTES;

	for (int i = 0; good && i < len; i++)
		good = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
			(s[i] >= '0' && s[i] <= '9') || s[i] == '_' || s[i] == '-';
	if (!good)
		lockext_bad_value(what, lockext_show_text(key),
						  "A key is 1 to 255 ASCII letters, digits, hyphens and underscores.", NULL);
}

static bool
is_id(const text *id)
{
	return VARSIZE_ANY_EXHDR(id) >= 1 && VARSIZE_ANY_EXHDR(id) <= LOCKEXT_MAX_KEY_BYTES;
}

/* A key or an id. */
void
lockext_rule_any_key(const char *what, const text *key)
{
	if (!is_id(key))
		lockext_rule_key(what, key);
}

/* The key of a lock that is named by an id (requirements, decision 15). */
void
lockext_rule_id(const char *what, const text *id)
{
	if (!is_id(id))
		lockext_bad_value(what, lockext_show_text(id), "An id is 1 to 255 bytes long.", NULL);
}

/* Raises 42501 too, if lockext.domains does not have it. */
void
lockext_rule_domain(const char *what, const text *domain)
{
	if (VARSIZE_ANY_EXHDR(domain) > LOCKEXT_MAX_DOMAIN_BYTES)
		lockext_bad_value(what, lockext_show_text(domain), "A domain is at most 255 bytes long.", NULL);
	if (!lockext_domain_is_allowed(domain))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for domain %s", lockext_show_text(domain)),
				 errhint("The domains that this session may use are set by \"lockext.domains\".")));
}

/*
 * A lifetime in milliseconds, from one in seconds; -1: never ends.  If none is
 * given, lockext.default_timeout stands in (requirements, decision 1), except with
 * scope "transaction", which has no timeout.
 */
int64
lockext_rule_timeout(const char *what, bool given, int64 seconds, char scope)
{
	if (scope == LOCKEXT_SCOPE_TRANSACTION)
	{
		if (given)
			lockext_bad_value(what, lockext_show_int(seconds),
							  "A lock with scope \"transaction\" ends with its transaction and has no timeout.",
							  NULL);
		return -1;
	}

	if (!given)
	{
		if (lockext_default_timeout == -1)
			return -1;
		seconds = lockext_default_timeout;
	}
	if (seconds < 1 || seconds > lockext_max_timeout)
		lockext_bad_value(what, lockext_show_int(seconds),
						  psprintf("A timeout is 1 to %d seconds.", lockext_max_timeout),
						  !given
						  ? "The value comes from \"lockext.default_timeout\"; the longest allowed is set by \"lockext.max_timeout\"."
						  : "The longest timeout allowed is set by \"lockext.max_timeout\".");
	return seconds * 1000;
}

/*
 * The same of one in milliseconds, where -1 says that the lock never ends
 * (requirements, decision 11).
 */
int64
lockext_rule_expiry(const char *what, int64 ms)
{
	int64		longest = (int64) lockext_max_timeout * 1000;

	if (ms != -1 && (ms < 1 || ms > longest))
		lockext_bad_value(what, lockext_show_int(ms),
						  psprintf("It is 1 to " INT64_FORMAT " milliseconds, or -1 for a lock that never expires.", longest),
						  "The longest lifetime allowed is set by \"lockext.max_timeout\".");
	return ms;
}

int64
lockext_rule_token(const char *what, int64 token)
{
	if (token < 1 || token > LOCKEXT_MAX_TOKEN)
		lockext_bad_value(what, lockext_show_int(token),
						  "A token is a number from 1 to 2^53 - 1.", NULL);
	return token;
}

static bool
is_word(const text *t, const char *word)
{
	return VARSIZE_ANY_EXHDR(t) == strlen(word) &&
		memcmp(VARDATA_ANY(t), word, strlen(word)) == 0;
}

/* The scope as rows have it. */
char
lockext_rule_scope(const char *what, const text *scope)
{
	static const char scopes[] = {
		LOCKEXT_SCOPE_LEASE, LOCKEXT_SCOPE_SESSION, LOCKEXT_SCOPE_TRANSACTION
	};

	for (int i = 0; i < lengthof(scopes); i++)
		if (is_word(scope, lockext_scope_name(scopes[i])))
			return scopes[i];
	lockext_bad_value(what, lockext_show_text(scope),
					  "A scope is \"lease\", \"session\" or \"transaction\".", NULL);
}

/* How long to wait, in milliseconds; 0: not at all, -1: without limit. */
int64
lockext_rule_wait(const char *what, int64 ms)
{
	if (ms < -1 || ms > PG_INT32_MAX)
		lockext_bad_value(what, lockext_show_int(ms),
						  "It is a number of milliseconds up to 2147483647; 0 does not wait, -1 waits without limit.", NULL);
	return ms;
}

void
lockext_rule_label(const char *what, const text *label)
{
	if (VARSIZE_ANY_EXHDR(label) < 1 || VARSIZE_ANY_EXHDR(label) > LOCKEXT_MAX_LABEL_BYTES)
		lockext_bad_value(what, lockext_show_text(label),
						  "It is 1 to 255 bytes long, or null to have it found.", NULL);
}

void
lockext_rule_data(const char *what, const Jsonb *data)
{
	if (VARSIZE(data) > LOCKEXT_MAX_DATA_BYTES)
		lockext_bad_value(what, psprintf("%zu bytes of jsonb", (size_t) VARSIZE(data)),
						  "A lock's data is at most 1024 bytes of jsonb.", NULL);
}
