/*
 * refused.c
 *		Who held the locks that this session was refused.
 *
 * An entry of seen.c says that a lock is held, but not by whom.  A session that has
 * looked at the row remembers what it saw together with the entry: as long as the
 * same entry is there, the row has not changed, so that another refusal needs neither
 * a look nor a new description of the holder.
 *
 * That description has the name of a role, so all of it is forgotten when roles change.
 */
#include "postgres.h"

#include "refused.h"

#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/*
 * Places for so many locks, each with one that is given by its entry's place: two that
 * share one take it from each other.
 */
#define REMEMBERED 16

typedef struct Refusal
{
	bool		valid;
	SeenEntry	entry;
	LockRow		row;			/* as lockext_outcome_row() leaves it */
	Jsonb	   *holder;
	char	   *memory;			/* of what these point to, or NULL */
} Refusal;

static Refusal refusals[REMEMBERED];

static void
forget_all(Datum arg, int cacheid, uint32 hashvalue)
{
	for (int i = 0; i < REMEMBERED; i++)
		refusals[i].valid = false;
}

void
lockext_refused_init(void)
{
	CacheRegisterSyscacheCallback(AUTHOID, forget_all, (Datum) 0);
}

static Refusal *
place_of(const SeenEntry *entry)
{
	return &refusals[entry->place % REMEMBERED];
}

/*
 * Has this session been refused the lock since that entry was written?  Then the
 * outcome is the same now; it lasts until the session remembers another refusal.
 */
bool
lockext_refused_before(const SeenEntry *entry, Outcome *outcome)
{
	const Refusal *known = place_of(entry);

	AcceptInvalidationMessages();
	if (!known->valid || !lockext_seen_is_same(&known->entry, entry))
		return false;
	memset(outcome, 0, sizeof(*outcome));
	outcome->reason = LOCKEXT_REASON_HELD;
	outcome->row = known->row;
	outcome->row_valid = true;
	outcome->holder = known->holder;
	return true;
}

/* Copy a value to *to, which moves on. */
static void *
keep(char **to, const void *value)
{
	char	   *copy = *to;

	memcpy(copy, value, VARSIZE_ANY(value));
	*to += MAXALIGN(VARSIZE_ANY(value));
	return copy;
}

/*
 * The lock is held, as a look has shown after that entry was read.  If the entry was gone
 * by then, what is remembered is never used: there will be no other one like it.  The
 * outcome gets its holder as jsonb, for who needs that.
 */
void
lockext_refused_remember(const SeenEntry *entry, Outcome *outcome)
{
	Refusal    *known = place_of(entry);
	const LockRow *row = &outcome->row;
	Jsonb	   *holder = lockext_holder(outcome);
	char	   *memory = MemoryContextAlloc(TopMemoryContext,
											MAXALIGN(VARSIZE_ANY(row->calling_fn)) +
											MAXALIGN(VARSIZE_ANY(row->application_name)) +
											MAXALIGN(VARSIZE_ANY(holder)));
	char	   *to = memory;

	if (known->memory != NULL)
		pfree(known->memory);
	known->memory = memory;
	known->entry = *entry;
	known->row = *row;
	known->row.calling_fn = keep(&to, row->calling_fn);
	known->row.application_name = keep(&to, row->application_name);
	known->holder = keep(&to, holder);
	known->valid = true;
	outcome->holder = holder;
}
