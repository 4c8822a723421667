/*
 * ddl.h
 *		Guards before and after a command.
 */
#ifndef LOCKEXT_DDL_H
#define LOCKEXT_DDL_H

#include "postgres.h"

extern void lockext_ddl_init(void);

#endif							/* LOCKEXT_DDL_H */
