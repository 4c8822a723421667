/*
 * chains.h
 *		Where rows of the lock table were last found.
 */
#ifndef LOCKEXT_CHAINS_H
#define LOCKEXT_CHAINS_H

#include "postgres.h"

#include "names.h"
#include "storage/itemptr.h"

extern void lockext_chains_init(void);
extern Size lockext_chains_size(void);
extern void lockext_chains_attach(void *memory, bool found);

extern bool lockext_chain_recall(Oid relid, const LockName *name,
								 ItemPointer root, ItemPointer newest);
extern void lockext_chain_remember(Oid relid, const LockName *name,
								   const ItemPointerData *root, const ItemPointerData *newest);

#endif							/* LOCKEXT_CHAINS_H */
