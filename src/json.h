/*
 * json.h
 *		Reading JSON objects by their members, and writing them.
 */
#ifndef LOCKEXT_JSON_H
#define LOCKEXT_JSON_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

typedef enum MemberType
{
	MEMBER_TEXT,
	MEMBER_INTEGER,
	MEMBER_BOOLEAN,
	MEMBER_OBJECT,
	MEMBER_ANY,
	MEMBER_NONE					/* is known, but may be null only */
} MemberType;

/* A member that an object may have, and its value once it is read. */
typedef struct Member
{
	const char *name;
	MemberType	type;
	bool		given;			/* it is there, and not null */
	text	   *text;
	int64		integer;
	bool		boolean;
	Jsonb	   *json;			/* of an object, or of any type */
} Member;

extern void lockext_json_read(JsonbContainer *object, const char *path,
							  Member *members, int n);
extern char *lockext_json_show(Jsonb *json);
extern char *lockext_json_show_value(JsonbValue *value);
extern JsonbValue *lockext_json_get(Jsonb *object, const char *name, int len);

extern void lockext_json_begin(JsonbParseState **state);
extern Jsonb *lockext_json_end(JsonbParseState **state);
extern void lockext_json_text(JsonbParseState **state, const char *member, const text *t);
extern void lockext_json_string(JsonbParseState **state, const char *member, const char *s);
extern void lockext_json_int(JsonbParseState **state, const char *member, int64 n);
extern void lockext_json_seconds(JsonbParseState **state, const char *member, int64 ms);
extern void lockext_json_bool(JsonbParseState **state, const char *member, bool b);
extern void lockext_json_timestamp(JsonbParseState **state, const char *member, TimestampTz t);
extern void lockext_json_jsonb(JsonbParseState **state, const char *member, Jsonb *json);

#endif							/* LOCKEXT_JSON_H */
