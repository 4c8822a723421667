/*
 * compat.h
 *		Differences between the supported server versions (15 to 18).
 *
 * The only file that looks at PG_VERSION_NUM.
 */
#ifndef LOCKEXT_COMPAT_H
#define LOCKEXT_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

/* 16: postgres.h no longer brings the variable-length datum macros. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "lockext supports PostgreSQL 15 to 18"
#endif

/*
 * From libpq/libpq.h, which needs GSSAPI's headers where the server was built
 * with it; they are not among what a server's development package brings.
 */
extern bool pq_check_connection(void);

/* 16: an update tells "all indexes" and "summarizing indexes only" apart. */
#if PG_VERSION_NUM < 160000
typedef bool TU_UpdateIndexes;
#define TU_None false
#define TU_All true
#endif

static inline void
compat_insert_index_tuples(ResultRelInfo *relinfo, TupleTableSlot *slot,
						   EState *estate, TU_UpdateIndexes which)
{
#if PG_VERSION_NUM < 160000
	(void) which;
	(void) ExecInsertIndexTuples(relinfo, slot, estate, false, false, NULL, NIL);
#else
	(void) ExecInsertIndexTuples(relinfo, slot, estate, false, false, NULL, NIL,
								 which == TU_Summarizing);
#endif
}

/* 18: index scans can be instrumented. */
static inline IndexScanDesc
compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM < 180000
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#endif
}

/* 17: LockHeldByMe() and LockOrStrongerHeldByMe() became one. */
static inline bool
compat_lock_held_by_me(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM < 170000
	return LockHeldByMe(tag, mode);
#else
	return LockHeldByMe(tag, mode, false);
#endif
}

/* 17: backend IDs became proc numbers. */
static inline PGPROC *
compat_vxid_get_proc(VirtualTransactionId vxid)
{
#if PG_VERSION_NUM < 170000
	return BackendIdGetProc(vxid.backendId);
#else
	return ProcNumberGetProc(vxid.procNumber);
#endif
}

static inline int
compat_my_proc_number(void)
{
#if PG_VERSION_NUM < 170000
	return MyProc->pgprocno;
#else
	return MyProcNumber;
#endif
}

static inline int
compat_proc_number(const PGPROC *proc)
{
#if PG_VERSION_NUM < 170000
	return proc->pgprocno;
#else
	return GetNumberFromPGProc(proc);
#endif
}

/* Process numbers are below this; known when shared memory is requested. */
static inline int
compat_proc_count(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

/* 17: extensions can name their wait events. */
static inline uint32
compat_wait_event(const char *name)
{
#if PG_VERSION_NUM < 170000
	(void) name;
	return PG_WAIT_EXTENSION;
#else
	return WaitEventExtensionNew(name);
#endif
}

/* 18: a keyword in front took the place of an attribute at the end. */
#if PG_VERSION_NUM < 180000
#define compat_noreturn pg_attribute_noreturn()
#else
#define compat_noreturn pg_noreturn
#endif

/* 16: what a check hook hands on is allocated in a context of its own. */
static inline void *
compat_guc_malloc(size_t size)
{
#if PG_VERSION_NUM < 160000
	return malloc(size);
#else
	return guc_malloc(LOG, size);
#endif
}

static inline void
compat_guc_free(void *ptr)
{
#if PG_VERSION_NUM < 160000
	free(ptr);
#else
	guc_free(ptr);
#endif
}

/* 16: foreign tables can have triggers for TRUNCATE. */
#define COMPAT_FOREIGN_TRUNCATE_TRIGGERS (PG_VERSION_NUM >= 160000)

/* 16: one function for the ownership of objects of all kinds. */
static inline bool
compat_owns_relation(Oid relid, Oid role)
{
#if PG_VERSION_NUM < 160000
	return pg_class_ownercheck(relid, role);
#else
	return object_ownercheck(RelationRelationId, relid, role);
#endif
}

static inline bool
compat_owns_schema(Oid schema, Oid role)
{
#if PG_VERSION_NUM < 160000
	return pg_namespace_ownercheck(schema, role);
#else
	return object_ownercheck(NamespaceRelationId, schema, role);
#endif
}

/* 16: one function for the privileges on objects of all kinds. */
static inline AclResult
compat_function_aclcheck(Oid function, Oid role, AclMode mode)
{
#if PG_VERSION_NUM < 160000
	return pg_proc_aclcheck(function, role, mode);
#else
	return object_aclcheck(ProcedureRelationId, function, role, mode);
#endif
}

/* 18: the module magic can carry name and version. */
#if PG_VERSION_NUM >= 180000
#define LOCKEXT_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "lockext", .version = "1.0")
#else
#define LOCKEXT_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif							/* LOCKEXT_COMPAT_H */
