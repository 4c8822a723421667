/*
 * ddlobject.h
 *		Guards at each object that DDL creates, alters or drops.
 */
#ifndef LOCKEXT_DDLOBJECT_H
#define LOCKEXT_DDLOBJECT_H

#include "postgres.h"

#include "guards.h"

extern void lockext_ddlobject_init(void);
extern void lockext_check_object(const GuardState *state, const char *verb, Oid classId,
								 Oid objectId);
extern void lockext_check_all_guards(GuardState *state);

#endif							/* LOCKEXT_DDLOBJECT_H */
