/*
 * settings.c
 *		The lockext.* configuration parameters: names, units, bounds.
 *
 * What the worker reads is SIGHUP, what bounds other users is SUSET, what
 * concerns the caller alone is USERSET.
 */
#include "postgres.h"

#include "compat.h"
#include "presented.h"
#include "settings.h"

#include <limits.h>

#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

int			lockext_max_timeout = 3600;
int			lockext_default_timeout = -1;
int			lockext_naptime = 1000;
int			lockext_retention = 60;
int			lockext_max_keys = 1000;
bool		lockext_log_waits = false;
int			lockext_default_wait = 0;
int			lockext_default_expiry = -1;
char	   *lockext_bypass_guards = NULL;

/* lockext.domains as it was set, and taken apart. */
#define ALL_DOMAINS "*"

typedef struct Domains
{
	bool		all;
	size_t		size;			/* of names, in bytes */
	char		names[FLEXIBLE_ARRAY_MEMBER];	/* each with its '\0' */
} Domains;

static char *domains_string = NULL;
static const Domains *domains = NULL;
static int	domains_assigned = 0;

/* Is one of the elements ALL_DOMAINS?  In quotes that is the name of a domain. */
static bool
has_all_domains(const char *list)
{
	bool		quoted = false;

	for (const char *s = list; *s != '\0'; s++)
	{
		if (*s == '"')
			quoted = !quoted;
		else if (!quoted && *s == ALL_DOMAINS[0] &&
				 (s == list || strchr(", \t\n", s[-1]) != NULL) &&
				 strchr(", \t\n", s[1]) != NULL)
			return true;
	}
	return false;
}

/* Take the list apart; the result is to be freed by the caller of the hook. */
static bool
check_domains(char **newval, void **extra, GucSource source)
{
	char	   *raw = pstrdup(*newval);
	List	   *list = NIL;
	ListCell   *lc;
	Domains    *new;
	char	   *end;
	bool		all;

	if (!SplitGUCList(raw, ',', &list))
	{
		GUC_check_errdetail("List syntax is invalid.");
		return false;
	}
	all = has_all_domains(*newval);
	if (all && list_length(list) > 1)
	{
		GUC_check_errdetail("* stands for all domains, and alone.");
		return false;
	}
	/* no name takes more room there than with a separator in the list */
	new = compat_guc_malloc(offsetof(Domains, names) + strlen(*newval) + 1);
	if (new == NULL)
		return false;
	new->all = all;
	end = new->names;
	foreach(lc, list)
		end = stpcpy(end, lfirst(lc)) + 1;
	new->size = end - new->names;
	list_free(list);
	pfree(raw);
	*extra = new;
	return true;
}

static void
assign_domains(const char *newval, void *extra)
{
	domains = extra;
	domains_assigned++;
}

/* May this session use locks of the domain? */
bool
lockext_domain_is_allowed(const text *domain)
{
	size_t		len = VARSIZE_ANY_EXHDR(domain);

	if (domains->all)
		return true;
	for (const char *name = domains->names;
		 name < domains->names + domains->size;
		 name += strlen(name) + 1)
	{
		if (strlen(name) == len && memcmp(name, VARDATA_ANY(domain), len) == 0)
			return true;
	}
	return false;
}

/* The reason goes to the log, and "on" is none. */
static bool
check_bypass_guards(char **newval, void **extra, GucSource source)
{
	bool		word;

	if (**newval == '\0' || !parse_bool(*newval, &word))
		return true;
	GUC_check_errdetail("The value is the reason why guards are bypassed; the empty string bypasses none.");
	return false;
}

static bool
check_default_expiry(int *newval, void **extra, GucSource source)
{
	if (*newval != 0)
		return true;
	GUC_check_errdetail("A lock lives for at least one millisecond; -1 means without end.");
	return false;
}

static bool
check_default_timeout(int *newval, void **extra, GucSource source)
{
	if (*newval != 0)
		return true;
	GUC_check_errdetail("A lock lives for at least one second; -1 means without end.");
	return false;
}

/*
 * If the library comes late, a value given by the client when it connected has taken
 * the place of one that a superuser set for the role, and is refused now: PostgreSQL
 * goes back to the default then.  That must not be more than the role was to have, so
 * that it may use nothing.
 */
static void
define_domains(void)
{
	bool		was_given = GetConfigOption("lockext.domains", true, false) != NULL;

	DefineCustomStringVariable("lockext.domains",
							   "Domains whose locks the session may use.",
							   "A list, separated by commas; * stands for all.",
							   &domains_string,
							   ALL_DOMAINS,
							   PGC_SUSET, GUC_LIST_INPUT,
							   check_domains, assign_domains, NULL);
	if (was_given && domains_assigned == 1)
		SetConfigOption("lockext.domains", "", PGC_SUSET, PGC_S_OVERRIDE);
}

void
lockext_settings_init(void)
{
	DefineCustomIntVariable("lockext.max_timeout",
							"Longest timeout a lock may be given.",
							NULL,
							&lockext_max_timeout,
							3600, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("lockext.default_timeout",
							"Timeout of a lock whose timeout argument is null or omitted.",
							"-1 means that such a lock never expires.",
							&lockext_default_timeout,
							-1, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_S,
							check_default_timeout, NULL, NULL);

	DefineCustomIntVariable("lockext.default_wait",
							"How long lock_event() waits for a lock if its parameters do not say.",
							"-1 means without limit.",
							&lockext_default_wait,
							0, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("lockext.default_expiry",
							"How long a lock of lock_event() lives if its parameters do not say.",
							"-1 means that it never expires.",
							&lockext_default_expiry,
							-1, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							check_default_expiry, NULL, NULL);

	define_domains();

	DefineCustomIntVariable("lockext.naptime",
							"Shortest time between two looks of the worker at one database.",
							NULL,
							&lockext_naptime,
							1000, 10, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomIntVariable("lockext.retention",
							"How long the row of a released or expired lock is kept before the worker removes it.",
							"The worker never removes a row that became idle less than lockext.naptime ago.",
							&lockext_retention,
							60, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("lockext.max_keys_per_transaction",
							"Most keys one transaction may acquire, renew or release.",
							"Each takes a slot of the server's shared lock table until the transaction ends.",
							&lockext_max_keys,
							1000, 1, INT_MAX / 2,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("lockext.log_waits",
							 "Logs waits for a lock that last longer than deadlock_timeout.",
							 NULL,
							 &lockext_log_waits,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("lockext.bypass_guards",
							   "Reason for passing guarded tables and schemas without their locks.",
							   "Each use is logged.  The empty string bypasses no guard.",
							   &lockext_bypass_guards,
							   "",
							   PGC_SUSET, 0,
							   check_bypass_guards, NULL, NULL);

	lockext_presented_init();

	MarkGUCPrefixReserved("lockext");
}

/*
 * How long, in microseconds, a row must have been idle before the worker may
 * remove it.
 */
int64
lockext_idle_us(void)
{
	return Max((int64) lockext_retention * USECS_PER_SEC,
			   (int64) lockext_naptime * INT64CONST(1000));
}
