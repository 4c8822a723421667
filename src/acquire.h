/*
 * acquire.h
 *		Taking a lock.
 */
#ifndef LOCKEXT_ACQUIRE_H
#define LOCKEXT_ACQUIRE_H

#include "postgres.h"

#include "keylock.h"
#include "result.h"

/* What is asked for. */
typedef struct Request
{
	Oid			fn_oid;			/* the function called, which leads to the table */
	LockName	name;
	char		scope;
	int64		timeout_ms;		/* -1: never */
	int64		wait_ms;		/* 0: not at all; -1: without limit */
	text	   *calling_fn;		/* NULL: find out when the lock is granted */
	Jsonb	   *data;			/* may be NULL */
	bool		waited;			/* the call has slept */
} Request;

extern void lockext_read_request(FunctionCallInfo fcinfo, char form, Request *request);
extern bool lockext_acquire_now(Request *request, const char *function, Outcome *outcome);
extern bool lockext_try_acquire(Request *request, Outcome *outcome);
extern bool lockext_claim_with_key(Request *request, KeyLock *key, Outcome *outcome);
extern LOCKMODE lockext_claim_mode(const Request *request);
extern bool lockext_try_at_head(Request *request, bool likely, Outcome *outcome);
extern void lockext_why_not(Request *request, Outcome *outcome);

#endif							/* LOCKEXT_ACQUIRE_H */
