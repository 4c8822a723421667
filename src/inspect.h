/*
 * inspect.h
 *		Looking without touching.
 */
#ifndef LOCKEXT_INSPECT_H
#define LOCKEXT_INSPECT_H

#include "postgres.h"

#include "store.h"

extern bool lockext_find_held(Oid fn_oid, const LockName *name, LockTable *table,
							  LockRow *row);

#endif							/* LOCKEXT_INSPECT_H */
