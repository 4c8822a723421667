/*
 * guards.h
 *		Are guards in effect in this database?
 */
#ifndef LOCKEXT_GUARDS_H
#define LOCKEXT_GUARDS_H

#include "postgres.h"

/* The event triggers, each with a function of the same name. */
#define LOCKEXT_START_TRIGGER "lockext_ddl_start"
#define LOCKEXT_END_TRIGGER "lockext_ddl_end"

/* The parts of the extension that guards need. */
typedef struct GuardState
{
	Oid			fn_oid;			/* any function of the extension */
	Oid			store;			/* the table of guarded schemas */
	Oid			write_fn;		/* trigger function of guarded tables */
} GuardState;

extern void lockext_guards_init(void);
extern bool lockext_guards_find(Oid fn_oid, GuardState *state);
extern bool lockext_guards_in_effect(GuardState *state);
extern void lockext_run_as_owner(Oid fn_oid, const char *command);
extern bool lockext_guards_begin(Oid fn_oid, GuardState *state);
extern void lockext_guards_end(const GuardState *state);

#endif							/* LOCKEXT_GUARDS_H */
