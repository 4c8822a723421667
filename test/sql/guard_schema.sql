--
-- Guarded schemas: no DDL on their objects has an effect without the lock
--
-- What is refused only where the library is preloaded: test/t/024_guard_schema.pl
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'guard_schema test';
\pset null '<NULL>'
\pset format unaligned
\pset tuples_only on

CREATE ROLE regress_lockext_alice;
CREATE ROLE regress_lockext_bob;
CREATE SCHEMA guarded AUTHORIZATION regress_lockext_alice;
CREATE SCHEMA other;
GRANT ALL ON SCHEMA guarded, other TO PUBLIC;

--
-- What there is in the schema that is going to be guarded
--
CREATE FUNCTION guarded.f(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION guarded.eq(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT length($1) = length($2)';
CREATE FUNCTION guarded.cmp(integer, integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1 - $2';
CREATE FUNCTION guarded.tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE PROCEDURE guarded.p() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE guarded.agg(integer) (SFUNC = int4pl, STYPE = integer);
CREATE TYPE guarded.ty AS (a integer, b text);
CREATE TYPE guarded.en AS ENUM ('a', 'b');
CREATE TYPE guarded.rng AS RANGE (SUBTYPE = integer);
CREATE TYPE guarded.shell;
CREATE DOMAIN guarded.dom AS integer CONSTRAINT positive CHECK (VALUE > 0);
CREATE SEQUENCE guarded.s;
CREATE TABLE guarded.t (id integer PRIMARY KEY, a text DEFAULT 'x', n integer CONSTRAINT n_check CHECK (n > 0), ty guarded.ty);
INSERT INTO guarded.t (id, n) VALUES (1, 1);
CREATE INDEX t_a ON guarded.t (a);
CREATE TRIGGER tr BEFORE INSERT ON guarded.t FOR EACH ROW EXECUTE FUNCTION guarded.tf();
CREATE RULE ru AS ON UPDATE TO guarded.t WHERE false DO ALSO NOTHING;
CREATE POLICY pol ON guarded.t USING (true);
CREATE STATISTICS guarded.st ON a, n FROM guarded.t;
CREATE TABLE guarded.fk (id integer CONSTRAINT fk_t REFERENCES guarded.t);
CREATE TABLE guarded.owned (id integer NOT NULL);
CREATE TABLE guarded.like_ty (a integer, b text);
CREATE TABLE guarded.typed OF guarded.ty;
CREATE TABLE guarded.parent (id integer);
CREATE TABLE guarded.child () INHERITS (guarded.parent);
CREATE TABLE guarded.parts (id integer) PARTITION BY LIST (id);
CREATE TABLE guarded.part1 PARTITION OF guarded.parts FOR VALUES IN (1);
CREATE TABLE guarded.part3 (id integer);
CREATE INDEX parts_id ON ONLY guarded.parts (id);
CREATE INDEX part1_id ON guarded.part1 (id);
CREATE VIEW guarded.v AS SELECT id FROM guarded.t;
CREATE MATERIALIZED VIEW guarded.m AS SELECT id FROM guarded.t;
CREATE UNIQUE INDEX m_id ON guarded.m (id);
CREATE OPERATOR guarded.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = guarded.eq);
CREATE OPERATOR FAMILY guarded.fam USING btree;
CREATE OPERATOR CLASS guarded.cls FOR TYPE integer USING btree AS OPERATOR 1 <, FUNCTION 1 guarded.cmp(integer, integer);
CREATE COLLATION guarded.co FROM "C";
CREATE CONVERSION guarded.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH PARSER guarded.tsp (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE guarded.tst (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY guarded.tsd (TEMPLATE = guarded.tst);
CREATE TEXT SEARCH CONFIGURATION guarded.tsc (PARSER = guarded.tsp);
CREATE FOREIGN DATA WRAPPER lockext_nothing;
CREATE SERVER lockext_nowhere FOREIGN DATA WRAPPER lockext_nothing;
CREATE FOREIGN TABLE guarded.ft (a integer) SERVER lockext_nowhere;
CREATE PUBLICATION lockext_pub FOR TABLE guarded.fk;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_lockext_alice IN SCHEMA guarded GRANT SELECT ON TABLES TO regress_lockext_bob;
-- which others depend on
CREATE TABLE other.t (id integer PRIMARY KEY, n integer, a text, d guarded.dom);
CREATE TABLE other.parent (id integer);
CREATE TABLE other.parts (id integer) PARTITION BY LIST (id);
CREATE TABLE other.part2 (id integer);
CREATE TYPE other.oty AS (a integer);
CREATE FUNCTION other.f() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE SEQUENCE other.os;
CREATE TABLE other.fk (id integer CONSTRAINT fk_other REFERENCES guarded.t);
CREATE TABLE other.part4 PARTITION OF guarded.parts FOR VALUES IN (4);
CREATE TABLE other.child3 () INHERITS (guarded.parent);
CREATE TABLE guarded.refers (id integer REFERENCES other.t, c other.oty, d integer DEFAULT nextval('other.os'));
CREATE VIEW guarded.v2 AS SELECT id, other.f() FROM other.t;
CREATE TABLE guarded.child2 () INHERITS (other.parent);
CREATE TABLE guarded.part_of_other PARTITION OF other.parts FOR VALUES IN (1);
CREATE TABLE guarded.bobs (id integer);
ALTER TABLE guarded.bobs OWNER TO regress_lockext_bob;
CREATE FUNCTION other.runs_ddl() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN CREATE TABLE guarded.new (); END';
CREATE PROCEDURE other.runs_ddl_too() LANGUAGE plpgsql AS 'BEGIN EXECUTE ''DROP TABLE guarded.fk''; END';
CREATE FUNCTION other.catches() RETURNS text LANGUAGE plpgsql AS
'BEGIN CREATE TABLE guarded.new (); RETURN ''created''; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END';

--
-- Who may guard which schema, and with which lock
--
\set VERBOSITY terse
SELECT * FROM lockext_guards;
SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'lockext%';
SET ROLE regress_lockext_bob;
SELECT lock_guard_schema('guarded', 'migrate');
SELECT lock_guard_schema('other', 'migrate');
RESET ROLE;
SELECT lock_guard_schema('pg_catalog', 'migrate');
SELECT lock_guard_schema('pg_toast', 'migrate');
CREATE TEMP TABLE tmp (id integer);
DO $$
BEGIN
	PERFORM lock_guard_schema(pg_my_temp_schema()::regnamespace, 'migrate');
EXCEPTION WHEN invalid_parameter_value THEN
	RAISE WARNING '%', regexp_replace(SQLERRM, '\d+', 'N');
END $$;
SELECT lock_guard_schema('nowhere', 'migrate');
SELECT lock_guard_schema(1::regnamespace, 'migrate');
SELECT lock_guard_schema(NULL, 'migrate');
SELECT lock_guard_schema('guarded', NULL);
SELECT lock_guard_schema('guarded', '');
SELECT lock_guard_schema('guarded', ' migrate');
SELECT lock_guard_schema('guarded', repeat('k', 256));
SELECT lock_guard_schema('guarded', 'migrate', NULL);
SELECT lock_guard_schema('guarded', 'migrate', repeat('d', 256));
SELECT lock_unguard_schema('guarded');
SELECT lock_unguard_schema(NULL);
BEGIN READ ONLY;
SELECT lock_guard_schema('guarded', 'migrate');
ROLLBACK;
SELECT * FROM lockext_guards;
SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'lockext%';
-- rolled back
BEGIN;
SELECT lock_guard_schema('guarded', 'migrate');
SELECT count(*) FROM lockext_guards;
SAVEPOINT a;
CREATE TABLE guarded.new ();
ROLLBACK;
CREATE TABLE guarded.new ();
DROP TABLE guarded.new;
SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'lockext%';
-- by its owner, who is no superuser
SET ROLE regress_lockext_alice;
SELECT lock_guard_schema('guarded', 'migrate', 'db');
SELECT lock_guard_schema('guarded', 'migrate', 'db');
SELECT lock_guard_schema('guarded', 'something else');
SELECT lock_unguard_schema('guarded');
SELECT lock_try('migrate', domain => 'db', scope => 'session') IS NOT NULL;
SELECT lock_unguard_schema('guarded');
SELECT lock_unguard_schema('guarded');
SELECT lock_guard_schema('guarded', 'migrate');
SELECT lock_release('migrate', domain => 'db');
SET ROLE regress_lockext_bob;
SELECT kind, schema, relation, key, domain, held, owner FROM lockext_guards;
SELECT lock_unguard_schema('guarded');
SELECT FROM lockext_guarded_schema;
RESET ROLE;
SELECT evtname, evtevent, evtenabled, evtowner = proowner, proname
FROM pg_event_trigger JOIN pg_proc p ON p.oid = evtfoid
WHERE evtname LIKE 'lockext%' ORDER BY evtname;

--
-- Without the lock
--
CREATE TEMP TABLE ddl (n integer GENERATED ALWAYS AS IDENTITY, command text);
COPY ddl (command) FROM stdin;
CREATE TABLE guarded.new (id integer)
CREATE UNLOGGED TABLE guarded.new (id serial PRIMARY KEY, a text UNIQUE)
CREATE TABLE IF NOT EXISTS guarded.new (LIKE guarded.t INCLUDING ALL)
CREATE TABLE guarded.new AS SELECT 1 AS a
CREATE TABLE guarded.new AS SELECT 1 AS a WITH NO DATA
CREATE TABLE guarded.new AS EXECUTE select_one
SELECT 1 AS a INTO guarded.new
CREATE TABLE guarded.new OF guarded.ty
CREATE TABLE guarded.new PARTITION OF guarded.parts FOR VALUES IN (3)
CREATE TABLE guarded.new PARTITION OF other.parts FOR VALUES IN (3)
CREATE TABLE other.new PARTITION OF guarded.parts FOR VALUES IN (3)
CREATE TABLE other.new () INHERITS (guarded.parent)
CREATE TABLE guarded.new () INHERITS (other.parent)
CREATE TABLE other.new (id integer REFERENCES guarded.t)
CREATE TABLE other.new (id integer, CONSTRAINT c FOREIGN KEY (id) REFERENCES guarded.t)
ALTER TABLE other.t ADD FOREIGN KEY (n) REFERENCES guarded.t
ALTER TABLE other.t ADD FOREIGN KEY (n) REFERENCES guarded.t NOT VALID
ALTER TABLE guarded.t ADD FOREIGN KEY (n) REFERENCES other.t NOT VALID
ALTER TABLE other.fk DROP CONSTRAINT fk_other
DROP TABLE other.fk
DROP TABLE other.part4
DROP TABLE other.child3
ALTER TABLE other.fk ALTER CONSTRAINT fk_other DEFERRABLE
ALTER TABLE guarded.t ADD COLUMN new integer
ALTER TABLE guarded.t ADD COLUMN IF NOT EXISTS new integer DEFAULT random() * 10
ALTER TABLE guarded.t DROP COLUMN a
ALTER TABLE IF EXISTS ONLY guarded.t ALTER COLUMN a SET NOT NULL
ALTER TABLE guarded.t ALTER COLUMN a DROP DEFAULT
ALTER TABLE guarded.t ALTER COLUMN a SET DEFAULT 'y'
ALTER TABLE guarded.t ALTER COLUMN a TYPE varchar(30)
ALTER TABLE guarded.t ALTER COLUMN n TYPE bigint
ALTER TABLE guarded.t ALTER COLUMN a SET STATISTICS 10
ALTER TABLE guarded.t ALTER COLUMN a SET (n_distinct = 5)
ALTER TABLE guarded.t ALTER COLUMN a SET STORAGE EXTERNAL
ALTER TABLE guarded.t ALTER COLUMN a SET COMPRESSION pglz
ALTER TABLE guarded.owned ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY
ALTER TABLE guarded.t ADD CONSTRAINT new CHECK (n < 1000)
ALTER TABLE guarded.t DROP CONSTRAINT n_check
ALTER TABLE guarded.t RENAME CONSTRAINT n_check TO new
ALTER TABLE guarded.fk ALTER CONSTRAINT fk_t DEFERRABLE
ALTER TABLE guarded.t RENAME TO new
ALTER TABLE guarded.t RENAME COLUMN a TO new
ALTER TABLE guarded.owned SET SCHEMA other
ALTER TABLE other.part2 SET SCHEMA guarded
ALTER TABLE guarded.t OWNER TO regress_lockext_bob
ALTER TABLE guarded.t SET (fillfactor = 50)
ALTER TABLE guarded.bobs SET UNLOGGED
ALTER TABLE guarded.t SET TABLESPACE pg_default
ALTER TABLE guarded.t CLUSTER ON t_a
ALTER TABLE guarded.t REPLICA IDENTITY FULL
ALTER TABLE guarded.t ENABLE ROW LEVEL SECURITY
ALTER TABLE guarded.t FORCE ROW LEVEL SECURITY
ALTER TABLE guarded.t DISABLE TRIGGER tr
ALTER TABLE guarded.t DISABLE TRIGGER ALL
ALTER TABLE guarded.t ENABLE ALWAYS TRIGGER tr
ALTER TABLE guarded.t DISABLE RULE ru
ALTER TABLE guarded.child NO INHERIT guarded.parent
ALTER TABLE guarded.child2 NO INHERIT other.parent
ALTER TABLE guarded.part3 INHERIT guarded.parent
ALTER TABLE other.part2 INHERIT guarded.parent
ALTER TABLE guarded.part3 INHERIT other.parent
ALTER TABLE other.parent ADD COLUMN new integer
ALTER TABLE other.parent RENAME COLUMN id TO new
ALTER TABLE other.parent ADD CONSTRAINT new CHECK (id > 0)
ALTER TABLE other.parts ADD COLUMN new integer
CREATE INDEX ON other.parts (id)
ALTER TABLE guarded.parts ATTACH PARTITION guarded.part3 FOR VALUES IN (2)
ALTER TABLE guarded.parts ATTACH PARTITION other.part2 FOR VALUES IN (2)
ALTER TABLE other.parts ATTACH PARTITION guarded.part3 FOR VALUES IN (2)
ALTER TABLE guarded.parts DETACH PARTITION guarded.part1
ALTER TABLE other.parts DETACH PARTITION guarded.part_of_other
ALTER TABLE guarded.parts DETACH PARTITION other.part4
ALTER TABLE other.child3 NO INHERIT guarded.parent
ALTER TABLE guarded.like_ty OF guarded.ty
ALTER TABLE guarded.typed NOT OF
DROP TABLE guarded.fk
DROP TABLE IF EXISTS other.nothing, guarded.fk
DROP TABLE guarded.t CASCADE
DROP TABLE other.t CASCADE
DROP TABLE other.parent CASCADE
DROP TABLE other.parts
DROP TYPE other.oty CASCADE
DROP FUNCTION other.f() CASCADE
DROP SEQUENCE other.os CASCADE
DROP OWNED BY regress_lockext_bob
CREATE INDEX ON guarded.t (n)
CREATE INDEX IF NOT EXISTS new ON guarded.t (n)
CREATE UNIQUE INDEX new ON guarded.fk (id)
ALTER INDEX guarded.t_a RENAME TO new
ALTER INDEX guarded.t_a SET (fillfactor = 50)
ALTER INDEX guarded.parts_id ATTACH PARTITION guarded.part1_id
DROP INDEX guarded.t_a
CREATE VIEW guarded.new AS SELECT 1
CREATE OR REPLACE VIEW guarded.v AS SELECT id, n FROM guarded.t
CREATE RECURSIVE VIEW guarded.new (a) AS SELECT 1
ALTER VIEW guarded.v RENAME TO new
ALTER VIEW guarded.v RENAME COLUMN id TO new
ALTER VIEW guarded.v ALTER COLUMN id SET DEFAULT 1
ALTER VIEW guarded.v SET (security_barrier = true)
ALTER VIEW guarded.v OWNER TO regress_lockext_bob
ALTER VIEW guarded.v SET SCHEMA other
DROP VIEW guarded.v
CREATE MATERIALIZED VIEW guarded.new AS SELECT 1 AS a
CREATE MATERIALIZED VIEW guarded.new AS SELECT 1 AS a WITH NO DATA
ALTER MATERIALIZED VIEW guarded.m RENAME TO new
ALTER MATERIALIZED VIEW guarded.m SET SCHEMA other
DROP MATERIALIZED VIEW guarded.m
CREATE SEQUENCE guarded.new
ALTER SEQUENCE guarded.s INCREMENT 5
ALTER SEQUENCE guarded.s RESTART
ALTER SEQUENCE guarded.s RENAME TO new
ALTER SEQUENCE guarded.s OWNED BY guarded.owned.id
ALTER SEQUENCE guarded.s SET SCHEMA other
ALTER SEQUENCE guarded.s OWNER TO regress_lockext_bob
DROP SEQUENCE guarded.s
CREATE FUNCTION guarded.new() RETURNS integer LANGUAGE sql AS 'SELECT 1'
CREATE OR REPLACE FUNCTION guarded.f(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT 2'
ALTER FUNCTION guarded.f(integer) RENAME TO new
ALTER FUNCTION guarded.f(integer) STABLE
ALTER FUNCTION guarded.f(integer) SET work_mem = '1MB'
ALTER FUNCTION guarded.f(integer) OWNER TO regress_lockext_bob
ALTER FUNCTION guarded.f(integer) SET SCHEMA other
ALTER FUNCTION other.f() SET SCHEMA guarded
ALTER FUNCTION guarded.f(integer) DEPENDS ON EXTENSION plpgsql
DROP FUNCTION guarded.f(integer)
CREATE PROCEDURE guarded.new() LANGUAGE sql AS 'SELECT 1'
ALTER PROCEDURE guarded.p() SECURITY DEFINER
ALTER ROUTINE guarded.p() RENAME TO new
DROP PROCEDURE guarded.p()
DROP ROUTINE guarded.p()
CREATE AGGREGATE guarded.new(integer) (SFUNC = int4pl, STYPE = integer)
ALTER AGGREGATE guarded.agg(integer) RENAME TO new
ALTER AGGREGATE guarded.agg(integer) SET SCHEMA other
DROP AGGREGATE guarded.agg(integer)
CREATE TYPE guarded.new AS (a integer)
CREATE TYPE guarded.new AS ENUM ('a')
CREATE TYPE guarded.new AS RANGE (SUBTYPE = text)
CREATE TYPE guarded.new
ALTER TYPE guarded.ty ADD ATTRIBUTE c integer CASCADE
ALTER TYPE guarded.ty DROP ATTRIBUTE b CASCADE
ALTER TYPE guarded.ty RENAME ATTRIBUTE b TO c CASCADE
ALTER TYPE guarded.ty RENAME TO new
ALTER TYPE guarded.ty SET SCHEMA other
ALTER TYPE other.oty SET SCHEMA guarded
ALTER TYPE guarded.ty OWNER TO regress_lockext_bob
ALTER TYPE guarded.en ADD VALUE 'c'
ALTER TYPE guarded.en ADD VALUE IF NOT EXISTS 'c' BEFORE 'a'
ALTER TYPE guarded.en RENAME VALUE 'a' TO 'c'
DROP TYPE guarded.en
DROP TYPE guarded.rng
DROP TYPE guarded.shell
DROP TYPE guarded.ty CASCADE
CREATE DOMAIN guarded.new AS integer
ALTER DOMAIN guarded.dom ADD CONSTRAINT small CHECK (VALUE < 10)
ALTER DOMAIN guarded.dom DROP CONSTRAINT positive
ALTER DOMAIN guarded.dom RENAME CONSTRAINT positive TO new
ALTER DOMAIN guarded.dom SET DEFAULT 1
ALTER DOMAIN guarded.dom SET NOT NULL
ALTER DOMAIN guarded.dom RENAME TO new
ALTER DOMAIN guarded.dom SET SCHEMA other
DROP DOMAIN guarded.dom CASCADE
CREATE TRIGGER new BEFORE INSERT ON guarded.t FOR EACH ROW EXECUTE FUNCTION guarded.tf()
CREATE OR REPLACE TRIGGER tr BEFORE UPDATE ON guarded.t FOR EACH ROW EXECUTE FUNCTION guarded.tf()
CREATE CONSTRAINT TRIGGER new AFTER INSERT ON guarded.t FOR EACH ROW EXECUTE FUNCTION guarded.tf()
ALTER TRIGGER tr ON guarded.t RENAME TO new
DROP TRIGGER tr ON guarded.t
CREATE RULE new AS ON DELETE TO guarded.t DO INSTEAD NOTHING
CREATE OR REPLACE RULE ru AS ON UPDATE TO guarded.t DO INSTEAD NOTHING
ALTER RULE ru ON guarded.t RENAME TO new
DROP RULE ru ON guarded.t
CREATE POLICY new ON guarded.t USING (false)
ALTER POLICY pol ON guarded.t USING (false)
ALTER POLICY pol ON guarded.t RENAME TO new
ALTER POLICY pol ON guarded.t TO regress_lockext_bob
DROP POLICY pol ON guarded.t
CREATE STATISTICS guarded.new ON a, id FROM guarded.t
ALTER STATISTICS guarded.st RENAME TO new
ALTER STATISTICS guarded.st SET STATISTICS 10
ALTER STATISTICS guarded.st SET SCHEMA other
DROP STATISTICS guarded.st
CREATE OPERATOR guarded.==== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)
ALTER OPERATOR guarded.=== (text, text) SET (RESTRICT = eqsel)
ALTER OPERATOR guarded.=== (text, text) OWNER TO regress_lockext_bob
ALTER OPERATOR guarded.=== (text, text) SET SCHEMA other
DROP OPERATOR guarded.=== (text, text)
CREATE OPERATOR FAMILY guarded.new USING btree
ALTER OPERATOR FAMILY guarded.fam USING btree ADD OPERATOR 1 < (integer, integer)
ALTER OPERATOR FAMILY guarded.fam USING btree RENAME TO new
ALTER OPERATOR FAMILY guarded.fam USING btree SET SCHEMA other
DROP OPERATOR FAMILY guarded.fam USING btree
CREATE OPERATOR CLASS guarded.new FOR TYPE integer USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(integer)
ALTER OPERATOR CLASS guarded.cls USING btree RENAME TO new
ALTER OPERATOR CLASS guarded.cls USING btree SET SCHEMA other
DROP OPERATOR CLASS guarded.cls USING btree
CREATE COLLATION guarded.new (LOCALE = 'C')
ALTER COLLATION guarded.co RENAME TO new
ALTER COLLATION guarded.co SET SCHEMA other
DROP COLLATION guarded.co
CREATE CONVERSION guarded.new FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8
ALTER CONVERSION guarded.conv RENAME TO new
ALTER CONVERSION guarded.conv SET SCHEMA other
DROP CONVERSION guarded.conv
CREATE TEXT SEARCH PARSER guarded.new (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype)
ALTER TEXT SEARCH PARSER guarded.tsp RENAME TO new
ALTER TEXT SEARCH PARSER guarded.tsp SET SCHEMA other
CREATE TEXT SEARCH TEMPLATE guarded.new (LEXIZE = dsimple_lexize)
ALTER TEXT SEARCH TEMPLATE guarded.tst RENAME TO new
CREATE TEXT SEARCH DICTIONARY guarded.new (TEMPLATE = simple)
ALTER TEXT SEARCH DICTIONARY guarded.tsd (accept = false)
ALTER TEXT SEARCH DICTIONARY guarded.tsd OWNER TO regress_lockext_bob
DROP TEXT SEARCH DICTIONARY guarded.tsd
CREATE TEXT SEARCH CONFIGURATION guarded.new (COPY = simple)
ALTER TEXT SEARCH CONFIGURATION guarded.tsc ADD MAPPING FOR word WITH guarded.tsd
ALTER TEXT SEARCH CONFIGURATION guarded.tsc RENAME TO new
ALTER TEXT SEARCH CONFIGURATION guarded.tsc SET SCHEMA other
DROP TEXT SEARCH CONFIGURATION guarded.tsc
CREATE FOREIGN TABLE guarded.new (a integer) SERVER lockext_nowhere
ALTER FOREIGN TABLE guarded.ft ADD COLUMN b integer
ALTER FOREIGN TABLE guarded.ft OPTIONS (ADD a 'b')
ALTER FOREIGN TABLE guarded.ft RENAME TO new
DROP FOREIGN TABLE guarded.ft
DROP SERVER lockext_nowhere CASCADE
ALTER DEFAULT PRIVILEGES FOR ROLE regress_lockext_alice IN SCHEMA guarded GRANT INSERT ON TABLES TO regress_lockext_bob
ALTER DEFAULT PRIVILEGES FOR ROLE regress_lockext_alice IN SCHEMA guarded REVOKE SELECT ON TABLES FROM regress_lockext_bob
ALTER DEFAULT PRIVILEGES FOR ROLE regress_lockext_bob IN SCHEMA other, guarded GRANT SELECT ON TABLES TO PUBLIC
GRANT SELECT ON guarded.t TO regress_lockext_bob
GRANT SELECT (id) ON guarded.t TO regress_lockext_bob
GRANT SELECT ON TABLE other.t, guarded.v TO regress_lockext_bob
REVOKE ALL ON guarded.t FROM PUBLIC
GRANT USAGE ON SEQUENCE guarded.s TO regress_lockext_bob
GRANT EXECUTE ON FUNCTION guarded.f(integer) TO regress_lockext_bob
REVOKE EXECUTE ON FUNCTION guarded.f(integer) FROM PUBLIC
GRANT EXECUTE ON PROCEDURE guarded.p() TO regress_lockext_bob
GRANT EXECUTE ON ROUTINE guarded.p() TO regress_lockext_bob
GRANT USAGE ON TYPE guarded.en TO regress_lockext_bob
GRANT USAGE ON DOMAIN guarded.dom TO regress_lockext_bob
GRANT USAGE ON SCHEMA guarded TO regress_lockext_bob
REVOKE CREATE ON SCHEMA other, guarded FROM PUBLIC
GRANT SELECT ON ALL TABLES IN SCHEMA guarded TO regress_lockext_bob
GRANT USAGE ON ALL SEQUENCES IN SCHEMA other, guarded TO regress_lockext_bob
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA guarded FROM PUBLIC
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA guarded TO regress_lockext_bob
COMMENT ON SCHEMA guarded IS 'x'
COMMENT ON TABLE guarded.t IS 'x'
COMMENT ON COLUMN guarded.t.a IS 'x'
COMMENT ON COLUMN guarded.v.id IS 'x'
COMMENT ON INDEX guarded.t_a IS 'x'
COMMENT ON CONSTRAINT n_check ON guarded.t IS 'x'
COMMENT ON CONSTRAINT positive ON DOMAIN guarded.dom IS 'x'
COMMENT ON FUNCTION guarded.f(integer) IS 'x'
COMMENT ON TRIGGER tr ON guarded.t IS 'x'
COMMENT ON RULE ru ON guarded.t IS 'x'
COMMENT ON POLICY pol ON guarded.t IS 'x'
COMMENT ON TYPE guarded.en IS 'x'
COMMENT ON OPERATOR guarded.=== (text, text) IS 'x'
COMMENT ON OPERATOR CLASS guarded.cls USING btree IS 'x'
COMMENT ON STATISTICS guarded.st IS 'x'
COMMENT ON TEXT SEARCH DICTIONARY guarded.tsd IS 'x'
ALTER SCHEMA guarded RENAME TO new
ALTER SCHEMA guarded OWNER TO regress_lockext_bob
DROP SCHEMA guarded
DROP SCHEMA guarded CASCADE
DROP SCHEMA other, guarded CASCADE
DROP SCHEMA other CASCADE
DO $$ BEGIN CREATE TABLE guarded.new (); END $$
DO $$ BEGIN EXECUTE 'ALTER TABLE guarded.t ADD new integer'; END $$
SELECT other.runs_ddl()
CALL other.runs_ddl_too()
SET search_path = guarded; CREATE TABLE new ()
DROP EXTENSION lockext CASCADE
SELECT lock_unguard_schema('guarded')
SELECT lock_guard_table('guarded.t', 'migrate')
\.
PREPARE select_one AS SELECT 1 AS a;

-- every row of every catalog
CREATE FUNCTION pg_temp.catalogs() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	catalog regclass;
	rows text;
	result text := '';
BEGIN
	FOR catalog IN SELECT oid FROM pg_class
		WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'
			AND relname NOT IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_largeobject')
		ORDER BY oid
	LOOP
		EXECUTE format('SELECT md5(string_agg(md5(concat(c.ctid, c.xmin)), %L ORDER BY c.ctid)) FROM %s c', '', catalog) INTO rows;
		result := result || coalesce(rows, '-');
	END LOOP;
	RETURN md5(result);
END $$;
SELECT pg_temp.catalogs() AS before \gset
-- the message has a number in it, or the first object that is met depends on the version
\set odd '(DROP CONSTRAINT fk_other|SET NOT NULL|other CASCADE|DROP TABLE other\\.fk)$'
SELECT command FROM ddl WHERE command !~ :'odd' ORDER BY n \gexec
\set VERBOSITY sqlstate
SET client_min_messages = warning;
SELECT command FROM ddl WHERE command ~ :'odd' ORDER BY n \gexec
RESET client_min_messages;
\set VERBOSITY terse
SELECT pg_temp.catalogs() = :'before' AS unchanged;
-- caught
SELECT other.catches();
-- as the owner of all of it, and as somebody who may do much
SET ROLE regress_lockext_alice;
CREATE TABLE guarded.new ();
DROP SCHEMA guarded CASCADE;
RESET ROLE;
SET ROLE regress_lockext_bob;
CREATE TABLE guarded.new ();
ALTER TABLE guarded.bobs ADD a integer;
DROP TABLE guarded.bobs;
RESET ROLE;
-- the schema's elements are created in it
CREATE SCHEMA new CREATE TABLE t (id integer) CREATE VIEW guarded.new AS SELECT 1;
BEGIN;
CREATE SCHEMA new CREATE TABLE t (id integer) CREATE VIEW v AS SELECT id FROM t;
ROLLBACK;
-- nor does it pass in a transaction that goes on
BEGIN;
CREATE TABLE other.new ();
SAVEPOINT a;
DROP TABLE guarded.fk;
ROLLBACK TO a;
COMMIT;
SELECT count(*) FROM guarded.fk;
DROP TABLE other.new;
-- or with session_replication_role
SET session_replication_role = replica;
CREATE TABLE guarded.new ();
DROP TABLE guarded.fk;
DROP INDEX CONCURRENTLY guarded.t_a;
RESET session_replication_role;
-- what commits inside is refused before it begins
CREATE INDEX CONCURRENTLY new ON guarded.t (n);
CREATE INDEX CONCURRENTLY IF NOT EXISTS new ON guarded.m (id);
DROP INDEX CONCURRENTLY guarded.t_a;
DROP INDEX CONCURRENTLY IF EXISTS guarded.t_a;
REINDEX TABLE CONCURRENTLY guarded.t;
REINDEX (CONCURRENTLY, VERBOSE) INDEX guarded.t_a;
REINDEX SCHEMA CONCURRENTLY guarded;
ALTER TABLE guarded.parts DETACH PARTITION guarded.part1 CONCURRENTLY;
ALTER TABLE other.parts DETACH PARTITION guarded.part_of_other CONCURRENTLY;
ALTER TABLE guarded.parts DETACH PARTITION guarded.part1 FINALIZE;
SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive) AND indexrelid <> 'guarded.parts_id'::regclass;
SELECT pg_temp.catalogs() = :'before' AS unchanged;
-- what it looks like
\set VERBOSITY default
CREATE TABLE guarded.new ();
\set VERBOSITY terse

--
-- What is not refused
--
-- data
INSERT INTO guarded.t (id, n) VALUES (2, 2);
UPDATE guarded.t SET n = 3 WHERE id = 2;
DELETE FROM guarded.t WHERE id = 2;
COPY guarded.t (id) FROM stdin;
3
\.
SELECT id FROM guarded.t ORDER BY id FOR UPDATE;
SELECT nextval('guarded.s'), setval('guarded.s', 10);
BEGIN;
LOCK TABLE guarded.t;
COMMIT;
ANALYZE guarded.t;
VACUUM guarded.t;
VACUUM (FREEZE, ANALYZE) guarded.t;
REFRESH MATERIALIZED VIEW guarded.m;
REFRESH MATERIALIZED VIEW CONCURRENTLY guarded.m;
SELECT count(*) FROM guarded.m;
DELETE FROM guarded.t WHERE id = 3;
-- temporary objects
SET search_path = guarded, public;
CREATE TEMP TABLE mine (id serial PRIMARY KEY, d guarded.dom, e guarded.en);
ALTER TABLE mine ADD a text DEFAULT guarded.f(1);
CREATE INDEX CONCURRENTLY ON mine (a);
CREATE TEMP TABLE child_of_mine () INHERITS (mine);
CREATE TEMP VIEW mine_too AS SELECT * FROM guarded.t;
CREATE TEMP SEQUENCE my_s;
CREATE FUNCTION pg_temp.mine(guarded.t) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE TYPE pg_temp.my_ty AS (a guarded.en);
SELECT * INTO TEMP mine_three FROM guarded.t;
COMMENT ON TABLE mine IS 'x';
GRANT SELECT ON mine TO PUBLIC;
TRUNCATE mine;
DROP TABLE mine CASCADE;
DROP VIEW mine_too;
DROP SEQUENCE my_s;
DROP FUNCTION pg_temp.mine;
DROP TYPE pg_temp.my_ty;
DROP TABLE mine_three;
RESET search_path;
-- other schemas, also with what is in the guarded one
CREATE SCHEMA new;
CREATE TABLE new.t (id integer, d guarded.dom, e guarded.en, t guarded.ty DEFAULT (1, 'a'));
CREATE INDEX CONCURRENTLY i ON new.t (id);
CREATE VIEW new.v AS SELECT * FROM guarded.t;
CREATE FUNCTION new.f(guarded.t) RETURNS guarded.en LANGUAGE sql AS $$ SELECT 'a'::guarded.en $$;
CREATE TRIGGER tr BEFORE INSERT ON new.t FOR EACH ROW EXECUTE FUNCTION guarded.tf();
ALTER TABLE new.t ADD CHECK (guarded.f(id) > 0);
ALTER TABLE new.t RENAME TO t2;
ALTER TABLE new.t2 SET SCHEMA other;
GRANT SELECT ON other.t2 TO PUBLIC;
DROP INDEX CONCURRENTLY other.i;
TRUNCATE other.t2;
DROP TABLE other.t2 CASCADE;
DROP VIEW new.v;
ALTER SCHEMA new RENAME TO "new Schema";
DROP SCHEMA "new Schema" CASCADE;
-- nor what belongs to another schema, or to none, and only speaks of it
BEGIN;
CREATE STATISTICS other.new ON a, id FROM guarded.t;
CREATE CAST (guarded.en AS integer) WITH INOUT;
CREATE PUBLICATION lockext_new FOR TABLE guarded.t;
ALTER PUBLICATION lockext_new ADD TABLES IN SCHEMA guarded;
ALTER PUBLICATION lockext_pub ADD TABLE guarded.t;
DROP PUBLICATION lockext_pub;
CREATE TEMP TABLE my_child () INHERITS (guarded.parent);
DROP TABLE my_child;
ROLLBACK;
ALTER ROLE regress_lockext_bob CONNECTION LIMIT 5;
CREATE ROLE regress_lockext_new;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_lockext_alice GRANT SELECT ON TABLES TO regress_lockext_bob;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_lockext_alice REVOKE SELECT ON TABLES FROM regress_lockext_bob;
DROP ROLE regress_lockext_new;

--
-- With the lock
--
CREATE FUNCTION pg_temp.with_lock(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM lock_try('migrate', scope => 'transaction');
		SET LOCAL client_min_messages = error;
		EXECUTE command;
		RAISE SQLSTATE 'UNDO0';
	EXCEPTION WHEN SQLSTATE 'UNDO0' THEN
		RETURN 'passes';
	WHEN OTHERS THEN
		RETURN concat_ws(' ', command, SQLSTATE, SQLERRM);
	END;
END $$;
-- EXECUTE cannot do what fails here, or it would need CASCADE
SELECT pg_temp.with_lock(command), count(*) FROM ddl GROUP BY 1 ORDER BY 1;
-- each way to have it
-- this transaction holds it with scope transaction
BEGIN;
SELECT lock_try('migrate', scope => 'transaction') IS NOT NULL;
CREATE TABLE guarded.new ();
DROP TABLE guarded.new;
ROLLBACK;
-- has taken it
BEGIN;
SELECT lock_try('migrate', 600) IS NOT NULL;
CREATE TABLE guarded.new ();
SAVEPOINT a;
SELECT lock_release('migrate');
DROP TABLE guarded.new;
ROLLBACK TO a;
DROP TABLE guarded.new;
ROLLBACK;
-- has pinned it; a lease that an earlier transaction has taken is not enough
SELECT lock_try('migrate', 600) AS token \gset
BEGIN;
SAVEPOINT a;
CREATE TABLE guarded.new ();
ROLLBACK TO a;
SELECT lock_guard('migrate');
CREATE TABLE guarded.new ();
DROP TABLE guarded.new;
COMMIT;
CREATE TABLE guarded.new ();
-- presents its token
SET lockext.token = 'migrate=1';
CREATE TABLE guarded.new ();
SELECT set_config('lockext.token', 'migrate=' || :token, false) IS NOT NULL;
CREATE TABLE guarded.new ();
CREATE INDEX CONCURRENTLY new_i ON guarded.t (n);
REINDEX TABLE CONCURRENTLY guarded.t;
DROP INDEX CONCURRENTLY guarded.new_i;
ALTER TABLE guarded.parts DETACH PARTITION guarded.part1 CONCURRENTLY;
ALTER TABLE guarded.parts ATTACH PARTITION guarded.part1 FOR VALUES IN (1);
DROP TABLE guarded.new;
SELECT mode, count(*) FROM pg_locks WHERE objsubid = 27755 AND pid = pg_backend_pid() GROUP BY mode;
SELECT lock_release('migrate');
CREATE TABLE guarded.new ();
RESET lockext.token;
-- this session holds it with scope session
SELECT lock_try('migrate', scope => 'session') IS NOT NULL;
CREATE TABLE guarded.new ();
CREATE INDEX CONCURRENTLY new_i ON guarded.t (n);
DROP INDEX CONCURRENTLY guarded.new_i;
SELECT mode, count(*) FROM pg_locks WHERE objsubid = 27755 AND pid = pg_backend_pid() GROUP BY mode;
DROP TABLE guarded.new;
SELECT other.runs_ddl();
DROP TABLE guarded.new;
BEGIN;
CREATE TABLE guarded.new ();
SELECT mode, count(*) FROM pg_locks WHERE objsubid = 27755 AND pid = pg_backend_pid() GROUP BY mode;
ROLLBACK;
SELECT schema, key, held, owner, scope, pid = pg_backend_pid() AS me, application_name FROM lockext_guards;
SELECT lock_release('migrate');
-- the lock of a domain, or of another schema, is another one
SELECT lock_try('migrate', domain => 'db', scope => 'session') IS NOT NULL;
CREATE TABLE guarded.new ();
SELECT lock_release('migrate', domain => 'db');

--
-- Two guarded schemas
--
SELECT lock_guard_schema('other', 'other', 'db');
SELECT schema, key, domain FROM lockext_guards ORDER BY schema;
SELECT lock_try('migrate', scope => 'session') IS NOT NULL;
CREATE TABLE guarded.new ();
CREATE TABLE other.new ();
ALTER TABLE guarded.new SET SCHEMA other;
DROP SCHEMA guarded, other CASCADE;
DROP EXTENSION lockext CASCADE;
-- what is taken along by a cascade
DROP TABLE guarded.parts;
DROP TABLE guarded.parent CASCADE;
DROP TYPE guarded.dom CASCADE;
SELECT lock_unguard_schema('other');
SELECT lock_try('other', domain => 'db', scope => 'session') IS NOT NULL;
BEGIN;
ALTER TABLE guarded.new SET SCHEMA other;
DROP TYPE guarded.dom CASCADE;
ROLLBACK;
SELECT lock_unguard_schema('other');
SELECT lock_release('other', domain => 'db');
DROP TABLE guarded.new;

--
-- The guard follows the schema
--
ALTER SCHEMA guarded RENAME TO "Guarded ""2""";
SELECT schema, key FROM lockext_guards;
CREATE SCHEMA guarded;
CREATE TABLE guarded.t ();
DROP SCHEMA guarded CASCADE;
SELECT lock_release('migrate');
CREATE TABLE "Guarded ""2""".new ();
ALTER SCHEMA "Guarded ""2""" RENAME TO guarded;
BEGIN;
SELECT lock_try('migrate', scope => 'transaction') IS NOT NULL;
ALTER SCHEMA "Guarded ""2""" RENAME TO guarded;
SELECT schema FROM lockext_guards;
ROLLBACK;
SELECT schema FROM lockext_guards;
-- swapped with another, in one transaction
BEGIN;
SELECT lock_try('migrate', scope => 'transaction') IS NOT NULL;
ALTER SCHEMA "Guarded ""2""" RENAME TO guarded;
ALTER SCHEMA other RENAME TO "Guarded ""2""";
COMMIT;
SELECT schema FROM lockext_guards;
CREATE TABLE "Guarded ""2""".new ();
CREATE TABLE guarded.new ();
ALTER SCHEMA "Guarded ""2""" RENAME TO other;
-- and ends with it
BEGIN;
SELECT lock_try('migrate', scope => 'transaction') IS NOT NULL;
DROP SCHEMA guarded CASCADE;
SELECT count(*) FROM lockext_guards;
CREATE SCHEMA guarded CREATE TABLE t ();
ROLLBACK;
CREATE TABLE guarded.new ();
CREATE SCHEMA empty;
SELECT lock_guard_schema('empty', 'migrate');
SELECT lock_try('migrate', scope => 'session') IS NOT NULL;
DROP SCHEMA empty;
SELECT lock_release('migrate');
SELECT schema FROM lockext_guards;
CREATE SCHEMA empty CREATE TABLE t ();
DROP SCHEMA empty CASCADE;

--
-- The event triggers
--
ALTER EVENT TRIGGER lockext_ddl_end DISABLE;
ALTER EVENT TRIGGER lockext_ddl_end RENAME TO something;
DROP EVENT TRIGGER lockext_ddl_end;
DROP FUNCTION lockext_ddl_end() CASCADE;
DROP TABLE lockext_guarded_schema;
DROP TABLE lockext_lock CASCADE;
CREATE TABLE guarded.new ();
ALTER EVENT TRIGGER lockext_ddl_end ENABLE;
ALTER EVENT TRIGGER lockext_ddl_end ENABLE REPLICA;
ALTER EVENT TRIGGER lockext_ddl_start DISABLE;
ALTER EVENT TRIGGER lockext_ddl_start ENABLE;
ALTER EVENT TRIGGER lockext_ddl_start RENAME TO something;
DROP EVENT TRIGGER lockext_ddl_start;
ALTER EVENT TRIGGER lockext_ddl_start ENABLE ALWAYS;
CREATE EVENT TRIGGER lockext_another ON ddl_command_end EXECUTE FUNCTION lockext_ddl_end();
ALTER EVENT TRIGGER lockext_another DISABLE;
DROP EVENT TRIGGER lockext_another;
-- disabled and enabled by somebody who has all the locks
SELECT lock_try('migrate', scope => 'session') IS NOT NULL;
ALTER EVENT TRIGGER lockext_ddl_end DISABLE;
SELECT lock_release('migrate');
SELECT count(*) FROM lockext_guards;
CREATE TABLE guarded.new ();
DROP TABLE guarded.new;
ALTER EVENT TRIGGER lockext_ddl_end ENABLE ALWAYS;
CREATE TABLE guarded.new ();
SELECT count(*) FROM lockext_guards;

--
-- lockext.bypass_guards
--
SET lockext.bypass_guards = on;
SET lockext.bypass_guards = 'no';
SET ROLE regress_lockext_alice;
SET lockext.bypass_guards = 'because';
CREATE TABLE guarded.new ();
RESET ROLE;
SET lockext.bypass_guards = 'the release of the night';
CREATE TABLE guarded.new ();
DROP TABLE guarded.new;
CREATE INDEX CONCURRENTLY new_i ON guarded.t (n);
DROP INDEX CONCURRENTLY guarded.new_i;
SET ROLE regress_lockext_alice;
CREATE TABLE guarded.new ();
DROP TABLE guarded.new;
RESET ROLE;
RESET lockext.bypass_guards;
CREATE TABLE guarded.new ();

--
-- DROP EXTENSION
--
DROP EXTENSION lockext;
DROP EXTENSION lockext CASCADE;
BEGIN;
SELECT lock_try('migrate', scope => 'transaction') IS NOT NULL;
SAVEPOINT a;
DROP EXTENSION lockext;
ROLLBACK TO a;
SET client_min_messages = error;
DROP EXTENSION lockext CASCADE;
SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'lockext%';
CREATE TABLE guarded.new ();
ROLLBACK;
CREATE TABLE guarded.new ();

-- the last guard takes the event triggers along
SELECT lock_try('migrate', scope => 'session') IS NOT NULL;
SELECT lock_unguard_schema('guarded');
SELECT lock_release('migrate');
SELECT count(*) FROM lockext_guards;
SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'lockext%';
CREATE TABLE guarded.new ();
SET client_min_messages = warning;
DROP PUBLICATION lockext_pub;
DROP SCHEMA guarded, other CASCADE;
DROP FOREIGN DATA WRAPPER lockext_nothing CASCADE;
DROP OWNED BY regress_lockext_alice, regress_lockext_bob;
DROP ROLE regress_lockext_alice, regress_lockext_bob;
