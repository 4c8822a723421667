/*
 * rules.h
 *		The rules for the values that callers give.
 */
#ifndef LOCKEXT_RULES_H
#define LOCKEXT_RULES_H

#include "postgres.h"

#include "compat.h"
#include "utils/jsonb.h"

/* The greatest size of a lock's data, in bytes of jsonb. */
#define LOCKEXT_MAX_DATA_BYTES 1024

compat_noreturn extern void lockext_bad_value(const char *what, const char *shown,
											  const char *detail, const char *hint);
extern char *lockext_show_text(const text *t);
extern char *lockext_show_int(int64 n);

extern void lockext_rule_key(const char *what, const text *key);
extern void lockext_rule_any_key(const char *what, const text *key);
extern void lockext_rule_id(const char *what, const text *id);
extern void lockext_rule_domain(const char *what, const text *domain);
extern int64 lockext_rule_timeout(const char *what, bool given, int64 seconds, char scope);
extern int64 lockext_rule_expiry(const char *what, int64 ms);
extern int64 lockext_rule_token(const char *what, int64 token);
extern char lockext_rule_scope(const char *what, const text *scope);
extern int64 lockext_rule_wait(const char *what, int64 ms);
extern void lockext_rule_label(const char *what, const text *label);
extern void lockext_rule_data(const char *what, const Jsonb *data);

#endif							/* LOCKEXT_RULES_H */
