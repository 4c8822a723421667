/*
 * release.h
 *		Ending a lock.
 */
#ifndef LOCKEXT_RELEASE_H
#define LOCKEXT_RELEASE_H

#include "postgres.h"

#include "names.h"

extern bool lockext_release_now(Oid fn_oid, const LockName *name, int64 token,
								const char *function);

#endif							/* LOCKEXT_RELEASE_H */
