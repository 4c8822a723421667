/*
 * token.c
 *		Fencing tokens: what makes each greater than all before it.
 */
#include "postgres.h"

#include "keylock.h"
#include "shared.h"
#include "token.h"

#include "access/tableam.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * The lock table whose floor the shared clock has passed.  It stays behind, as it is
 * told of each rise.
 */
static Oid	passed_relid = InvalidOid;

/*
 * The floor, or 0 if the shared clock has passed it.  False if the index cannot be
 * locked without waiting.
 */
static bool
token_floor(LockTable *table, int64 *floor)
{
	LockName	name;
	LockTable	other = *table;
	LockRow		row;
	bool		done;
	bool		found;

	*floor = 0;
	if (passed_relid == RelationGetRelid(table->rel))
		return true;

	/* a slot of its own: the table's may hold the row to be changed */
	lockext_floor_name(&name);
	other.slot = table_slot_create(table->rel, NULL);
	done = lockext_row_find(&other, &name, &row, &found);
	if (done && found)
		lockext_row_must_be_sound(&name, &row);
	ExecDropSingleTupleTableSlot(other.slot);
	if (!done)
		return false;
	if (found)
		*floor = row.token;
	if (lockext_shared_ready())
	{
		lockext_shared_clock_passed(*floor);
		passed_relid = RelationGetRelid(table->rel);
	}
	return true;
}

static int64
token_after(int64 last, TimestampTz now)
{
	int64		clock = lockext_shared_clock(now);	/* each call takes one */
	int64		token = Max(last + 1, clock);

	if (token >= LOCKEXT_MAX_TOKEN)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("no fencing token is left below 2^53"),
				 errhint("The server's clock is set to a year after 2285.")));
	return token;
}

/*
 * The token of a new acquisition: greater than every earlier one of this name.
 * old is the name's row, or NULL if it has none; then the greatest token ever
 * removed stands in.  The caller holds KEY.  False if the floor cannot be read
 * without waiting (as when the table was opened).
 *
 * Tokens are microseconds since 2000-01-01, so they also rise where the row
 * and the floor are gone (DROP EXTENSION, restore, promotion of a standby that
 * lagged), and past acquisitions that have no row (scope "transaction"), as long
 * as the clock was not set back meanwhile.
 */
bool
lockext_next_token(LockTable *table, const LockRow *old, TimestampTz now, int64 *token)
{
	int64		last = 0;

	if ((old == NULL || old->damage != NULL) && !token_floor(table, &last))
	{
		lockext_table_refused(table, table->rel->rd_pkindex, AccessShareLock);
		return false;
	}
	if (old != NULL && old->token > last && old->token < LOCKEXT_MAX_TOKEN)
		last = old->token;

	*token = token_after(last, now);
	return true;
}

/* The same for a lock all of whose tokens the shared clock has passed. */
int64
lockext_next_token_by_clock(TimestampTz now)
{
	return token_after(0, now);
}

/*
 * Rows with tokens up to this one are being removed by this transaction: no
 * new row may start below.  Returns false if the floor cannot be raised
 * without waiting; then nothing may be removed.
 */
bool
lockext_floor_raise(LockTable *table, int64 token)
{
	LockName	name;
	LockRow		old;
	LockRow		new;
	KeyLock		key;
	bool		found;

	lockext_floor_name(&name);
	if (!lockext_key_lock_once(&key, &name, LOCKEXT_KEY_CHANGE) ||
		!lockext_row_look(table, &name, &old, &found))
		return false;
	if (found)
		lockext_row_must_be_sound(&name, &old);
	lockext_shared_clock_passed(found ? Max(old.token, token) : token);
	if (found && old.token >= token)
		return true;

	memset(&new, 0, sizeof(new));
	new.token = token;
	new.acquired_at = new.released_at = GetCurrentTimestamp();
	new.expires_at = DT_NOEND;
	new.timeout_ms = -1;
	new.dboid = MyDatabaseId;
	new.owner = BOOTSTRAP_SUPERUSERID;
	new.scope = LOCKEXT_SCOPE_LEASE;
	new.domain = name.domain;
	new.key = name.key;
	new.calling_fn = new.application_name = cstring_to_text("");
	return lockext_row_write(table, found ? &old : NULL, &new);
}
