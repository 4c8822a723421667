/*
 * guardschema.h
 *		Schemas that accept DDL from the holder of a lock only.
 */
#ifndef LOCKEXT_GUARDSCHEMA_H
#define LOCKEXT_GUARDSCHEMA_H

#include "postgres.h"

#include "guards.h"
#include "names.h"

/* What a command does, for the message if it must not. */
typedef struct Deed
{
	const char *verb;
	const char *object;			/* or NULL: described by its address */
	Oid			classId;
	Oid			objectId;
} Deed;

typedef void (*GuardedSchemaVisitor) (const char *schema, const LockName *name, void *arg);

extern void lockext_check_schema_named(const GuardState *state, const char *schema,
									   const Deed *deed, bool pin_for_command);
extern void lockext_check_schema(const GuardState *state, Oid schema, const Deed *deed,
								 bool pin_for_command);
extern void lockext_for_each_guarded_schema(Oid store, GuardedSchemaVisitor visit, void *arg);
extern bool lockext_schema_is_guarded(Oid store, const char *schema);
extern void lockext_guarded_schema_renamed(Oid store, const char *old, const char *new);
extern void lockext_guarded_schema_dropped(Oid store, const char *schema);

#endif							/* LOCKEXT_GUARDSCHEMA_H */
