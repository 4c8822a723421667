--
-- The lock table: closed to everybody, and what happens when a superuser
-- tampers with it all the same
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
\pset null '<NULL>'

CREATE FUNCTION pg_temp.sqlstate(stmt text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE stmt;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
-- of every function, for one key
CREATE FUNCTION pg_temp.all_functions(k text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT string_agg(fn || ' ' || pg_temp.sqlstate(format('SELECT * FROM %s', format(call, k))), ', ' ORDER BY n)
		FROM (VALUES (1, 'acquire', 'lock_acquire(%L, 60)'), (2, 'try', 'lock_try(%L, 60)'),
					 (3, 'release', 'lock_release(%L)'), (4, 'renew', 'lock_renew(%L, 60)'),
					 (5, 'check', 'lock_check(%L)')) f(n, fn, call));
END $$;

SELECT acquired FROM lock_acquire('tab', 600, calling_fn => 'keeper');
CREATE TEMP TABLE before AS SELECT * FROM lockext_lock WHERE key = 'tab';

-- direct changes are refused, also for a superuser
INSERT INTO lockext_lock SELECT * FROM lockext_lock WHERE key = 'tab';
UPDATE lockext_lock SET expires_at = NULL WHERE key = 'tab';
DELETE FROM lockext_lock WHERE key = 'tab';
TRUNCATE lockext_lock;
COPY lockext_lock (gen, token, acquired_at, dboid, owner, pid, scope, domain, key, calling_fn, application_name) FROM stdin (DELIMITER ',');
1,1,2024-01-01 00:00:00+00,1,10,1,l,orders,forged,fn,app
\.
MERGE INTO lockext_lock l USING before b ON l.key = b.key WHEN MATCHED THEN DELETE;
SELECT stmt, pg_temp.sqlstate(stmt)
FROM (VALUES (1, 'INSERT INTO lockext_lock SELECT * FROM before'),
			 (2, 'INSERT INTO lockext_lock SELECT * FROM before ON CONFLICT DO NOTHING'),
			 (3, 'UPDATE lockext_lock SET token = 1'),
			 (4, 'DELETE FROM lockext_lock'),
			 (5, 'TRUNCATE lockext_lock'),
			 (6, 'TRUNCATE lockext_lock CASCADE')) v(n, stmt)
ORDER BY n;
-- also as a replica, where ordinary triggers do not fire
SET session_replication_role = replica;
INSERT INTO lockext_lock SELECT * FROM before;
UPDATE lockext_lock SET token = 1 WHERE key = 'tab';
DELETE FROM lockext_lock WHERE key = 'tab';
TRUNCATE lockext_lock;
COPY lockext_lock (gen, token, acquired_at, dboid, owner, pid, scope, domain, key, calling_fn, application_name) FROM stdin (DELIMITER ',');
1,1,2024-01-01 00:00:00+00,1,10,1,l,orders,forged,fn,app
\.
-- where lockext itself works as ever
SELECT timeout FROM lock_renew('tab', 300);
SELECT lock_try('tab-replica', 60) IS NOT NULL AS acquired, lock_release('tab-replica');
RESET session_replication_role;
SELECT l.token = b.token AS token, l.gen = b.gen AS gen, l.timeout_ms, l.calling_fn
FROM lockext_lock l, before b WHERE l.key = 'tab';
SELECT count(*) FROM lockext_lock WHERE key = 'forged';
-- nor through a view
CREATE VIEW regress_lockext_v AS SELECT * FROM lockext_lock;
UPDATE regress_lockext_v SET token = 1 WHERE key = 'tab';
DROP VIEW regress_lockext_v;

-- a damaged row: no crash, no grant, XX001, until lock_break() repairs it
SELECT lock_release('tab');
SELECT count(lock_try('tab-' || i, 600)) FROM generate_series(1, 14) i;
CREATE TEMP TABLE tokens AS SELECT key, token FROM lockext_held;
-- some columns must be nullable to be damaged that way
CREATE TEMP TABLE damage AS SELECT * FROM (VALUES
	(1, 'token = -1'),
	(2, 'token = 9007199254740991'),
	(3, 'token = 9223372036854775807'),
	(4, 'scope = ''?'''),
	(5, 'owner = 0'),
	(6, 'acquired_at = ''infinity'''),
	(7, 'expires_at = ''-infinity'''),
	(8, 'released_at = ''-infinity'''),
	(9, 'expires_at = NULL'),
	(10, 'timeout_ms = NULL'),
	(11, 'timeout_ms = -5, expires_at = acquired_at'),
	(12, 'calling_fn = NULL'),
	(13, 'token = NULL'),
	(14, 'scope = NULL')) v(n, damage);
BEGIN;
ALTER TABLE lockext_lock DISABLE TRIGGER ALL;
ALTER TABLE lockext_lock ALTER calling_fn DROP NOT NULL, ALTER token DROP NOT NULL, ALTER scope DROP NOT NULL;
DO $$
DECLARE
	d record;
BEGIN
	FOR d IN SELECT * FROM damage LOOP
		EXECUTE format('UPDATE lockext_lock SET %s WHERE key = %L', d.damage, 'tab-' || d.n);
	END LOOP;
END $$;
COMMIT;
SELECT damage, pg_temp.all_functions('tab-' || n) FROM damage ORDER BY n;
SELECT lock_acquire('tab-4', 60);
SELECT lock_check('tab-13');
-- the view reports each and shows the rest
SELECT lock_try('tab-sound', 60) IS NOT NULL AS acquired;
\set VERBOSITY sqlstate
SELECT key FROM lockext_held ORDER BY key;
\set VERBOSITY default
-- other keys are not concerned
SELECT pg_temp.all_functions('tab-sound');
SELECT damage, lock_break('tab-' || n) FROM damage ORDER BY n;
SELECT count(*) FROM lockext_held WHERE key LIKE 'tab-%';
SELECT damage, (lock_check('tab-' || n)).held, lock_break('tab-' || n) FROM damage ORDER BY n;
-- free again, and where the old token could be read the new one is greater
SELECT d.damage, r.acquired, r.token > t.token AS newer
FROM damage d JOIN tokens t ON t.key = 'tab-' || n, LATERAL lock_acquire(t.key, 60) r ORDER BY n;
SELECT count(*) FROM lockext_held WHERE key LIKE 'tab-%' AND lock_release(key);
ALTER TABLE lockext_lock ALTER calling_fn SET NOT NULL, ALTER token SET NOT NULL, ALTER scope SET NOT NULL;
-- a name that is too long is nobody's; only the view comes across it
BEGIN;
UPDATE lockext_lock SET key = repeat('x', 257) WHERE key = 'tab-1';
UPDATE lockext_lock SET domain = repeat('x', 256) WHERE key = 'tab-2';
COMMIT;
\set VERBOSITY sqlstate
SELECT key FROM lockext_held ORDER BY key;
\set VERBOSITY default
SELECT (lock_check('tab-1')).held, lock_try('tab-1', 60) IS NOT NULL AS acquired, lock_release('tab-1');
BEGIN;
DELETE FROM lockext_lock WHERE length(key) = 257 OR length(domain) = 256;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_truncate;
COMMIT;
SELECT key FROM lockext_held ORDER BY key;
DELETE FROM lockext_lock;

-- an altered table is refused, and works again when the change is rolled back
BEGIN;
ALTER TABLE lockext_lock ADD COLUMN note text;
SELECT pg_temp.all_functions('tab');
SELECT pg_temp.sqlstate('SELECT lock_break(''tab'')'), pg_temp.sqlstate('SELECT * FROM lockext_held');
SELECT lock_try('tab', 60);
ROLLBACK;
SELECT pg_temp.all_functions('tab');
BEGIN;
ALTER TABLE lockext_lock DROP COLUMN data;
SELECT pg_temp.all_functions('tab');
SELECT lock_check('tab');
ROLLBACK;
BEGIN;
ALTER TABLE lockext_lock ALTER pid TYPE bigint;
SELECT pg_temp.all_functions('tab');
ROLLBACK;
BEGIN;
ALTER TABLE lockext_lock SET UNLOGGED;
ALTER TABLE lockext_lock SET (fillfactor = 40);
SELECT pg_temp.all_functions('tab');
ROLLBACK;

-- without its primary key, or with another one
BEGIN;
ALTER TABLE lockext_lock DROP CONSTRAINT lockext_lock_pkey;
SELECT pg_temp.all_functions('tab');
SELECT pg_temp.sqlstate('SELECT lock_break(''tab'')'), pg_temp.sqlstate('SELECT * FROM lockext_held');
SAVEPOINT s;
SELECT lock_try('tab', 60);
ROLLBACK TO s;
ALTER TABLE lockext_lock ADD PRIMARY KEY (key, domain, gen);
SELECT pg_temp.all_functions('tab');
SELECT lock_try('tab', 60);
ROLLBACK TO s;
ALTER TABLE lockext_lock ADD CONSTRAINT again PRIMARY KEY (domain, key, gen);
SELECT pg_temp.all_functions('tab');
ROLLBACK;

-- gone
BEGIN;
ALTER TABLE lockext_lock RENAME TO lockext_renamed;
SELECT pg_temp.all_functions('tab');
SELECT pg_temp.sqlstate('SELECT lock_break(''tab'')'), pg_temp.sqlstate('SELECT * FROM lockext_held');
SELECT lock_try('tab', 60);
ROLLBACK;
BEGIN;
ALTER EXTENSION lockext DROP TABLE lockext_lock;
DROP TABLE lockext_lock;
SELECT pg_temp.all_functions('tab');
ROLLBACK;
\set VERBOSITY sqlstate
DROP TABLE lockext_lock;
\set VERBOSITY default
SELECT pg_temp.all_functions('tab');

-- what an administrator may do: more indexes, rebuilding, vacuuming, analysing
SELECT lock_try('tab-kept', 600) AS kept \gset
CREATE INDEX regress_lockext_owner ON lockext_lock (owner);
CREATE INDEX regress_lockext_part ON lockext_lock (upper(key)) WHERE released_at IS NULL;
SELECT lock_try('tab-admin', 600) IS NOT NULL AS acquired;
SELECT count(*) FROM (SELECT lock_try('tab-cycle', 60), lock_release('tab-cycle') FROM generate_series(1, 300)) x;
VACUUM lockext_lock;
VACUUM FULL lockext_lock;
SELECT lock_try('tab-kept', 60), lock_release('tab-admin');
CLUSTER lockext_lock USING lockext_lock_pkey;
SELECT lock_try('tab-kept', 60), lock_try('tab-admin', 60) IS NOT NULL AS acquired;
REINDEX TABLE lockext_lock;
REINDEX TABLE CONCURRENTLY lockext_lock;
ANALYZE lockext_lock;
SELECT lock_try('tab-kept', 60), lock_try('tab-admin', 60), (lock_check('tab-kept')).token = :kept AS same;
SET enable_seqscan = off;
SELECT key FROM lockext_lock WHERE upper(key) = 'TAB-KEPT' AND released_at IS NULL;
SELECT key FROM lockext_lock WHERE upper(key) = 'TAB-ADMIN' AND released_at IS NULL;
SELECT count(*) FROM lockext_lock WHERE upper(key) = 'TAB-CYCLE' AND released_at IS NULL;
RESET enable_seqscan;
DROP INDEX regress_lockext_owner, regress_lockext_part;
SELECT lock_release('tab-kept', :kept), lock_release('tab-admin');

-- and reading it
COPY (SELECT key FROM lockext_lock WHERE key = 'tab-kept') TO stdout;

-- the table's properties: no TOAST table, not dumped, no type that keeps pg_upgrade away
SELECT relkind, relpersistence, reltoastrelid <> 0 AS toast, relreplident, reloptions
FROM pg_class WHERE oid = 'lockext_lock'::regclass;
SELECT extconfig::regclass[], extrelocatable FROM pg_extension WHERE extname = 'lockext';
SELECT attname, format_type(atttypid, atttypmod), attnotnull, attstorage, attcollation = 950 AS "C" FROM pg_attribute
WHERE attrelid = 'lockext_lock'::regclass AND attnum > 0 ORDER BY attnum;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'lockext_lock'::regclass ORDER BY 1;
SELECT indexrelid::regclass::text ~ 'lockext_lock_pkey$' AS pkey, indisprimary, indkey FROM pg_index
WHERE indrelid = 'lockext_lock'::regclass;

SELECT key FROM lockext_held ORDER BY key;

-- what a try has seen counts for a second only: a superuser may have changed the table
SELECT lock_try('tab-seen', 600) IS NOT NULL AS acquired;
SELECT lock_try('tab-seen', 600);
ALTER TABLE lockext_lock DISABLE TRIGGER ALL;
DELETE FROM lockext_lock WHERE key = 'tab-seen';
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_truncate;
SELECT pg_sleep(1.1);
SELECT lock_try('tab-seen', 600) IS NOT NULL AS acquired, lock_release('tab-seen');

-- nor is what was seen of one lock taken for another's: more names than there is room for
SELECT lock_try('tab-0000', 600) IS NOT NULL AS acquired;
DO $$
DECLARE
	refused integer := 0;
BEGIN
	FOR i IN 1 .. 5000 LOOP
		IF i % 100 = 0 THEN
			COMMIT;
			ASSERT lock_try('tab-0000', 600) IS NULL;
		END IF;
		refused := refused + (lock_try('tab-' || to_char(i, 'FM0000'), 60) IS NULL)::integer;
		PERFORM lock_release('tab-' || to_char(i, 'FM0000'));
	END LOOP;
	ASSERT refused = 0, refused || ' free locks were refused';
END $$;
SELECT lock_release('tab-0000');
