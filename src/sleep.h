/*
 * sleep.h
 *		Sleeping until a lock can be had or something happens, with a deadline.
 */
#ifndef LOCKEXT_SLEEP_H
#define LOCKEXT_SLEEP_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/lock.h"

/* A moment, in microseconds of the monotonic clock. */
typedef int64 Moment;

#define MOMENT_NEVER PG_INT64_MAX

/* How long a call is prepared to wait, all its sleeps together. */
typedef struct Patience
{
	Moment		begun;
	Moment		deadline;		/* then the answer is no */
	Moment		lock_timeout;	/* then it is an error */
	Moment		deadlock_check; /* then PostgreSQL is to look for a deadlock again */
	bool		slept;
} Patience;

extern Moment lockext_moment(void);
extern Moment lockext_moment_of(TimestampTz t);
extern void lockext_patience_begin(Patience *patience, int64 wait_ms);
extern bool lockext_patience_over(const Patience *patience);
extern int64 lockext_patience_ms(const Patience *patience);

extern bool lockext_lock_until(Patience *patience, const LOCKTAG *tag, LOCKMODE mode,
							   Moment until);
extern bool lockext_wait_for_end_until(Patience *patience, VirtualTransactionId vxid,
									   Moment until);
extern bool lockext_sleep_until(Patience *patience, ConditionVariable *cv, Moment until);

extern void lockext_client_watch(void);
extern void lockext_client_unwatch(void);
extern void lockext_client_must_be_there(void);

#endif							/* LOCKEXT_SLEEP_H */
