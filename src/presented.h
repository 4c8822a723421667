/*
 * presented.h
 *		Tokens that a session presents for all it does: the setting lockext.token.
 */
#ifndef LOCKEXT_PRESENTED_H
#define LOCKEXT_PRESENTED_H

#include "postgres.h"

#include "names.h"

extern void lockext_presented_init(void);
extern int64 lockext_presented_token(const LockName *name);

#endif							/* LOCKEXT_PRESENTED_H */
