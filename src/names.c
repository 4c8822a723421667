/*
 * names.c
 *		Lock names and lock tags.
 *
 * The only file that builds a LOCKTAG.  Tags carry a 64-bit hash of the name;
 * rows are always matched by the full name, so that a collision makes two
 * names wait for each other but never mixes them up.
 */
#include "postgres.h"

#include "names.h"

#include "catalog/pg_database.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* Bytes of a text that a message shows at most. */
#define DISPLAY_BYTES 63

static uint64 name_hash(const text *domain, const text *key);

/*
 * Name the lock (domain, key).  The texts are kept by reference and must live
 * as long as the name.
 */
void
lockext_name_set(LockName *name, text *domain, text *key)
{
	uint64		hash = name_hash(domain, key);

	name->domain = domain;
	name->key = key;
	SET_LOCKTAG_ADVISORY(name->tag, MyDatabaseId,
						 (uint32) (hash >> 32), (uint32) hash,
						 LOCKEXT_KEY_CLASS);
}

/* A copy with texts of its own, in the current memory context. */
void
lockext_name_copy(LockName *name, const LockName *from)
{
	name->domain = DatumGetTextPCopy(PointerGetDatum(from->domain));
	name->key = DatumGetTextPCopy(PointerGetDatum(from->key));
	name->tag = from->tag;
}

/* Half of the hash that the tags carry. */
uint32
lockext_name_hash(const LockName *name)
{
	return name->tag.locktag_field3;
}

void
lockext_queue_tag(LOCKTAG *tag, const LockName *name)
{
	*tag = name->tag;
	tag->locktag_field4 = LOCKEXT_QUEUE_CLASS;
}

/*
 * The LIVE lock of one acquisition.  A token is unique for its name, so two
 * acquisitions can share a tag only by a collision of the hash; then one may
 * seem alive that is not, but never the other way round.
 */
void
lockext_live_tag(LOCKTAG *tag, const LockName *name, int64 token)
{
	uint64		hash = ((uint64) name->tag.locktag_field2 << 32) | name->tag.locktag_field3;

	hash = hash_bytes_extended((const unsigned char *) &token, sizeof(token), hash);
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId,
						 (uint32) (hash >> 32), (uint32) hash,
						 LOCKEXT_LIVE_CLASS);
}

bool
lockext_name_is_master(const LockName *name)
{
	return VARSIZE_ANY_EXHDR(name->key) == 0;
}

static bool
same_bytes(const text *a, const text *b)
{
	size_t		len = VARSIZE_ANY_EXHDR(a);

	return len == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), len) == 0;
}

bool
lockext_name_equals(const LockName *name, const text *domain, const text *key)
{
	return same_bytes(name->key, key) && same_bytes(name->domain, domain);
}

/* As messages show it: lock "k", lock "k" in domain "d", master lock of domain "d". */
char *
lockext_name_display(const LockName *name)
{
	if (lockext_name_is_master(name))
		return psprintf("master lock of domain \"%s\"", lockext_clip(name->domain));
	if (VARSIZE_ANY_EXHDR(name->domain) == 0)
		return psprintf("lock \"%s\"", lockext_clip(name->key));
	return psprintf("lock \"%s\" in domain \"%s\"",
					lockext_clip(name->key), lockext_clip(name->domain));
}

/*
 * The row that keeps the greatest token ever removed from the table goes under
 * a key longer than any user's, in the default domain.
 */
void
lockext_floor_name(LockName *name)
{
	char		key[LOCKEXT_FLOOR_KEY_BYTES];

	memset(key, '-', sizeof(key));
	lockext_name_set(name, cstring_to_text(""),
					 cstring_to_text_with_len(key, sizeof(key)));
}

bool
lockext_is_floor_key(const text *key)
{
	return VARSIZE_ANY_EXHDR(key) == LOCKEXT_FLOOR_KEY_BYTES;
}

void
lockext_relation_tag(LOCKTAG *tag, Oid relid)
{
	SET_LOCKTAG_RELATION(*tag, MyDatabaseId, relid);
}

/* The lock that DROP DATABASE holds exclusively and a connecting process shared. */
void
lockext_database_tag(LOCKTAG *tag, Oid dboid)
{
	SET_LOCKTAG_OBJECT(*tag, InvalidOid, DatabaseRelationId, dboid, 0);
}

static uint64
name_hash(const text *domain, const text *key)
{
	uint64		hash;

	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(domain),
							   VARSIZE_ANY_EXHDR(domain), 0);
	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(key),
							   VARSIZE_ANY_EXHDR(key), hash);
}

/* As much of the text as a message should show. */
char *
lockext_clip(const text *t)
{
	int			len = VARSIZE_ANY_EXHDR(t);
	int			shown = pg_mbcliplen(VARDATA_ANY(t), len, DISPLAY_BYTES);

	/* in SQL_ASCII nobody knows where a character begins, but the client may */
	if (shown < len && GetDatabaseEncoding() == PG_SQL_ASCII)
		while (shown > 0 && IS_HIGHBIT_SET(VARDATA_ANY(t)[shown]) &&
			   IS_HIGHBIT_SET(VARDATA_ANY(t)[shown - 1]))
			shown--;
	return shown == len ? text_to_cstring(t)
		: psprintf("%.*s...", shown, VARDATA_ANY(t));
}
