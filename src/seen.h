/*
 * seen.h
 *		Locks that tries have found held, or free.
 */
#ifndef LOCKEXT_SEEN_H
#define LOCKEXT_SEEN_H

#include "postgres.h"

#include "names.h"
#include "store.h"

typedef enum Seen
{
	LOCKEXT_SEEN_NOTHING,		/* it may be free */
	LOCKEXT_SEEN_REFUSED,		/* it was not to be had a moment ago; it may be now */
	LOCKEXT_SEEN_HELD,			/* it is held, by a committed lease */
	LOCKEXT_SEEN_FREE			/* no row says that it is held: counts under KEY only */
} Seen;

/* One that says that a lock is held: no other is equal to it, at any time. */
typedef struct SeenEntry
{
	uint32		place;
	uint32		version;
	TimestampTz seen_at;
} SeenEntry;

static inline bool
lockext_seen_is_same(const SeenEntry *a, const SeenEntry *b)
{
	return a->place == b->place && a->version == b->version && a->seen_at == b->seen_at;
}

extern Size lockext_seen_size(void);
extern void lockext_seen_attach(void *memory, bool found);

extern Seen lockext_seen(Oid relid, const LockName *name, SeenEntry *entry);
extern void lockext_seen_held(Oid relid, const LockName *name, const LockRow *row);
extern void lockext_seen_refused(const LockName *name);
extern void lockext_seen_free(Oid relid, const LockName *name, TimestampTz now);
extern bool lockext_seen_says_free(Oid relid, const LockName *name, TimestampTz now);
extern void lockext_seen_forget(const LockName *name);

#endif							/* LOCKEXT_SEEN_H */
