/*
 * presented.c
 *		Tokens that a session presents for all it does: the setting lockext.token.
 *
 * A list of [domain/]key=token.  It is for programs whose SQL cannot be changed, and
 * can come with the connection, so that guards find the token of whoever writes
 * without a call of lock_guard().  The master lock of a domain has the empty key, with the
 * slash before it.
 */
#include "postgres.h"

#include "compat.h"
#include "presented.h"
#include "settings.h"
#include "store.h"

#include <ctype.h>

#include "nodes/pg_list.h"
#include "utils/guc.h"
#include "utils/varlena.h"

/* A token and the name it is for, in Tokens.text. */
typedef struct Token
{
	int64		token;
	size_t		domain;			/* where it begins */
	size_t		domain_len;
	size_t		key;
	size_t		key_len;
} Token;

typedef struct Tokens
{
	int			n;
	Token		tokens[FLEXIBLE_ARRAY_MEMBER];	/* the text follows */
} Tokens;

static char *tokens_string = NULL;
static const Tokens *tokens = NULL;

static const char *
text_of(const Tokens *list)
{
	return (const char *) &list->tokens[list->n];
}

static bool
bytes_equal(const text *t, const char *s, size_t len)
{
	return VARSIZE_ANY_EXHDR(t) == len && memcmp(VARDATA_ANY(t), s, len) == 0;
}

/* Take apart [domain/]key=token, which stands at the given place of the text. */
static bool
read_token(const char *element, size_t at, Token *token)
{
	const char *equals = strrchr(element, '=');
	const char *slash = NULL;
	char	   *end;

	if (equals == NULL || !isdigit((unsigned char) equals[1]))
		return false;
	errno = 0;
	token->token = strtoll(equals + 1, &end, 10);
	if (errno != 0 || *end != '\0' || token->token < 1 || token->token > LOCKEXT_MAX_TOKEN)
		return false;

	for (const char *s = element; s < equals; s++)
		if (*s == '/')
			slash = s;
	token->domain = at;
	token->domain_len = slash == NULL ? 0 : slash - element;
	token->key = slash == NULL ? at : at + (slash + 1 - element);
	token->key_len = equals - (slash == NULL ? element : slash + 1);
	return token->domain_len <= LOCKEXT_MAX_DOMAIN_BYTES &&
		token->key_len <= LOCKEXT_MAX_KEY_BYTES &&
		(slash != NULL || token->key_len > 0);
}

/* The list taken apart, in memory that the caller's setting owns; NULL if it can't be. */
static Tokens *
read_tokens(List *elements, size_t length)
{
	Tokens	   *new = compat_guc_malloc(offsetof(Tokens, tokens) +
										list_length(elements) * sizeof(Token) + length);
	char	   *end;
	ListCell   *lc;

	if (new == NULL)
		return NULL;
	new->n = list_length(elements);
	end = unconstify(char *, text_of(new));
	foreach(lc, elements)
	{
		const char *element = lfirst(lc);

		if (!read_token(element, end - text_of(new), &new->tokens[foreach_current_index(lc)]))
		{
			compat_guc_free(new);
			GUC_check_errdetail("\"%s\" is not of the form [domain/]key=token.", element);
			return NULL;
		}
		end = stpcpy(end, element) + 1;
	}
	return new;
}

static bool
check_tokens(char **newval, void **extra, GucSource source)
{
	char	   *raw = pstrdup(*newval);
	List	   *elements = NIL;

	if (!SplitGUCList(raw, ',', &elements))
	{
		GUC_check_errdetail("List syntax is invalid.");
		return false;
	}
	/* no element takes more room alone than with a separator in the list */
	*extra = read_tokens(elements, strlen(*newval) + 1);
	list_free(elements);
	pfree(raw);
	return *extra != NULL;
}

static void
assign_tokens(const char *newval, void *extra)
{
	tokens = extra;
}

/*
 * The token that this session presents for the lock, or -1; none for a domain that
 * it may not use.  Of two for one lock the last counts.
 */
int64
lockext_presented_token(const LockName *name)
{
	if (tokens == NULL)
		return -1;
	for (int i = tokens->n - 1; i >= 0; i--)
	{
		const Token *token = &tokens->tokens[i];

		if (bytes_equal(name->key, text_of(tokens) + token->key, token->key_len) &&
			bytes_equal(name->domain, text_of(tokens) + token->domain, token->domain_len))
			return lockext_domain_is_allowed(name->domain) ? token->token : -1;
	}
	return -1;
}

void
lockext_presented_init(void)
{
	DefineCustomStringVariable("lockext.token",
							   "Tokens of locks that the session presents to guards.",
							   "A list of [domain/]key=token, separated by commas.",
							   &tokens_string,
							   "",
							   PGC_USERSET, GUC_LIST_INPUT,
							   check_tokens, assign_tokens, NULL);
}
