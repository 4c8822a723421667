/*
 * release.h
 *		Ending a lock.
 */
#ifndef LOCKEXT_RELEASE_H
#define LOCKEXT_RELEASE_H

#include "postgres.h"

#include "names.h"
#include "store.h"

extern bool lockext_is_ours(const LockName *name, const LockRow *row, int64 token);
extern bool lockext_is_ours_or_pinned(const LockName *name, const LockRow *row, int64 token);
extern bool lockext_release_now(Oid fn_oid, const LockName *name, int64 token,
								const char *function);

#endif							/* LOCKEXT_RELEASE_H */
