/*
 * wait.h
 *		Waiting for a lock.
 */
#ifndef LOCKEXT_WAIT_H
#define LOCKEXT_WAIT_H

#include "postgres.h"

#include "acquire.h"

extern void lockext_wait_init(void);
extern bool lockext_wait_and_acquire(Request *request, char form, Patience *patience,
									 Outcome *outcome);

#endif							/* LOCKEXT_WAIT_H */
