/*
 * seen.c
 *		Locks that tries have found held, or free, so that the next try need not look.
 *
 * In shared memory, when the library is preloaded: a table of fixed size, one entry
 * for each place, the place given by the name's hash.  An entry says that the row of a
 * lock was that of a live lease.  It is written by whoever has KEY in a mode that
 * nobody who changes the row shares, and removed before the row is changed; until the
 * end of the change's transaction nobody else gets KEY.  So an entry that can be read
 * is true at that moment, as the row itself would be.  What ends a lease without a
 * change of its row is its time, which the entry carries.  An entry may also make room
 * for another lock's.
 *
 * Or the entry says that there was no row, or one of a lock that had ended.  It is
 * written and removed in the same way, and read under KEY: then no row can have come
 * since.  Scope "transaction", which writes no row, need not look for one.  A lock that
 * has ended does not come to life again without a change of its row.
 *
 * For the case that a superuser changes rows behind our back, having disabled the
 * triggers that keep him from it, an entry counts for seconds only; then a try looks
 * again.  So does one after the clock was set back.
 *
 * Entries of another kind say only that a lock of this place could not be had a moment
 * ago, so that a look, which disturbs nobody, should come before KEY.  They decide
 * nothing and need no lock.
 *
 * Readers take no lock either: they compare the entry's version before and after, as
 * readers of PostgreSQL's backend status do.
 */
#include "postgres.h"

#include "seen.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

/*
 * A power of two, of 128 bytes each.  So many because scope "transaction" is taken and
 * given back fast, and any lock may be free.
 */
#define PLACES 32768

/* Bytes of domain and key together; of longer names only refusals are remembered. */
#define NAME_BYTES 88

/* How long an entry counts: that of a lock that is held, and that of one that is free. */
#define HELD_VALID_US USECS_PER_SEC
#define FREE_VALID_US (10 * USECS_PER_SEC)

typedef struct Entry
{
	Oid			dboid;
	Oid			relid;			/* of the lock table */
	uint16		domain_len;
	uint16		key_len;
	TimestampTz seen_at;
	TimestampTz expires_at;
	char		name[NAME_BYTES];	/* domain, then key */
} Entry;

typedef struct Place
{
	pg_atomic_uint32 version;	/* odd while the entry is being written */
	slock_t		mutex;			/* of writers */
	Entry		entry;
} Place;

static Place *places = NULL;

/*
 * What each place says, a byte of Seen; LOCKEXT_SEEN_NOTHING: it is empty.  Part of the
 * entry, but apart from it, so that finding nothing touches little memory.
 */
static volatile uint8 *kinds = NULL;

Size
lockext_seen_size(void)
{
	return PLACES * (sizeof(Place) + sizeof(uint8));
}

/* At the start of the server, and in each process where those don't inherit memory. */
void
lockext_seen_attach(void *memory, bool found)
{
	places = memory;
	kinds = (uint8 *) (places + PLACES);
	if (found)
		return;
	memset(memory, 0, lockext_seen_size());
	for (int i = 0; i < PLACES; i++)
	{
		pg_atomic_init_u32(&places[i].version, 0);
		SpinLockInit(&places[i].mutex);
	}
}

static Place *
place_of(const LockName *name)
{
	return &places[lockext_name_hash(name) % PLACES];
}

/* Where an entry of a lock that is free goes if its place is taken. */
static Place *
place_beside(Place *place)
{
	return &places[(place - places) ^ 1];
}

static volatile uint8 *
kind_of(const Place *place)
{
	return &kinds[place - places];
}

/* Begin to write: nobody else does, and readers see that the entry is not to be used. */
static void
begin_change(Place *place)
{
	SpinLockAcquire(&place->mutex);
	pg_atomic_write_u32(&place->version, pg_atomic_read_u32(&place->version) + 1);
	pg_write_barrier();
}

static void
end_change(Place *place)
{
	pg_write_barrier();
	pg_atomic_write_u32(&place->version, pg_atomic_read_u32(&place->version) + 1);
	SpinLockRelease(&place->mutex);
}

static uint32
begin_read(Place *place)
{
	uint32		version = pg_atomic_read_u32(&place->version);

	pg_read_barrier();
	return version;
}

/* Was what has been read since begin_read() one whole entry? */
static bool
is_unchanged(Place *place, uint32 version)
{
	pg_read_barrier();
	return version % 2 == 0 && pg_atomic_read_u32(&place->version) == version;
}

static bool
is_of(const Entry *entry, Oid relid, const LockName *name)
{
	Size		domain_len = VARSIZE_ANY_EXHDR(name->domain);
	Size		key_len = VARSIZE_ANY_EXHDR(name->key);

	return entry->dboid == MyDatabaseId && entry->relid == relid &&
		entry->domain_len == domain_len && entry->key_len == key_len &&
		domain_len + key_len <= NAME_BYTES &&
		memcmp(entry->name, VARDATA_ANY(name->domain), domain_len) == 0 &&
		memcmp(entry->name + domain_len, VARDATA_ANY(name->key), key_len) == 0;
}

/* Does the entry count at this moment? */
static bool
is_valid(const Place *place, TimestampTz now)
{
	const Entry *entry = &place->entry;
	Seen		seen = *kind_of(place);
	int64		valid_us = seen == LOCKEXT_SEEN_FREE ? FREE_VALID_US : HELD_VALID_US;

	return seen != LOCKEXT_SEEN_NOTHING &&
		now >= entry->seen_at && now < entry->seen_at + valid_us &&
		now < entry->expires_at;
}

/*
 * What is known of the lock at this moment; if it is held, which entry says so, unless
 * entry is NULL.  Without shared memory, the same as for a lock that should be looked at
 * first.
 */
Seen
lockext_seen(Oid relid, const LockName *name, SeenEntry *entry)
{
	Place	   *place;
	uint32		version;
	Seen		seen = LOCKEXT_SEEN_NOTHING;

	if (places == NULL)
		return LOCKEXT_SEEN_REFUSED;

	place = place_of(name);
	if (*kind_of(place) == LOCKEXT_SEEN_NOTHING || *kind_of(place) == LOCKEXT_SEEN_FREE)
		return LOCKEXT_SEEN_NOTHING;
	version = begin_read(place);
	if (is_valid(place, GetCurrentTimestamp()))
		seen = *kind_of(place) == LOCKEXT_SEEN_HELD && is_of(&place->entry, relid, name)
			? LOCKEXT_SEEN_HELD : LOCKEXT_SEEN_REFUSED;
	if (entry != NULL)
	{
		entry->place = place - places;
		entry->version = version;
		entry->seen_at = place->entry.seen_at;
	}
	return is_unchanged(place, version) ? seen : LOCKEXT_SEEN_REFUSED;
}

static bool
says_free(Place *place, Oid relid, const LockName *name, TimestampTz now)
{
	uint32		version;
	bool		says;

	if (*kind_of(place) != LOCKEXT_SEEN_FREE)
		return false;
	version = begin_read(place);
	says = *kind_of(place) == LOCKEXT_SEEN_FREE &&
		is_valid(place, now) && is_of(&place->entry, relid, name);
	return is_unchanged(place, version) && says;
}

/*
 * Is it known that no row says that the lock is held?  The caller has KEY in a mode that
 * excludes every change of the row.
 */
bool
lockext_seen_says_free(Oid relid, const LockName *name, TimestampTz now)
{
	Place	   *place;

	if (places == NULL)
		return false;
	place = place_of(name);
	return says_free(place, relid, name, now) ||
		says_free(place_beside(place), relid, name, now);
}

static bool
fits(const LockName *name)
{
	return VARSIZE_ANY_EXHDR(name->domain) + VARSIZE_ANY_EXHDR(name->key) <= NAME_BYTES;
}

static void
write_entry(Place *place, Seen seen, Oid relid, const LockName *name,
			TimestampTz now, TimestampTz expires_at)
{
	Entry	   *entry = &place->entry;

	begin_change(place);
	*kind_of(place) = seen;
	entry->dboid = MyDatabaseId;
	entry->relid = relid;
	entry->domain_len = VARSIZE_ANY_EXHDR(name->domain);
	entry->key_len = VARSIZE_ANY_EXHDR(name->key);
	entry->seen_at = now;
	entry->expires_at = expires_at;
	memcpy(entry->name, VARDATA_ANY(name->domain), entry->domain_len);
	memcpy(entry->name + entry->domain_len, VARDATA_ANY(name->key), entry->key_len);
	end_change(place);
}

/*
 * The row, committed by another transaction, is that of a live lock.  The caller has
 * just taken KEY, and still has it, in a mode that excludes every change of the row.
 *
 * Of a session-scoped lock the row does not tell for how long: that is worth a look
 * each time.
 */
void
lockext_seen_held(Oid relid, const LockName *name, const LockRow *row)
{
	if (places == NULL)
		return;
	if (row->scope != LOCKEXT_SCOPE_LEASE || !fits(name))
		lockext_seen_refused(name);
	else
		write_entry(place_of(name), LOCKEXT_SEEN_HELD, relid, name,
					GetCurrentTimestamp(), row->expires_at);
}

/* Does the entry say anything of another lock that is worth keeping? */
static bool
is_taken(const Place *place, Oid relid, const LockName *name, TimestampTz now)
{
	Seen		seen = *kind_of(place);

	return (seen == LOCKEXT_SEEN_HELD || seen == LOCKEXT_SEEN_FREE) &&
		is_valid(place, now) && !is_of(&place->entry, relid, name);
}

/*
 * There was no row at that moment, or that of a lock that had ended.  The caller has KEY
 * as above; it is new to this transaction, so nothing of that can be undone.  The shared
 * clock has passed all tokens that the lock ever had.
 */
void
lockext_seen_free(Oid relid, const LockName *name, TimestampTz now)
{
	Place	   *place;

	if (places == NULL || !fits(name))
		return;
	place = place_of(name);
	if (is_taken(place, relid, name, now))
		place = place_beside(place);
	write_entry(place, LOCKEXT_SEEN_FREE, relid, name, now, DT_NOEND);
}

/* The lock could not be had, for whatever reason. */
void
lockext_seen_refused(const LockName *name)
{
	TimestampTz now = GetCurrentTimestamp();
	Place	   *place;

	if (places == NULL)
		return;
	place = place_of(name);
	begin_change(place);
	if (*kind_of(place) == LOCKEXT_SEEN_FREE || !is_valid(place, now))
	{
		*kind_of(place) = LOCKEXT_SEEN_REFUSED;
		place->entry.seen_at = now;
		place->entry.expires_at = DT_NOEND;
	}
	end_change(place);
}

static void
empty(Place *place)
{
	begin_change(place);
	*kind_of(place) = LOCKEXT_SEEN_NOTHING;
	end_change(place);
}

/*
 * The lock's row is about to be changed.  The caller has KEY, so nobody can write an
 * entry of this lock any more; others in its place go too, which does no harm.  One of
 * this name and of a table that was dropped must go: somebody may still go by it, in a
 * statement that began before.
 */
void
lockext_seen_forget(const LockName *name)
{
	Place	   *place;

	if (places == NULL)
		return;
	place = place_of(name);
	if (*kind_of(place) != LOCKEXT_SEEN_NOTHING)
		empty(place);
	place = place_beside(place);
	if (*kind_of(place) == LOCKEXT_SEEN_FREE)
		empty(place);
}
