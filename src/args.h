/*
 * args.h
 *		Reading and checking the arguments of SQL functions.
 */
#ifndef LOCKEXT_ARGS_H
#define LOCKEXT_ARGS_H

#include "postgres.h"

#include "fmgr.h"
#include "names.h"
#include "utils/jsonb.h"

/* The function has no such argument. */
#define LOCKEXT_NO_ARG (-1)

extern void lockext_arg_name(FunctionCallInfo fcinfo, int key, int domain, int master,
							 LockName *name);
extern void lockext_arg_any_name(FunctionCallInfo fcinfo, int key, int domain, int master,
								 LockName *name);
extern int64 lockext_arg_timeout(FunctionCallInfo fcinfo, int n, char scope);
extern int64 lockext_arg_token(FunctionCallInfo fcinfo, int n);
extern char lockext_arg_scope(FunctionCallInfo fcinfo, int n);
extern char lockext_arg_outlasting_scope(FunctionCallInfo fcinfo, int n);
extern int64 lockext_arg_wait(FunctionCallInfo fcinfo, int n);
extern text *lockext_arg_calling_fn(FunctionCallInfo fcinfo, int n);
extern Jsonb *lockext_arg_data(FunctionCallInfo fcinfo, int n);
extern void lockext_must_be_able_to_write(const char *function);
extern void lockext_must_be_able_to_lock(const char *function);

#endif							/* LOCKEXT_ARGS_H */
