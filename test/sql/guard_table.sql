--
-- Guarded tables: writes without the lock are refused with LK002
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
-- rather than the notices of TRUNCATE CASCADE
SET client_min_messages = error;
SET application_name = 'guard test';
\pset null '<NULL>'

CREATE ROLE regress_lockext_alice;
CREATE ROLE regress_lockext_bob;
CREATE SCHEMA gt;
GRANT ALL ON SCHEMA gt TO regress_lockext_alice, regress_lockext_bob;
SET search_path = gt, public;

-- what a statement ends in; it is undone
CREATE FUNCTION pg_temp.tried(stmt text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE stmt;
	RAISE SQLSTATE 'UNDO0';
EXCEPTION
	WHEN SQLSTATE 'UNDO0' THEN
		RETURN 'passes';
	WHEN OTHERS THEN
		RETURN SQLSTATE;
END $$;
-- the error in full; numbers that change are masked
CREATE FUNCTION pg_temp.error(stmt text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE stmt;
	RAISE SQLSTATE 'UNDO0';
EXCEPTION
	WHEN SQLSTATE 'UNDO0' THEN
		RETURN 'passes';
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
			hint = PG_EXCEPTION_HINT;
		detail := regexp_replace(detail, '\d{4}-\d\d-\d\d [0-9:.]+[+-]\d\d', 'TIME', 'g');
		detail := regexp_replace(detail, 'process \d+', 'process PID');
		RETURN concat_ws(E'\n', SQLSTATE || ': ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
CREATE FUNCTION pg_temp.until_free(k text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	WHILE (lock_check(k)).held LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN true;
END $$;
-- the triggers of the guards of a table
CREATE VIEW pg_temp.triggers AS
	SELECT c.relname, string_agg(t.tgname || ' ' || t.tgenabled::text, ', ' ORDER BY t.tgname) AS triggers
	FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	WHERE t.tgfoid = 'lockext_guard_write'::regproc
	GROUP BY c.oid, c.relname;
GRANT SELECT ON pg_temp.triggers TO PUBLIC;
\pset format unaligned
\pset tuples_only on

-- the ways to a table
CREATE TABLE plain (n integer PRIMARY KEY, v text);
INSERT INTO plain VALUES (1, 'old'), (2, 'old');
CREATE VIEW simple_view AS SELECT * FROM plain WHERE n < 100;
CREATE VIEW ruled_view AS SELECT 1 AS one;
CREATE RULE ruled AS ON INSERT TO ruled_view DO INSTEAD INSERT INTO plain VALUES (NEW.one + 10);
CREATE FUNCTION write_plain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO gt.plain VALUES (20);
	RETURN NULL;
END $$;
CREATE VIEW instead_view AS SELECT 1 AS one;
CREATE TRIGGER instead INSTEAD OF INSERT ON instead_view FOR EACH ROW EXECUTE FUNCTION write_plain();
CREATE TABLE other (n integer);
CREATE TRIGGER writer AFTER INSERT ON other EXECUTE FUNCTION write_plain();
CREATE TABLE later (n integer);
CREATE CONSTRAINT TRIGGER writer AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION write_plain();
CREATE FUNCTION write_definer() RETURNS void LANGUAGE sql SECURITY DEFINER AS
	'INSERT INTO gt.plain VALUES (30)';

CREATE TABLE referenced (n integer PRIMARY KEY);
INSERT INTO referenced VALUES (1), (2), (3), (4);
CREATE TABLE cascading (n integer REFERENCES referenced ON DELETE CASCADE ON UPDATE CASCADE);
INSERT INTO cascading VALUES (1);
CREATE TABLE nulling (n integer REFERENCES referenced ON DELETE SET NULL);
INSERT INTO nulling VALUES (2);

CREATE TABLE tree (n integer) PARTITION BY RANGE (n);
CREATE TABLE tree_1 PARTITION OF tree FOR VALUES FROM (1) TO (10);
CREATE TABLE tree_2 PARTITION OF tree FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (n);
CREATE TABLE tree_21 PARTITION OF tree_2 FOR VALUES FROM (10) TO (15);
INSERT INTO tree VALUES (1), (11);
CREATE TABLE leafy (n integer) PARTITION BY LIST (n);
CREATE TABLE leafy_1 PARTITION OF leafy FOR VALUES IN (1);
CREATE TABLE leafy_2 PARTITION OF leafy FOR VALUES IN (2);
INSERT INTO leafy VALUES (1), (2);
CREATE TABLE parent (n integer);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE grandchild () INHERITS (child);
INSERT INTO child VALUES (1);

SELECT lock_guard_table('plain', 'k');
SELECT lock_guard_table('cascading', 'k');
SELECT lock_guard_table('nulling', 'k');
SELECT lock_guard_table('tree', 'k');
SELECT lock_guard_table('leafy_1', 'k');
SELECT lock_guard_table('parent', 'k');

-- what has become part of a guarded tree later
CREATE TABLE tree_3 PARTITION OF tree FOR VALUES FROM (20) TO (30);
CREATE TABLE tree_22 PARTITION OF tree_2 DEFAULT;
CREATE TABLE tree_4 (n integer) PARTITION BY LIST (n);
CREATE TABLE tree_41 PARTITION OF tree_4 FOR VALUES IN (30);
ALTER TABLE tree ATTACH PARTITION tree_4 FOR VALUES FROM (30) TO (40);
CREATE TABLE tree_5 PARTITION OF tree FOR VALUES FROM (40) TO (50);
ALTER TABLE tree DETACH PARTITION tree_5;
CREATE TABLE child_2 () INHERITS (parent);
CREATE TABLE child_3 (n integer);
CREATE TABLE child_31 () INHERITS (child_3);
ALTER TABLE child_3 INHERIT parent;
-- and what was guarded before it was put below an unguarded table
CREATE TABLE orphan (n integer);
SELECT lock_guard_table('orphan', 'k');
ALTER TABLE leafy ATTACH PARTITION orphan FOR VALUES IN (3);
CREATE TABLE ancestor (n integer);
CREATE TABLE heir (n integer);
INSERT INTO heir VALUES (1);
SELECT lock_guard_table('heir', 'k');
ALTER TABLE heir INHERIT ancestor;
SELECT * FROM triggers ORDER BY relname;

CREATE TEMP TABLE writes (n integer, stmt text);
INSERT INTO writes VALUES
	(1, 'INSERT INTO plain VALUES (3)'),
	(2, 'INSERT INTO plain SELECT 3 WHERE false'),
	(3, 'UPDATE plain SET v = ''new'''),
	(4, 'UPDATE plain SET v = ''new'' WHERE false'),
	(5, 'DELETE FROM plain'),
	(6, 'DELETE FROM plain WHERE n = 0'),
	(7, 'TRUNCATE plain'),
	(8, 'TRUNCATE other, plain'),
	(9, 'COPY plain (n) FROM PROGRAM ''echo 3'''),
	(10, 'COPY plain FROM PROGRAM ''true'''),
	(11, 'INSERT INTO plain VALUES (1) ON CONFLICT DO NOTHING'),
	(12, 'INSERT INTO plain VALUES (1) ON CONFLICT (n) DO UPDATE SET v = ''new'''),
	(13, 'MERGE INTO plain p USING (VALUES (3)) s (n) ON p.n = s.n WHEN NOT MATCHED THEN INSERT VALUES (s.n)'),
	(14, 'MERGE INTO plain p USING (VALUES (1)) s (n) ON p.n = s.n WHEN MATCHED THEN UPDATE SET v = ''new'''),
	(15, 'MERGE INTO plain p USING (VALUES (1)) s (n) ON p.n = s.n WHEN MATCHED THEN DELETE'),
	(16, 'WITH w AS (INSERT INTO plain VALUES (3) RETURNING n) SELECT * FROM w'),
	(17, 'WITH w AS (DELETE FROM plain) SELECT 1'),
	(18, 'EXPLAIN (ANALYZE, COSTS off) UPDATE plain SET v = ''new'''),
	(19, 'INSERT INTO simple_view VALUES (3)'),
	(20, 'UPDATE simple_view SET v = ''new'''),
	(21, 'DELETE FROM simple_view'),
	(22, 'INSERT INTO ruled_view VALUES (1)'),
	(23, 'INSERT INTO instead_view VALUES (1)'),
	(24, 'INSERT INTO other VALUES (1)'),
	(25, 'INSERT INTO later VALUES (1); SET CONSTRAINTS ALL IMMEDIATE'),
	(26, 'SELECT write_definer()'),
	(27, 'DO ''BEGIN INSERT INTO gt.plain VALUES (3); END'''),
	(30, 'DELETE FROM referenced WHERE n = 1'),
	(31, 'DELETE FROM referenced WHERE n = 2'),
	(32, 'UPDATE referenced SET n = 9 WHERE n = 1'),
	(33, 'TRUNCATE referenced CASCADE'),
	(40, 'INSERT INTO tree VALUES (1)'),
	(41, 'INSERT INTO tree_1 VALUES (1)'),
	(42, 'INSERT INTO tree_2 VALUES (11)'),
	(43, 'INSERT INTO tree_21 VALUES (11)'),
	(44, 'UPDATE tree SET n = n + 10 WHERE n = 1'),
	(45, 'UPDATE tree_1 SET n = 2'),
	(46, 'DELETE FROM tree'),
	(47, 'DELETE FROM tree_2 WHERE false'),
	(48, 'DELETE FROM tree_21 WHERE false'),
	(49, 'TRUNCATE tree'),
	(50, 'TRUNCATE ONLY tree_1'),
	(51, 'TRUNCATE tree_2'),
	(52, 'COPY tree FROM PROGRAM ''echo 1'''),
	(53, 'COPY tree_1 FROM PROGRAM ''echo 1'''),
	(54, 'MERGE INTO tree t USING (VALUES (1)) s (n) ON t.n = s.n WHEN MATCHED THEN DELETE'),
	(55, 'INSERT INTO tree_3 VALUES (20)'),
	(56, 'INSERT INTO tree VALUES (20)'),
	(57, 'TRUNCATE tree_3'),
	(58, 'INSERT INTO tree_22 VALUES (16)'),
	(59, 'INSERT INTO tree_4 VALUES (30)'),
	(60, 'INSERT INTO tree_41 VALUES (30)'),
	(61, 'TRUNCATE tree_41'),
	(62, 'INSERT INTO tree_5 VALUES (40)'),
	(63, 'TRUNCATE tree_5'),
	(70, 'INSERT INTO leafy VALUES (1)'),
	(71, 'INSERT INTO leafy_1 VALUES (1)'),
	(72, 'UPDATE leafy SET n = 1 WHERE n = 2'),
	(73, 'UPDATE leafy SET n = 2 WHERE n = 1'),
	(75, 'DELETE FROM leafy'),
	(76, 'TRUNCATE leafy'),
	(77, 'COPY leafy FROM PROGRAM ''echo 1'''),
	(78, 'INSERT INTO leafy VALUES (3)'),
	(79, 'INSERT INTO orphan VALUES (3)'),
	(80, 'INSERT INTO parent VALUES (1)'),
	(81, 'INSERT INTO child VALUES (1)'),
	(82, 'INSERT INTO grandchild VALUES (1)'),
	(83, 'UPDATE parent SET n = 2'),
	(84, 'DELETE FROM ONLY parent'),
	(85, 'UPDATE child SET n = 2 WHERE false'),
	(86, 'TRUNCATE child'),
	(87, 'TRUNCATE ONLY grandchild'),
	(88, 'INSERT INTO child_2 VALUES (1)'),
	(89, 'INSERT INTO child_3 VALUES (1)'),
	(90, 'INSERT INTO child_31 VALUES (1)'),
	(91, 'TRUNCATE child_31'),
	(92, 'UPDATE ancestor SET n = 2'),
	(93, 'DELETE FROM ancestor'),
	(94, 'TRUNCATE ancestor'),
	(95, 'INSERT INTO heir VALUES (1)');
-- no write to what is guarded
CREATE TEMP TABLE others (n integer, stmt text);
INSERT INTO others VALUES
	(1, 'SELECT * FROM plain FOR UPDATE'),
	(2, 'MERGE INTO plain p USING (VALUES (1)) s (n) ON p.n = s.n WHEN MATCHED THEN DO NOTHING'),
	(3, 'EXPLAIN UPDATE plain SET v = ''new'''),
	(4, 'INSERT INTO referenced VALUES (9)'),
	(5, 'UPDATE referenced SET n = n'),
	(6, 'INSERT INTO leafy VALUES (2)'),
	(7, 'INSERT INTO leafy_2 VALUES (2)'),
	(8, 'DELETE FROM leafy WHERE n = 2'),
	(9, 'DELETE FROM leafy WHERE false'),
	(10, 'TRUNCATE leafy_2'),
	(11, 'INSERT INTO ancestor VALUES (1)'),
	(12, 'DELETE FROM ONLY ancestor'),
	(13, 'CREATE TABLE plain_2 (LIKE plain INCLUDING ALL); INSERT INTO plain_2 VALUES (1)'),
	(14, 'ANALYZE plain');
SELECT n, stmt, pg_temp.tried(stmt) FROM others ORDER BY n;

-- who has the lock
CREATE TEMP TABLE results (n integer, way text, result text);
CREATE VIEW pg_temp.summary AS
	SELECT way, result, count(*) FROM results GROUP BY way, result ORDER BY way, result;
INSERT INTO results SELECT n, '01 nobody', pg_temp.tried(stmt) FROM writes;
BEGIN;
SELECT lock_try('k', scope => 'transaction') IS NOT NULL;
INSERT INTO results SELECT n, '02 the transaction', pg_temp.tried(stmt) FROM writes;
COMMIT;
BEGIN;
SELECT lock_try('k', 600) IS NOT NULL;
INSERT INTO results SELECT n, '03 it has taken a lease', pg_temp.tried(stmt) FROM writes;
COMMIT;
INSERT INTO results SELECT n, '04 an earlier transaction has', pg_temp.tried(stmt) FROM writes;
BEGIN;
SELECT lock_guard('k');
INSERT INTO results SELECT n, '05 it has guarded that', pg_temp.tried(stmt) FROM writes;
COMMIT;
INSERT INTO results SELECT n, '06 the next one', pg_temp.tried(stmt) FROM writes;
BEGIN;
SELECT acquired FROM lock_renew('k', 600);
INSERT INTO results SELECT n, '07 it has renewed it', pg_temp.tried(stmt) FROM writes;
COMMIT;
SELECT token AS token FROM lock_check('k') \gset
SELECT set_config('lockext.token', 'k=' || :token, false) <> '';
INSERT INTO results SELECT n, '08 the token is presented', pg_temp.tried(stmt) FROM writes;
SELECT 'k=' || :token - 1 AS wrong \gset
SET lockext.token = :'wrong';
INSERT INTO results SELECT n, '09 a wrong token is', pg_temp.tried(stmt) FROM writes;
RESET lockext.token;
SELECT lock_release('k');
SELECT set_config('lockext.token', 'k=' || :token, false) <> '';
INSERT INTO results SELECT n, '10 a released token is', pg_temp.tried(stmt) FROM writes;
RESET lockext.token;
SELECT lock_try('k', 600, 'session') IS NOT NULL;
INSERT INTO results SELECT n, '11 the session', pg_temp.tried(stmt) FROM writes;
SELECT lock_release('k');
SELECT lock_try('K') IS NOT NULL, lock_try('k', domain => 'd') IS NOT NULL,
	lock_try(NULL, domain => '', master => true) IS NOT NULL, lock_try('k1', 600) IS NOT NULL;
INSERT INTO results SELECT n, '12 others are held', pg_temp.tried(stmt) FROM writes;
SELECT lock_release('K'), lock_release('k', domain => 'd'), lock_release(NULL, domain => '', master => true), lock_release('k1');
SELECT * FROM summary;
-- what is not as the others of its kind
SELECT r.way, r.result, w.stmt
FROM results r JOIN writes w USING (n)
	JOIN (SELECT way, mode() WITHIN GROUP (ORDER BY result) AS result FROM results GROUP BY way) usual USING (way)
WHERE r.result <> usual.result
ORDER BY r.way, r.n;
-- nothing was written
SELECT (SELECT count(*) FROM plain), (SELECT count(*) FROM tree), (SELECT count(*) FROM leafy), (SELECT count(*) FROM parent);

-- the error in full
SELECT pg_temp.error('INSERT INTO plain VALUES (3)');
SELECT pg_temp.error('TRUNCATE tree_1');
COPY plain FROM stdin;
3	copied
\.
SELECT pg_temp.error('INSERT INTO leafy VALUES (1)');
SET ROLE regress_lockext_alice;
SELECT lock_try('k', 600) IS NOT NULL;
RESET ROLE;
SELECT pg_temp.error('INSERT INTO plain VALUES (3)');
SELECT lock_break('k');
SELECT lock_try('k', 1) IS NOT NULL;
SELECT pg_temp.until_free('k');
SELECT pg_temp.error('INSERT INTO plain VALUES (3)');
CREATE TABLE "Odd name" (n integer);
SELECT lock_guard_table('"Odd name"', repeat('k', 100), 'a domain');
SELECT pg_temp.error('INSERT INTO "Odd name" VALUES (3)');

-- by transaction and token, whoever the current user is
CREATE FUNCTION take_as_owner() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS
	$$ SELECT public.lock_try('k', 600) IS NOT NULL $$;
CREATE FUNCTION guard_as_owner() RETURNS void LANGUAGE sql SECURITY DEFINER AS
	$$ SELECT public.lock_guard('k') $$;
GRANT ALL ON plain TO regress_lockext_alice, regress_lockext_bob;
BEGIN;
SET LOCAL ROLE regress_lockext_alice;
SELECT lock_try('k', 600) AS token \gset
SET LOCAL ROLE regress_lockext_bob;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)'), pg_temp.tried('SELECT write_definer()');
COMMIT;
-- the same role elsewhere has it no more than another
SET ROLE regress_lockext_alice;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)'), pg_temp.tried('SELECT write_definer()');
SET ROLE regress_lockext_bob;
SELECT set_config('lockext.token', 'k=' || :token, false) <> '';
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)'), pg_temp.tried('SELECT write_definer()');
RESET lockext.token;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
RESET ROLE;
SELECT lock_break('k');
BEGIN;
SET LOCAL ROLE regress_lockext_bob;
SELECT take_as_owner();
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
COMMIT;
BEGIN;
SET LOCAL ROLE regress_lockext_bob;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
SELECT guard_as_owner();
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
COMMIT;
SELECT lock_release('k');

-- superusers and session_replication_role do not pass
SET session_replication_role = replica;
INSERT INTO results SELECT n, '13 replica', pg_temp.tried(stmt) FROM writes
	WHERE stmt !~ '(referenced|other|later|ruled|instead)';
RESET session_replication_role;
SELECT * FROM summary WHERE way ~ '^13';

-- savepoints
BEGIN;
SAVEPOINT a;
SELECT lock_try('k', 600) IS NOT NULL;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
ROLLBACK TO a;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
SELECT lock_try('k', scope => 'transaction') IS NOT NULL;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
ROLLBACK TO a;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
SELECT lock_try('k', scope => 'session') IS NOT NULL;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
ROLLBACK TO a;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
SAVEPOINT b;
SELECT lock_try('k', 600) IS NOT NULL;
RELEASE b;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
ROLLBACK TO a;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
COMMIT;
-- released, and released in a savepoint that is rolled back; of each scope
CREATE FUNCTION pg_temp.release(undo boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	inside text;
BEGIN
	PERFORM lock_release('k');
	inside := pg_temp.tried('UPDATE plain SET v = ''mine''');
	IF undo THEN
		RAISE SQLSTATE 'UNDO0';
	END IF;
	RETURN inside;
EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
	RETURN inside || ', undone: ' || pg_temp.tried('UPDATE plain SET v = ''mine''');
END $$;
BEGIN;
SELECT lock_try('k', 600) IS NOT NULL;
SELECT pg_temp.release(true);
SELECT pg_temp.release(false);
COMMIT;
BEGIN;
SELECT lock_try('k', scope => 'transaction') IS NOT NULL;
SELECT pg_temp.release(true);
SELECT pg_temp.release(false);
COMMIT;
SELECT lock_try('k', 600, 'session') IS NOT NULL;
BEGIN;
SELECT pg_temp.release(true);
UPDATE plain SET v = 'mine';
SELECT pg_temp.release(true);
SELECT pg_temp.release(false);
ROLLBACK;
SELECT pg_temp.tried('UPDATE plain SET v = ''mine''');
SELECT pg_advisory_unlock_all();
SELECT pg_temp.tried('UPDATE plain SET v = ''mine''');
SELECT lock_try('k', 600) AS token \gset
SELECT set_config('lockext.token', 'k=' || :token, false) <> '';
BEGIN;
SELECT pg_temp.release(true);
UPDATE plain SET v = 'mine';
SELECT pg_temp.release(true);
SELECT pg_temp.release(false);
ROLLBACK;
RESET lockext.token;
-- a guard in a block that fails
BEGIN;
DO $$
BEGIN
	BEGIN
		PERFORM lock_guard('k');
		INSERT INTO gt.plain VALUES (3);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
END $$;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
DO $$
BEGIN
	BEGIN
		PERFORM lock_guard('k');
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
END $$;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
COMMIT;
-- the pin of a write is that of its savepoint
SELECT set_config('lockext.token', 'k=' || :token, false) <> '';
BEGIN;
SAVEPOINT a;
UPDATE plain SET v = 'mine';
RESET lockext.token;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
ROLLBACK TO a;
RESET lockext.token;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
ROLLBACK;
RESET lockext.token;
-- broken by this transaction
BEGIN;
SELECT lock_guard('k');
SELECT lock_break('k');
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
ROLLBACK;
SELECT lock_release('k');

-- its time is over: what was pinned before passes, nothing else
SELECT lock_try('k', 1) AS token \gset
SELECT set_config('lockext.token', 'k=' || :token, false) <> '';
BEGIN;
SELECT lock_guard('k', :token);
SELECT pg_temp.until_free('k');
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
COMMIT;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
RESET lockext.token;
SELECT lock_try('k', 1) AS token \gset
SELECT set_config('lockext.token', 'k=' || :token, false) <> '';
BEGIN;
UPDATE plain SET v = 'mine' WHERE false;
SELECT pg_temp.until_free('k');
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)'), pg_temp.tried('TRUNCATE tree');
COMMIT;
RESET lockext.token;
BEGIN;
SELECT lock_try('k', 1) IS NOT NULL;
SELECT pg_temp.until_free('k');
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
COMMIT;
SELECT lock_try('k', 1, 'session') IS NOT NULL;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
SELECT pg_temp.until_free('k');
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
-- a row that has expired does not take the place of a lock that was released
SELECT lock_try('k', 1) IS NOT NULL;
SELECT pg_temp.until_free('k');
BEGIN;
SELECT lock_try('k', scope => 'transaction') IS NOT NULL;
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
SELECT lock_release('k');
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
COMMIT;
-- a try that is refused leaves nothing that would pass
SET ROLE regress_lockext_alice;
SELECT lock_try('k', 600) IS NOT NULL;
SET ROLE regress_lockext_bob;
BEGIN;
SELECT lock_try('k'), lock_release('k');
SELECT acquired FROM lock_renew('k', 600);
SELECT pg_temp.tried('SELECT lock_guard(''k'')');
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
COMMIT;
RESET ROLE;
SELECT lock_break('k');
-- who may guard what
CREATE SEQUENCE seq;
CREATE MATERIALIZED VIEW matview AS SELECT 1 AS one;
CREATE INDEX idx ON other (n);
SELECT c, pg_temp.tried('SELECT lock_guard_table(' || c || ')')
FROM (VALUES
	(1, $$NULL, 'k'$$), (2, $$'plain', NULL$$), (3, $$'later', 'k', NULL$$),
	(4, $$'later', ''$$), (5, $$'later', 'k '$$), (6, $$'later', repeat('k', 256)$$),
	(7, $$'later', 'k', repeat('d', 256)$$), (8, $$'plain', 'k'$$), (9, $$'plain', 'k2'$$),
	(10, $$'simple_view', 'k'$$), (11, $$'matview', 'k'$$), (12, $$'seq', 'k'$$), (13, $$'idx', 'k'$$),
	(14, $$'pg_class', 'k'$$), (15, $$'information_schema.sql_parts', 'k'$$),
	(16, $$'nosuch', 'k'$$), (17, $$0, 'k'$$),
	(18, $$'tree_1', 'k'$$), (19, $$'tree_2', 'k2'$$), (20, $$'leafy', 'k'$$), (21, $$'ancestor', 'k'$$),
	(22, $$'later', 'k'$$)) v(n, c)
ORDER BY n;
SELECT pg_temp.error($$SELECT lock_guard_table('plain', 'k2')$$);
SELECT pg_temp.error($$SELECT lock_guard_table('simple_view', 'k')$$);
SELECT pg_temp.error($$SELECT lock_guard_table('pg_class', 'k')$$);
SELECT pg_temp.error($$SELECT lock_guard_table(NULL, 'k')$$);
SET ROLE regress_lockext_alice;
SELECT pg_temp.error($$SELECT lock_guard_table('later', 'k')$$);
SELECT pg_temp.error($$SELECT lock_unguard_table('plain')$$);
CREATE TABLE alices (n integer);
SELECT lock_guard_table('alices', 'a');
SELECT pg_temp.error('INSERT INTO alices VALUES (1)');
SET ROLE regress_lockext_bob;
SELECT pg_temp.tried($$SELECT lock_guard_table('alices', 'b')$$);
RESET ROLE;
BEGIN READ ONLY;
SELECT pg_temp.tried($$SELECT lock_guard_table('later', 'k')$$);
SELECT pg_temp.tried($$SELECT lock_unguard_table('plain')$$);
COMMIT;
-- of what is not guarded, of a part of a tree, without the lock
SELECT c, pg_temp.tried('SELECT lock_unguard_table(' || c || ')')
FROM (VALUES
	(1, 'NULL'), (2, $$'later'$$), (3, $$'nosuch'$$), (4, $$'simple_view'$$), (5, '0'),
	(6, $$'plain'$$), (7, $$'tree'$$), (8, $$'tree_1'$$), (9, $$'tree_21'$$), (10, $$'child'$$),
	(11, $$'tree_5'$$), (12, $$'leafy_1'$$)) v(n, c)
ORDER BY n;
SELECT pg_temp.error($$SELECT lock_unguard_table('plain')$$);
SELECT pg_temp.error($$SELECT lock_unguard_table('later')$$);
SELECT pg_temp.error($$SELECT lock_unguard_table('tree_21')$$);

-- its triggers
CREATE TEMP TABLE attacks (n integer, stmt text);
GRANT ALL ON attacks TO PUBLIC;
CREATE SCHEMA gt_2;
GRANT ALL ON SCHEMA gt_2 TO PUBLIC;
SET ROLE regress_lockext_alice;
CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END';
CREATE TABLE atree (n integer) PARTITION BY LIST (n);
CREATE TABLE atree_1 PARTITION OF atree FOR VALUES IN (1);
CREATE TABLE aleafy (n integer) PARTITION BY LIST (n);
CREATE TABLE aleafy_1 PARTITION OF aleafy FOR VALUES IN (1);
SELECT lock_guard_table('atree', 'a');
SELECT lock_guard_table('aleafy_1', 'a');
INSERT INTO attacks VALUES
	(1, 'ALTER TABLE alices DISABLE TRIGGER ALL'),
	(2, 'ALTER TABLE alices DISABLE TRIGGER USER'),
	(3, 'ALTER TABLE alices DISABLE TRIGGER lockext_guard'),
	(4, 'ALTER TABLE alices ENABLE TRIGGER lockext_guard'),
	(5, 'ALTER TABLE alices ENABLE REPLICA TRIGGER lockext_guard_truncate'),
	(6, 'DROP TRIGGER lockext_guard ON alices'),
	(7, 'DROP TRIGGER lockext_guard_truncate ON alices'),
	(8, 'CREATE OR REPLACE TRIGGER lockext_guard BEFORE INSERT ON alices EXECUTE FUNCTION noop()'),
	(9, 'CREATE OR REPLACE TRIGGER lockext_guard BEFORE INSERT ON alices EXECUTE FUNCTION lockext_guard_write(''mine'', '''')'),
	(10, 'DROP TABLE alices'),
	(11, 'DROP OWNED BY regress_lockext_alice'),
	(12, 'ALTER TABLE atree DISABLE TRIGGER ALL'),
	(13, 'ALTER TABLE atree_1 DISABLE TRIGGER ALL'),
	(14, 'ALTER TABLE ONLY atree DISABLE TRIGGER lockext_guard_row'),
	(15, 'ALTER TABLE atree_1 DISABLE TRIGGER lockext_guard_row'),
	(16, 'DROP TRIGGER lockext_guard_row ON atree'),
	(17, 'DROP TRIGGER lockext_guard_row ON aleafy_1'),
	(18, 'DROP TABLE atree'),
	(19, 'DROP TABLE atree_1'),
	(20, 'DROP TABLE aleafy'),
	(21, 'CREATE OR REPLACE TRIGGER lockext_guard_row BEFORE INSERT ON atree FOR EACH ROW EXECUTE FUNCTION noop()'),
	(22, 'CREATE OR REPLACE TRIGGER lockext_guard_row BEFORE INSERT ON aleafy FOR EACH ROW EXECUTE FUNCTION noop()'),
	(23, 'ALTER TRIGGER lockext_guard ON alices RENAME TO a; DROP TRIGGER a ON alices'),
	-- with another one in front or behind that asks for another lock, or never
	(24, 'CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE ON alices EXECUTE FUNCTION lockext_guard_write(''mine'', '''')'),
	(25, 'CREATE TRIGGER z BEFORE INSERT OR UPDATE OR DELETE ON alices EXECUTE FUNCTION lockext_guard_write(''mine'', '''')'),
	(26, 'CREATE TRIGGER z BEFORE INSERT ON alices EXECUTE FUNCTION lockext_guard_write(''mine'', '''');
		CREATE OR REPLACE TRIGGER lockext_guard BEFORE INSERT ON alices EXECUTE FUNCTION noop()'),
	(27, 'CREATE TRIGGER a BEFORE INSERT ON alices EXECUTE FUNCTION lockext_guard_write(''mine'', '''');
		CREATE OR REPLACE TRIGGER lockext_guard BEFORE INSERT ON alices EXECUTE FUNCTION noop()'),
	(28, 'CREATE TRIGGER z BEFORE INSERT OR UPDATE OR DELETE ON alices FOR EACH ROW WHEN (false) EXECUTE FUNCTION lockext_guard_write(''a'', '''');
		ALTER TABLE aleafy ATTACH PARTITION alices FOR VALUES IN (2); INSERT INTO aleafy VALUES (2)'),
	(29, 'CREATE TRIGGER z BEFORE INSERT ON alices FOR EACH ROW EXECUTE FUNCTION lockext_guard_write(''a'', '''');
		ALTER TABLE aleafy ATTACH PARTITION alices FOR VALUES IN (2); DELETE FROM aleafy; UPDATE aleafy SET n = 1; ALTER TABLE alices DISABLE TRIGGER lockext_guard_row'),
	-- the guard stays
	(30, 'ALTER TABLE alices RENAME TO ours; INSERT INTO ours VALUES (1)'),
	(31, 'ALTER TRIGGER lockext_guard ON alices RENAME TO a; INSERT INTO alices VALUES (1)'),
	(32, 'ALTER TABLE alices SET SCHEMA gt_2; INSERT INTO gt_2.alices VALUES (1)'),
	(33, 'ALTER TABLE alices RENAME n TO m; ALTER TABLE alices ADD o integer; INSERT INTO alices VALUES (1)'),
	(34, 'ALTER TABLE alices ENABLE ROW LEVEL SECURITY; INSERT INTO alices VALUES (1)'),
	(35, 'ALTER TABLE atree DETACH PARTITION atree_1; INSERT INTO atree_1 VALUES (1)'),
	(36, 'ALTER TABLE aleafy DETACH PARTITION aleafy_1; INSERT INTO aleafy_1 VALUES (1)'),
	(37, 'ALTER TABLE atree DETACH PARTITION atree_1; ALTER TABLE aleafy ATTACH PARTITION atree_1 FOR VALUES IN (2); INSERT INTO aleafy VALUES (2)'),
	(38, 'ALTER TABLE atree DETACH PARTITION atree_1; ALTER TABLE atree ATTACH PARTITION atree_1 FOR VALUES IN (1); INSERT INTO atree VALUES (1)');
SELECT n, stmt, pg_temp.tried(stmt) FROM attacks ORDER BY n;
-- with the lock
BEGIN;
SELECT lock_try('a', scope => 'transaction') IS NOT NULL;
SELECT n, pg_temp.tried(stmt) FROM attacks ORDER BY n;
COMMIT;
SELECT pg_temp.error('DROP TRIGGER lockext_guard ON alices');
SELECT pg_temp.error('DROP TABLE alices');
-- one lock for a tree
CREATE TABLE mine (n integer);
SELECT lock_guard_table('mine', 'mine');
CREATE TABLE mines (n integer);
SELECT lock_guard_table('mines', 'mine');
SELECT pg_temp.error('ALTER TABLE atree ATTACH PARTITION mine FOR VALUES IN (3)');
SELECT pg_temp.error('ALTER TABLE alices INHERIT mine');
SELECT pg_temp.error('CREATE TABLE both_of_them () INHERITS (mine, alices)');
SELECT pg_temp.error('CREATE TABLE both_of_them () INHERITS (mine, mines)');
-- the function on a trigger of one's own
CREATE TABLE noted (n integer);
SELECT pg_temp.error('CREATE TRIGGER t BEFORE INSERT ON noted EXECUTE FUNCTION lockext_guard_write(); INSERT INTO noted VALUES (1)');
SELECT pg_temp.error('CREATE TRIGGER t AFTER INSERT ON noted EXECUTE FUNCTION lockext_guard_write(''k'', ''''); INSERT INTO noted VALUES (1)');
SELECT pg_temp.error('CREATE TRIGGER t BEFORE INSERT ON noted EXECUTE FUNCTION lockext_guard_write(''k'', ''''); INSERT INTO noted VALUES (1)');
SELECT pg_temp.error('SELECT lockext_guard_write()');
RESET ROLE;
DROP TABLE attacks;

-- lockext.bypass_guards
SET lockext.bypass_guards = on;
SET lockext.bypass_guards = 'true';
SET lockext.bypass_guards = '0';
SET lockext.bypass_guards = 'No';
SHOW lockext.bypass_guards;
SET lockext.bypass_guards = '';
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');
SET lockext.bypass_guards = 'ticket 1';
INSERT INTO results SELECT n, '14 bypassed', pg_temp.tried(stmt) FROM writes;
SELECT pg_temp.tried('DROP TABLE alices'), pg_temp.tried('SELECT lock_unguard_table(''plain'')');
SET ROLE regress_lockext_bob;
SELECT pg_temp.tried('SET lockext.bypass_guards = ''ticket 2''');
SELECT pg_temp.tried('SELECT set_config(''lockext.bypass_guards'', ''ticket 2'', true)');
SELECT pg_temp.tried('ALTER ROLE regress_lockext_bob SET lockext.bypass_guards = ''ticket 2''');
RESET ROLE;
RESET lockext.bypass_guards;
SELECT * FROM summary WHERE way ~ '^14';
SELECT pg_temp.tried('INSERT INTO plain VALUES (3)');

-- lockext_guards
SET ROLE regress_lockext_alice;
SELECT lock_try('a', 600) IS NOT NULL;
SET ROLE regress_lockext_bob;
SELECT kind, schema, relation, key, domain, held, owner, scope, acquired_at IS NOT NULL, expires_at > now(), pid IS NOT NULL, application_name
FROM lockext_guards WHERE schema = 'gt' ORDER BY relation COLLATE "C";
RESET ROLE;
SELECT lock_break('a');
SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'lockext_guards' ORDER BY ordinal_position;
-- renamed
ALTER SCHEMA gt RENAME TO gt2;
ALTER TABLE gt2.plain RENAME TO plainer;
SELECT schema, relation, key FROM lockext_guards WHERE relation LIKE 'plain%';
SELECT pg_temp.error('INSERT INTO gt2.plainer VALUES (3)');
ALTER TABLE gt2.plainer RENAME TO plain;
ALTER SCHEMA gt2 RENAME TO gt;

-- the end of guards
SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'lockext%';
BEGIN;
SELECT lock_try('k', scope => 'transaction') IS NOT NULL;
SELECT lock_unguard_table('plain');
SELECT lock_unguard_table('tree');
SELECT lock_unguard_table('tree_5');
SELECT lock_unguard_table('parent');
SELECT lock_unguard_table('leafy_1');
COMMIT;
SELECT relation FROM lockext_guards ORDER BY relation COLLATE "C";
SELECT n, result FROM (SELECT n, pg_temp.tried(stmt) AS result FROM writes) s WHERE result <> 'passes' ORDER BY n;
SELECT * FROM triggers ORDER BY relname;
BEGIN;
SELECT lock_guard_table('plain', 'k3');
SELECT pg_temp.error('INSERT INTO plain VALUES (3)');
ROLLBACK;
SELECT pg_temp.error('INSERT INTO plain VALUES (3)');
-- the schema can't be dropped without all the locks
DROP VIEW pg_temp.triggers;
SELECT pg_temp.tried('DROP SCHEMA gt CASCADE');
SELECT lock_try('k', 600, 'session') IS NOT NULL, lock_try('a', 600, 'session') IS NOT NULL,
	lock_try('mine', 600, 'session') IS NOT NULL;
SELECT pg_temp.tried('DROP SCHEMA gt CASCADE');
SELECT lock_try(repeat('k', 100), 600, 'session', 'a domain') IS NOT NULL;
DROP SCHEMA gt, gt_2 CASCADE;
SELECT count(*) FROM lockext_guards;
SELECT pg_advisory_unlock_all();
-- the event triggers go with the last guard that is ended
CREATE TABLE last (n integer);
SELECT lock_guard_table('last', 'k');
BEGIN;
SELECT lock_try('k', scope => 'transaction') IS NOT NULL, lock_unguard_table('last');
COMMIT;
SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'lockext%';
DROP TABLE last;
DROP ROLE regress_lockext_alice, regress_lockext_bob;
