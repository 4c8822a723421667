/*
 * guard.h
 *		Does this transaction hold a lock, so that it may do what the lock protects?
 */
#ifndef LOCKEXT_GUARD_H
#define LOCKEXT_GUARD_H

#include "postgres.h"

#include "names.h"

extern bool lockext_transaction_has(Oid fn_oid, const LockName *name, const char **why);
extern void lockext_refuse_unless_bypassed(const LockName *name, const char *why,
										   const char *what);
extern void lockext_must_have(Oid fn_oid, const LockName *name, const char *what);

#endif							/* LOCKEXT_GUARD_H */
