/*
 * caller.c
 *		Who calls: the label and the client of a new lock.
 *
 * The label is the name of the innermost function on the call stack.  The only
 * record of that stack which all procedural languages share is the chain of
 * error context callbacks: each describes its own level in a sentence such as
 *		PL/pgSQL function app.migrate(integer) line 3 at PERFORM
 *		SQL function "migrate" statement 1
 *		PL/Python function "migrate"
 * Every callback is run alone, so that a line break in a quoted statement can't
 * pass for a level of its own, and in the C locale, since the sentences are
 * translated otherwise.
 */
#include "postgres.h"

#include "caller.h"

#include <locale.h>

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"

static char *innermost_function(void);
static char *describe_level(ErrorContextCallback *level);
static char *function_name(char *description);

/*
 * The calling function, else application_name, else "unknown"; at most
 * LOCKEXT_MAX_LABEL_BYTES long.  A label only, not part of a lock's identity.
 */
text *
lockext_caller_label(void)
{
	char	   *label = innermost_function();
	int			len;

	if (label == NULL && application_name != NULL && application_name[0] != '\0')
		label = application_name;
	if (label == NULL)
		label = "unknown";

	len = strlen(label);
	if (len > LOCKEXT_MAX_LABEL_BYTES)
		len = pg_mbcliplen(label, len, LOCKEXT_MAX_LABEL_BYTES);
	return cstring_to_text_with_len(label, len);
}

/* inet_client_addr(); NULL over a unix socket and in background processes. */
inet *
lockext_client_addr(void)
{
	static inet *address = NULL;
	static bool known = false;

	if (!known)
	{
		LOCAL_FCINFO(fcinfo, 0);
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		Datum		result;

		InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
		result = inet_client_addr(fcinfo);
		if (!fcinfo->isnull)
			address = DatumGetInetPP(result);
		MemoryContextSwitchTo(old);
		known = true;
	}
	return address;
}

static char *
innermost_function(void)
{
	for (ErrorContextCallback *level = error_context_stack;
		 level != NULL;
		 level = level->previous)
	{
		char	   *description = describe_level(level);
		char	   *name = description == NULL ? NULL : function_name(description);

		if (name != NULL)
			return name;
	}
	return NULL;
}

static locale_t
c_messages(void)
{
	static locale_t c = (locale_t) 0;

	if (c == (locale_t) 0)
		c = newlocale(LC_ALL_MASK, "C", (locale_t) 0);
	return c;
}

/* What one level of the stack says of itself, untranslated; NULL for nothing. */
static char *
describe_level(ErrorContextCallback *level)
{
	ErrorContextCallback alone = *level;
	ErrorContextCallback *stack = error_context_stack;
	locale_t	locale = c_messages();
	locale_t	before;
	char	   *description = NULL;

	if (locale == (locale_t) 0)
		return NULL;

	alone.previous = NULL;
	before = uselocale(locale);
	PG_TRY();
	{
		error_context_stack = &alone;
		description = GetErrorContextStack();
	}
	PG_FINALLY();
	{
		error_context_stack = stack;
		uselocale(before);
	}
	PG_END_TRY();
	return description;
}

/* The last part of a possibly qualified and quoted name that ends at '('. */
static char *
name_in_signature(char *s)
{
	StringInfoData name;
	bool		quoted = false;

	initStringInfo(&name);
	for (; *s != '\0'; s++)
	{
		if (*s == '"' && quoted && s[1] == '"')
			appendStringInfoChar(&name, *s++);
		else if (*s == '"')
			quoted = !quoted;
		else if (*s == '.' && !quoted)
			resetStringInfo(&name);
		else if (*s == '(' && !quoted)
			return name.data;
		else
			appendStringInfoChar(&name, *s);
	}
	return NULL;				/* a DO block has no signature */
}

/*
 * The name in a sentence '<language> function <name or signature> ...', or
 * NULL if the sentence is of another kind.
 */
static char *
function_name(char *description)
{
	static const char *const kinds[] = {" function ", " procedure "};
	char	   *space = strchr(description, ' ');

	if (space == NULL ||
		(strncmp(description, "PL/", 3) != 0 && strncmp(description, "SQL ", 4) != 0))
		return NULL;

	for (int i = 0; i < lengthof(kinds); i++)
	{
		char	   *name = space + strlen(kinds[i]);
		char	   *end;

		if (strncmp(space, kinds[i], strlen(kinds[i])) != 0)
			continue;

		/* PL/pgSQL gives a signature with SQL's quotes, the others "name" */
		if (strncmp(description, "PL/pgSQL ", 9) == 0)
			return name_in_signature(name);
		if (*name != '"')
			return NULL;

		/* the name is not escaped, but no quote comes after it */
		end = strrchr(name + 1, '"');
		return end == NULL ? NULL : pnstrdup(name + 1, end - name - 1);
	}
	return NULL;
}
