/* sql/lockext--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION lockext" to load this file. \quit

--
-- The lock table.  One row per (domain, key); the domain's master lock has the
-- empty key.  All columns are plain, so that rows are never toasted and updates
-- stay HOT.  gen orders the versions of a row (src/store.c).
--
CREATE TABLE lockext_lock (
	gen bigint NOT NULL,
	token bigint NOT NULL,
	acquired_at timestamptz NOT NULL,
	dboid oid NOT NULL,
	owner oid NOT NULL,
	pid integer NOT NULL,
	scope "char" NOT NULL,
	domain text COLLATE "C" NOT NULL,
	key text COLLATE "C" NOT NULL,
	calling_fn text COLLATE "C" NOT NULL,
	application_name text COLLATE "C" NOT NULL,
	timeout_ms bigint,
	expires_at timestamptz,
	released_at timestamptz,
	client_addr inet,
	data jsonb,
	-- also the replica identity, for publications FOR ALL TABLES
	CONSTRAINT lockext_lock_pkey PRIMARY KEY (domain, key, gen)
)
USING heap
WITH (fillfactor = 70, vacuum_truncate = off);

ALTER TABLE lockext_lock
	ALTER COLUMN domain SET STORAGE PLAIN,
	ALTER COLUMN key SET STORAGE PLAIN,
	ALTER COLUMN calling_fn SET STORAGE PLAIN,
	ALTER COLUMN application_name SET STORAGE PLAIN,
	ALTER COLUMN client_addr SET STORAGE PLAIN,
	ALTER COLUMN data SET STORAGE PLAIN;

COMMENT ON TABLE lockext_lock IS
'lockext: the locks, held and ended; read lockext_held instead';

-- tokens are capabilities, so nobody reads the table directly
REVOKE ALL ON TABLE lockext_lock FROM PUBLIC;

CREATE FUNCTION lockext_refuse_write() RETURNS trigger
AS 'MODULE_PATHNAME', 'lockext_refuse_write'
LANGUAGE C;

COMMENT ON FUNCTION lockext_refuse_write() IS
'lockext: trigger of the lock table; refuses every change that does not come from a lockext function';

REVOKE ALL ON FUNCTION lockext_refuse_write() FROM PUBLIC;

CREATE TRIGGER lockext_refuse_write
BEFORE INSERT OR UPDATE OR DELETE ON lockext_lock
FOR EACH ROW EXECUTE FUNCTION lockext_refuse_write();

CREATE TRIGGER lockext_refuse_truncate
BEFORE TRUNCATE ON lockext_lock
FOR EACH STATEMENT EXECUTE FUNCTION lockext_refuse_write();

ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_truncate;

COMMENT ON TRIGGER lockext_refuse_write ON lockext_lock IS
'refuses direct changes; drops rows that arrive by logical replication';
COMMENT ON TRIGGER lockext_refuse_truncate ON lockext_lock IS
'refuses TRUNCATE';

--
-- Result types
--
CREATE TYPE lock_result AS (
	key text,
	domain text,
	acquired boolean,
	reason text,
	calling_fn text,
	acquired_at timestamptz,
	timeout numeric,
	expires_at timestamptz,
	token bigint,
	waited_ms bigint,
	holder jsonb
);

COMMENT ON TYPE lock_result IS
'outcome of lock_acquire() and lock_renew()';
COMMENT ON COLUMN lock_result.key IS 'null for a master lock';
COMMENT ON COLUMN lock_result.reason IS 'null if acquired, else held, busy or lost';
COMMENT ON COLUMN lock_result.timeout IS 'lifetime in seconds; null: never expires';
COMMENT ON COLUMN lock_result.token IS 'fencing token: rises with each acquisition of the key';
COMMENT ON COLUMN lock_result.waited_ms IS 'milliseconds; 0 if there was no wait';
COMMENT ON COLUMN lock_result.holder IS 'if not acquired: who stands in the way';

CREATE TYPE lock_info AS (
	key text,
	domain text,
	master boolean,
	held boolean,
	owner text,
	scope text,
	calling_fn text,
	acquired_at timestamptz,
	timeout numeric,
	expires_at timestamptz,
	token bigint,
	pid integer,
	application_name text,
	client_addr inet,
	data jsonb,
	waiters integer
);

COMMENT ON TYPE lock_info IS
'state of a lock, as lock_check() and lockext_held show it';
COMMENT ON COLUMN lock_info.key IS 'null for a master lock';
COMMENT ON COLUMN lock_info.token IS
'null for roles without the privileges of the owner or of pg_read_all_stats';
COMMENT ON COLUMN lock_info.client_addr IS 'shown like token';
COMMENT ON COLUMN lock_info.data IS 'shown like token';
COMMENT ON COLUMN lock_info.waiters IS
'sessions that wait for the lock; null if the library is not preloaded';

--
-- Functions.  All are volatile, parallel unsafe (the ones that only look need
-- a fresh snapshot, which a parallel query cannot take), and none is strict.
--
CREATE FUNCTION lock_acquire(
	key text,
	timeout integer DEFAULT NULL,
	wait_ms integer DEFAULT 0,
	scope text DEFAULT 'lease',
	calling_fn text DEFAULT NULL,
	domain text DEFAULT '',
	master boolean DEFAULT false,
	data jsonb DEFAULT NULL
) RETURNS lock_result
AS 'MODULE_PATHNAME', 'lockext_acquire'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_acquire(text, integer, integer, text, text, text, boolean, jsonb) IS
'take the lock, for timeout seconds, waiting for it up to wait_ms milliseconds (0: not at all, -1: without limit); one row, whether acquired or not; takes effect at commit';

CREATE PROCEDURE lock_acquire_wait(
	key text,
	timeout integer DEFAULT NULL,
	wait_ms integer DEFAULT -1,
	scope text DEFAULT 'lease',
	calling_fn text DEFAULT NULL,
	domain text DEFAULT '',
	master boolean DEFAULT false,
	data jsonb DEFAULT NULL,
	INOUT result lock_result DEFAULT NULL
)
AS 'MODULE_PATHNAME', 'lockext_acquire_wait'
LANGUAGE C;

COMMENT ON PROCEDURE lock_acquire_wait(text, integer, integer, text, text, text, boolean, jsonb, lock_result) IS
'take the lock like lock_acquire(), but wait for it without a snapshot: ends the current transaction first; not in a transaction block';

CREATE FUNCTION lock_try(
	key text,
	timeout integer DEFAULT NULL,
	scope text DEFAULT 'lease',
	domain text DEFAULT '',
	master boolean DEFAULT false
) RETURNS bigint
AS 'MODULE_PATHNAME', 'lockext_try'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_try(text, integer, text, text, boolean) IS
'take the lock if it is free, for timeout seconds; the fencing token, or null';

CREATE FUNCTION lock_release(
	key text,
	token bigint DEFAULT NULL,
	domain text DEFAULT '',
	master boolean DEFAULT false
) RETURNS boolean
AS 'MODULE_PATHNAME', 'lockext_release'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_release(text, bigint, text, boolean) IS
'end the lock at commit; false if it is not there, has expired, or is another owner''s or another token''s';

CREATE FUNCTION lock_renew(
	key text,
	timeout integer,
	token bigint DEFAULT NULL,
	domain text DEFAULT '',
	master boolean DEFAULT false
) RETURNS lock_result
AS 'MODULE_PATHNAME', 'lockext_renew'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_renew(text, integer, bigint, text, boolean) IS
'let the lock live for timeout seconds from now; reason lost if it is no longer ours';

CREATE FUNCTION lock_guard(
	key text,
	token bigint DEFAULT NULL,
	domain text DEFAULT '',
	master boolean DEFAULT false
) RETURNS void
AS 'MODULE_PATHNAME', 'lockext_guard'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_guard(text, bigint, text, boolean) IS
'error LK001 unless the lock is ours; else nobody else can take it before this transaction ends, whether or not it expires';

CREATE FUNCTION lock_check(
	key text,
	domain text DEFAULT '',
	master boolean DEFAULT false
) RETURNS lock_info
AS 'MODULE_PATHNAME', 'lockext_check'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_check(text, text, boolean) IS
'state of the lock at this moment; one row, held is false if it is free; read-only';

CREATE FUNCTION lock_break(
	key text,
	wait_ms integer DEFAULT 0,
	domain text DEFAULT '',
	master boolean DEFAULT false
) RETURNS boolean
AS 'MODULE_PATHNAME', 'lockext_break'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_break(text, integer, text, boolean) IS
'end anybody''s lock at commit; false if nobody holds it; 55P03 if an open transaction is in the way for longer than wait_ms milliseconds (-1: without limit)';

-- ends other roles' locks: for those an administrator grants it to
REVOKE ALL ON FUNCTION lock_break(text, integer, text, boolean) FROM PUBLIC;

--
-- Locks by JSON
--
CREATE FUNCTION lock_request(request jsonb) RETURNS jsonb
AS 'MODULE_PATHNAME', 'lockext_request'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_request(jsonb) IS
'acquire, release or check a lock as a JSON object asks for; the reply says how it went, errors included';

CREATE FUNCTION lock_event(
	action text,
	payload jsonb,
	event_meta jsonb DEFAULT '{}'
) RETURNS jsonb
AS 'MODULE_PATHNAME', 'lockext_event'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_event(text, jsonb, jsonb) IS
'TryLock, Unlock or CheckLock for the id in an event''s payload; the payload, with the result merged into it';

CREATE FUNCTION lockext_held() RETURNS SETOF lock_info
AS 'MODULE_PATHNAME', 'lockext_held'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lockext_held() IS
'every lock held at this moment; see the view of the same name';

CREATE VIEW lockext_held AS SELECT * FROM lockext_held();

COMMENT ON VIEW lockext_held IS
'every lock held at this moment, in this database';

GRANT SELECT ON lockext_held TO PUBLIC;

CREATE FUNCTION lockext_waiters(
	OUT pid integer,
	OUT owner text,
	OUT key text,
	OUT domain text,
	OUT master boolean,
	OUT "position" integer,
	OUT since timestamptz,
	OUT scope text,
	OUT form text
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'lockext_waiters'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lockext_waiters() IS
'every session that waits for a lock; see the view of the same name';

CREATE VIEW lockext_waiters AS SELECT * FROM lockext_waiters();

COMMENT ON VIEW lockext_waiters IS
'every session that waits for a lock of this database; empty if the library is not preloaded';
COMMENT ON COLUMN lockext_waiters.owner IS 'the role that will own the lock';
COMMENT ON COLUMN lockext_waiters.key IS 'null for a master lock';
COMMENT ON COLUMN lockext_waiters."position" IS '1: the next to have the lock';
COMMENT ON COLUMN lockext_waiters.scope IS 'of the lock that is waited for';
COMMENT ON COLUMN lockext_waiters.form IS
'statement (lock_acquire) or call (lock_acquire_wait)';

GRANT SELECT ON lockext_waiters TO PUBLIC;

--
-- Guarded tables and schemas
--
CREATE TABLE lockext_guarded_schema (
	schema text COLLATE "C" PRIMARY KEY,
	domain text COLLATE "C" NOT NULL,
	key text COLLATE "C" NOT NULL
)
USING heap;

COMMENT ON TABLE lockext_guarded_schema IS
'lockext: the schemas that lock_guard_schema() guards; see lockext_guards';

REVOKE ALL ON TABLE lockext_guarded_schema FROM PUBLIC;

-- by name, so that guards are dumped and restored
SELECT pg_catalog.pg_extension_config_dump('lockext_guarded_schema', '');

CREATE FUNCTION lockext_ignore_replicated() RETURNS trigger
AS 'MODULE_PATHNAME', 'lockext_ignore_replicated'
LANGUAGE C;

COMMENT ON FUNCTION lockext_ignore_replicated() IS
'lockext: trigger of the table of guarded schemas; drops rows that arrive by logical replication';

REVOKE ALL ON FUNCTION lockext_ignore_replicated() FROM PUBLIC;

CREATE TRIGGER lockext_ignore_replicated
BEFORE INSERT OR UPDATE OR DELETE ON lockext_guarded_schema
FOR EACH ROW EXECUTE FUNCTION lockext_ignore_replicated();

ALTER TABLE lockext_guarded_schema ENABLE ALWAYS TRIGGER lockext_ignore_replicated;

COMMENT ON TRIGGER lockext_ignore_replicated ON lockext_guarded_schema IS
'drops rows that arrive by logical replication';

-- whoever owns a table may put it on that, so it is for everybody
CREATE FUNCTION lockext_guard_write() RETURNS trigger
AS 'MODULE_PATHNAME', 'lockext_guard_write'
LANGUAGE C;

COMMENT ON FUNCTION lockext_guard_write() IS
'lockext: trigger of guarded tables, made by lock_guard_table(); arguments: key, domain';

CREATE FUNCTION lockext_ddl_start() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'lockext_ddl_start'
LANGUAGE C;

COMMENT ON FUNCTION lockext_ddl_start() IS
'lockext: event trigger, made with the first guard; refuses commands that cannot be rolled back';

CREATE FUNCTION lockext_ddl_end() RETURNS event_trigger
AS 'MODULE_PATHNAME', 'lockext_ddl_end'
LANGUAGE C;

COMMENT ON FUNCTION lockext_ddl_end() IS
'lockext: event trigger, made with the first guard; guards are in effect as long as it is there';

REVOKE ALL ON FUNCTION lockext_ddl_start() FROM PUBLIC;
REVOKE ALL ON FUNCTION lockext_ddl_end() FROM PUBLIC;

CREATE FUNCTION lock_guard_table(
	relation regclass,
	key text,
	domain text DEFAULT ''
) RETURNS void
AS 'MODULE_PATHNAME', 'lockext_guard_table'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_guard_table(regclass, text, text) IS
'from now on writing to the table, its partitions and children is error LK002 for a transaction that does not have the lock; for the owner of the table';

CREATE FUNCTION lock_unguard_table(relation regclass) RETURNS void
AS 'MODULE_PATHNAME', 'lockext_unguard_table'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_unguard_table(regclass) IS
'end what lock_guard_table() began; for the owner of the table, with the lock';

CREATE FUNCTION lock_guard_schema(
	schema regnamespace,
	key text,
	domain text DEFAULT ''
) RETURNS void
AS 'MODULE_PATHNAME', 'lockext_guard_schema'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_guard_schema(regnamespace, text, text) IS
'from now on DDL on the schema and its objects is error LK002 for a transaction that does not have the lock; for the owner of the schema';

CREATE FUNCTION lock_unguard_schema(schema regnamespace) RETURNS void
AS 'MODULE_PATHNAME', 'lockext_unguard_schema'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lock_unguard_schema(regnamespace) IS
'end what lock_guard_schema() began; for the owner of the schema, with the lock';

CREATE FUNCTION lockext_guards(
	OUT kind text,
	OUT schema text,
	OUT relation text,
	OUT key text,
	OUT domain text,
	OUT held boolean,
	OUT owner text,
	OUT scope text,
	OUT calling_fn text,
	OUT acquired_at timestamptz,
	OUT expires_at timestamptz,
	OUT pid integer,
	OUT application_name text
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'lockext_guards'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lockext_guards() IS
'every guarded table and schema; see the view of the same name';

CREATE VIEW lockext_guards AS SELECT * FROM lockext_guards();

COMMENT ON VIEW lockext_guards IS
'what is guarded by which lock in this database, and who holds it at this moment';
COMMENT ON COLUMN lockext_guards.kind IS 'table or schema';
COMMENT ON COLUMN lockext_guards.relation IS 'null for a schema';

GRANT SELECT ON lockext_guards TO PUBLIC;

-- Say so once if the library is not preloaded.
CREATE FUNCTION lockext_note_preload() RETURNS void
AS 'MODULE_PATHNAME', 'lockext_note_preload'
LANGUAGE C;

SELECT lockext_note_preload();

DROP FUNCTION lockext_note_preload();
