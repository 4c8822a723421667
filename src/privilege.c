/*
 * privilege.c
 *		What a caller may do: where a function does what another one of the extension
 *		does, the privilege to execute that one is asked for too.
 */
#include "postgres.h"

#include "compat.h"
#include "privilege.h"
#include "table.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* The functions that stand for the privileges. */
static const struct
{
	const char *name;
	int			nargs;
	Oid			types[8];
}			functions[] = {
	[LOCKEXT_MAY_ACQUIRE] = {
		"lock_acquire", 8,
		{TEXTOID, INT4OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, JSONBOID}
	},
	[LOCKEXT_MAY_RELEASE] = {"lock_release", 4, {TEXTOID, INT8OID, TEXTOID, BOOLOID}},
	[LOCKEXT_MAY_CHECK] = {"lock_check", 3, {TEXTOID, TEXTOID, BOOLOID}}
};

/*
 * Raises 42501 if the caller may not execute the function beside the given one that
 * stands for the privilege.
 */
void
lockext_must_be_allowed(Oid fn_oid, Privilege privilege)
{
	Oid			schema = get_func_namespace(fn_oid);
	Oid			oid;

	oid = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						  CStringGetDatum(functions[privilege].name),
						  PointerGetDatum(buildoidvector(functions[privilege].types,
														 functions[privilege].nargs)),
						  ObjectIdGetDatum(schema));
	if (!OidIsValid(oid))
	{
		/* the extension was dropped meanwhile, or lacks a part */
		(void) lockext_table_in_schema(schema, false);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s() of the extension \"lockext\" does not exist",
						functions[privilege].name)));
	}
	if (compat_function_aclcheck(oid, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, functions[privilege].name);
}
