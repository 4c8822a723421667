/*
 * privilege.h
 *		What a caller may do.
 */
#ifndef LOCKEXT_PRIVILEGE_H
#define LOCKEXT_PRIVILEGE_H

#include "postgres.h"

typedef enum Privilege
{
	LOCKEXT_MAY_ACQUIRE,
	LOCKEXT_MAY_RELEASE,
	LOCKEXT_MAY_CHECK
} Privilege;

extern void lockext_must_be_allowed(Oid fn_oid, Privilege privilege);

#endif							/* LOCKEXT_PRIVILEGE_H */
