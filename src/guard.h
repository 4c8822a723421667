/*
 * guard.h
 *		Does this transaction hold a lock, so that it may do what the lock protects?
 */
#ifndef LOCKEXT_GUARD_H
#define LOCKEXT_GUARD_H

#include "postgres.h"

#include "names.h"

extern void lockext_guard_init(void);
extern bool lockext_transaction_has(Oid fn_oid, const LockName *name, const char **why);
extern void lockext_refuse_unless_bypassed(const LockName *name, const char *why,
										   const char *what);
extern void lockext_must_have(Oid fn_oid, const LockName *name, const char *what);
extern int	lockext_pin_mark(void);
extern void lockext_pin_for_command(const LockName *name);
extern void lockext_unpin_command(int mark);

#endif							/* LOCKEXT_GUARD_H */
