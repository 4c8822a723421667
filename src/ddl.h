/*
 * ddl.h
 *		What watches over DDL where something is guarded.
 */
#ifndef LOCKEXT_DDL_H
#define LOCKEXT_DDL_H

#include "postgres.h"

#include "guardschema.h"

extern void lockext_ddl_init(void);
extern bool lockext_guards_in_effect(GuardState *state);
extern void lockext_guards_begin(Oid fn_oid, GuardState *state);
extern void lockext_guards_end(const GuardState *state);

#endif							/* LOCKEXT_DDL_H */
