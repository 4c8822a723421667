/*
 * shared.h
 *		What lockext keeps in shared memory, when the library is preloaded.
 */
#ifndef LOCKEXT_SHARED_H
#define LOCKEXT_SHARED_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/block.h"

/* Where a worker's scan of one database's lock table stands. */
typedef struct SweepState
{
	BlockNumber next_block;		/* 0: a new cycle begins */
	TimestampTz due;			/* earliest idle time seen in this cycle */
	int			elapsed_ms;		/* how long the last run took */
	bool		extension_found;
} SweepState;

extern void lockext_shared_init(void);
extern bool lockext_shared_ready(void);
extern int64 lockext_shared_clock(int64 now);
extern void lockext_shared_clock_passed(int64 token);

/* for backends */
extern void lockext_due_lower(Oid dboid, TimestampTz idle_since);
extern int	lockext_worker_pid(void);

/* for the launcher */
extern void lockext_launcher_attach(void);
extern bool lockext_overflowed(void);
extern bool lockext_overflow_pending(void);
extern void lockext_slot_add(Oid dboid);
extern void lockext_slot_forget(Oid dboid);
extern Oid	lockext_slot_next(TimestampTz now, int64 idle_us, TimestampTz *wake_at);
extern void lockext_worker_starting(void);
extern void lockext_worker_finished(Oid dboid, TimestampTz now);
extern void lockext_slot_delay(Oid dboid, TimestampTz until);

/* for the worker */
extern void lockext_worker_attach(void);
extern void lockext_scan_begin(Oid dboid, SweepState *scan);
extern void lockext_scan_end(Oid dboid, const SweepState *scan);

#endif							/* LOCKEXT_SHARED_H */
