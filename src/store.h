/*
 * store.h
 *		The rows of the lock table.
 */
#ifndef LOCKEXT_STORE_H
#define LOCKEXT_STORE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "names.h"
#include "storage/itemptr.h"
#include "table.h"
#include "utils/inet.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

/* Tokens stay exact in a double and so in JSON and JavaScript. */
#define LOCKEXT_MAX_TOKEN ((INT64CONST(1) << 53) - 1)

#define LOCKEXT_SCOPE_LEASE 'l'
#define LOCKEXT_SCOPE_SESSION 's'
#define LOCKEXT_SCOPE_TRANSACTION 't'	/* never in a row */

/*
 * A row.  Pointers lead into the slot it was read from, and last as long as
 * the slot's content.
 */
typedef struct LockRow
{
	ItemPointerData tid;
	int64		gen;
	int64		token;
	TimestampTz acquired_at;
	Oid			dboid;
	Oid			owner;
	int			pid;
	char		scope;
	text	   *domain;
	text	   *key;
	text	   *calling_fn;
	text	   *application_name;
	int64		timeout_ms;		/* -1: never */
	TimestampTz expires_at;		/* DT_NOEND: never */
	TimestampTz released_at;	/* DT_NOEND: not released */
	inet	   *client_addr;	/* NULL: unix socket, or background process */
	Jsonb	   *data;			/* may be NULL */

	const char *damage;			/* NULL, or what is wrong with the row */
} LockRow;

/* When a lock of this lifetime ends that begins at a given moment. */
static inline TimestampTz
lockext_end_of(TimestampTz begin, int64 timeout_ms)
{
	return timeout_ms == -1 ? DT_NOEND : begin + timeout_ms * 1000;
}

extern void lockext_check_shape(Relation rel);

extern bool lockext_row_look(LockTable *table, const LockName *name, LockRow *row,
							 bool *found);
extern bool lockext_row_find(LockTable *table, const LockName *name, LockRow *row,
							 bool *found);
extern void lockext_row_read(TupleTableSlot *slot, LockRow *row);
extern void lockext_row_must_be_sound(const LockName *name, const LockRow *row);
extern bool lockext_row_live(const LockRow *row, TimestampTz now);
extern TimestampTz lockext_row_idle_since(const LockRow *row);

extern bool lockext_row_write(LockTable *table, const LockRow *old, LockRow *new);
extern bool lockext_row_is_by_me(LockTable *table);
extern bool lockext_row_being_changed(LockTable *table);
extern bool lockext_row_remove(LockTable *table, const LockRow *row);

#endif							/* LOCKEXT_STORE_H */
