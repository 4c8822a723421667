/*
 * result.h
 *		The rows that lockext's functions return.
 */
#ifndef LOCKEXT_RESULT_H
#define LOCKEXT_RESULT_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "fmgr.h"
#include "keylock.h"
#include "store.h"
#include "utils/numeric.h"

/* How an attempt to get or keep a lock ended. */
typedef struct Outcome
{
	const char *reason;			/* NULL: acquired; else held, busy or lost */
	LockRow		row;			/* acquired: ours; held: the holder's */
	bool		row_valid;		/* row says who stands in the way */
	Jsonb	   *holder;			/* the same as jsonb, if that is there already; or NULL */
	Blocker		blocker;		/* busy: whose transaction does */
	LOCKTAG		in_the_way;		/* busy: the lock that could not be had, */
	LOCKMODE	mode;			/* in this mode; NoLock: none of PostgreSQL's */
	int64		waited_ms;
} Outcome;

#define LOCKEXT_REASON_HELD "held"
#define LOCKEXT_REASON_BUSY "busy"
#define LOCKEXT_REASON_LOST "lost"

/* The columns of lock_info. */
enum
{
	LOCKEXT_INFO_KEY,
	LOCKEXT_INFO_DOMAIN,
	LOCKEXT_INFO_MASTER,
	LOCKEXT_INFO_HELD,
	LOCKEXT_INFO_OWNER,
	LOCKEXT_INFO_SCOPE,
	LOCKEXT_INFO_CALLING_FN,
	LOCKEXT_INFO_ACQUIRED_AT,
	LOCKEXT_INFO_TIMEOUT,
	LOCKEXT_INFO_EXPIRES_AT,
	LOCKEXT_INFO_TOKEN,
	LOCKEXT_INFO_PID,
	LOCKEXT_INFO_APPLICATION_NAME,
	LOCKEXT_INFO_CLIENT_ADDR,
	LOCKEXT_INFO_DATA,
	LOCKEXT_INFO_WAITERS,
	LOCKEXT_INFO_COLUMNS
};

extern TupleDesc lockext_call_result_desc(FunctionCallInfo fcinfo);
extern Datum lockext_form_call_result(TupleDesc desc, const LockName *name,
									  text *calling_fn, const Outcome *outcome);
extern void lockext_must_have_columns(TupleDesc desc, int columns);
extern Numeric lockext_seconds(int64 ms);
extern char *lockext_describe_blocker(const Blocker *blocker);
extern char *lockext_describe_holder(const LockName *name, const Outcome *outcome);
extern Jsonb *lockext_holder(const Outcome *outcome);
extern char *lockext_role_name(Oid roleid);
extern const char *lockext_scope_name(char scope);
extern void lockext_outcome_row(Outcome *outcome, const LockRow *row);
extern Datum lockext_form_result(FunctionCallInfo fcinfo, const LockName *name,
								 text *calling_fn, const Outcome *outcome);
extern void lockext_fill_info(const LockName *name, const LockRow *row,
							  Datum *values, bool *nulls);
extern void lockext_row_of_blocker(LockRow *row, const Blocker *blocker);
extern Datum lockext_form_info(FunctionCallInfo fcinfo, const LockName *name,
							   const LockRow *row);

#endif							/* LOCKEXT_RESULT_H */
