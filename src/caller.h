/*
 * caller.h
 *		Who calls: the label and the client of a new lock.
 */
#ifndef LOCKEXT_CALLER_H
#define LOCKEXT_CALLER_H

#include "postgres.h"

#include "utils/inet.h"

#define LOCKEXT_MAX_LABEL_BYTES 255

extern text *lockext_caller_label(void);
extern inet *lockext_client_addr(void);

#endif							/* LOCKEXT_CALLER_H */
