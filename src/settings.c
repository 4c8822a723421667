/*
 * settings.c
 *		The lockext.* configuration parameters: names, units, bounds.
 *
 * What the worker reads is SIGHUP, what bounds other users is SUSET, what
 * concerns the caller alone is USERSET.
 */
#include "postgres.h"

#include "settings.h"

#include <limits.h>

#include "utils/guc.h"

int			lockext_max_timeout = 3600;
int			lockext_default_timeout = -1;
int			lockext_naptime = 1000;
int			lockext_retention = 60;
int			lockext_max_keys = 1000;
bool		lockext_log_waits = false;

static bool
check_default_timeout(int *newval, void **extra, GucSource source)
{
	if (*newval != 0)
		return true;
	GUC_check_errdetail("A lock lives for at least one second; -1 means without end.");
	return false;
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
