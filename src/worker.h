/*
 * worker.h
 *		The launcher and the worker that removes idle rows.
 */
#ifndef LOCKEXT_WORKER_H
#define LOCKEXT_WORKER_H

#include "postgres.h"

extern void lockext_launcher_register(void);

#endif							/* LOCKEXT_WORKER_H */
