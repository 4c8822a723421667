--
-- lockext.token: tokens that a session presents for all it does
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'guard test';
\pset null '<NULL>'

-- the error of a value, or nothing
CREATE FUNCTION pg_temp.set_token(value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM set_config('lockext.token', value, true);
	RETURN 'set';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(': ', SQLSTATE, detail);
END $$;
-- what comes of a guard of each lock while these tokens are presented
CREATE FUNCTION pg_temp.guarded(value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	lock record;
	passes text[] := '{}';
BEGIN
	PERFORM set_config('lockext.token', value, true);
	FOR lock IN SELECT * FROM locks ORDER BY name COLLATE "C" LOOP
		BEGIN
			EXECUTE 'UPDATE ' || quote_ident(lock.name) || ' SET n = 1';
			RAISE SQLSTATE 'UNDO0';
		EXCEPTION
			WHEN SQLSTATE 'UNDO0' THEN
				passes := passes || lock.name;
			WHEN SQLSTATE 'LK002' THEN
				NULL;
		END;
	END LOOP;
	RETURN passes;
END $$;
\pset format unaligned
\pset tuples_only on

-- the first call loads the library where it is not preloaded
SELECT held FROM lock_check('k');
SHOW lockext.token;
SELECT context, vartype, setting = '' FROM pg_settings WHERE name = 'lockext.token';
SELECT v, pg_temp.set_token(v)
FROM (VALUES
	(1, ''), (2, 'k=1'), (3, 'd/k=1'), (4, '/=1'), (5, 'd/=1'), (6, '/k=1'), (7, 'a=1,b=2'), (8, 'a=1 , d/b=2'),
	(9, '"a, 2/k=1"'), (10, 'a=b/k=1'), (11, 'a/b/c=1'), (12, 'k=9007199254740991'), (13, 'k=001'), (14, 'k=1,k=2'),
	(20, 'k'), (21, '=1'), (22, 'k='), (23, 'k=0'), (24, 'k=-1'), (25, 'k=+1'), (26, 'k= 1'), (27, 'k=1x'), (28, 'k=0x1'),
	(29, 'k=9007199254740992'), (30, 'k=99999999999999999999'), (31, 'k=1;j=2'), (32, '1'), (33, 'a=1,b'), (34, '/='),
	(35, 'a=1,'), (36, ',a=1'), (37, 'a b=1'), (38, '"a=1'), (39, 'a=1.5'), (40, 'd/k'),
	(41, repeat('k', 255) || '=1'), (42, repeat('k', 256) || '=1'),
	(43, repeat('d', 255) || '/k=1'), (44, repeat('d', 256) || '/k=1')) v(n, v)
ORDER BY n;
SET lockext.token = 'k';

-- each lock has a table of its name
CREATE TEMP TABLE locks (name text, key text, domain text, token bigint);
INSERT INTO locks (name, key, domain) VALUES
	('k', 'k', ''), ('K', 'K', ''), ('comma', 'k', 'a, 2'), ('equals', 'k', 'a=b'),
	('d', 'k', 'd'), ('D', 'k', 'D'), ('slash', 'k', 'a/b'), ('unicode', 'k', U&'k\00e9');
CREATE TABLE k (n integer);
CREATE TABLE "K" (n integer);
CREATE TABLE comma (n integer);
CREATE TABLE equals (n integer);
CREATE TABLE d (n integer);
CREATE TABLE "D" (n integer);
CREATE TABLE slash (n integer);
CREATE TABLE unicode (n integer);
SELECT count(lock_guard_table(quote_ident(name)::regclass, key, domain)) FROM locks;
SELECT pg_temp.guarded('');
UPDATE locks SET token = lock_try(key, 600, domain => domain);
SELECT count(token), pg_temp.guarded('') FROM locks;

-- one, several, quoted
CREATE TEMP VIEW t AS SELECT name, token FROM locks;
SELECT pg_temp.guarded('k=' || token) FROM t WHERE name = 'k';
SELECT pg_temp.guarded('K=' || token) FROM t WHERE name = 'K';
SELECT pg_temp.guarded('k=' || token) FROM t WHERE name = 'K';
SELECT pg_temp.guarded('/k=' || token) FROM t WHERE name = 'k';
SELECT pg_temp.guarded('d/k=' || token) FROM t WHERE name = 'd';
SELECT pg_temp.guarded('k=' || token) FROM t WHERE name = 'd';
SELECT pg_temp.guarded('D/k=' || token) FROM t WHERE name = 'D';
SELECT pg_temp.guarded('a/b/k=' || token) FROM t WHERE name = 'slash';
SELECT pg_temp.guarded('"a, 2/k=' || token || '"') FROM t WHERE name = 'comma';
SELECT pg_temp.guarded('a=b/k=' || token) FROM t WHERE name = 'equals';
SELECT pg_temp.guarded(U&'k\00e9/k=' || token) FROM t WHERE name = 'unicode';
SELECT pg_temp.guarded((SELECT 'k=' || token FROM t WHERE name = 'k') || ', d/k=' || token || ',a/b/k=5,x=1') FROM t WHERE name = 'd';
SELECT pg_temp.guarded(string_agg('"' || domain || '/' || key || '=' || token || '"', ',')) FROM locks;
-- a wrong token; of two the last counts
SELECT pg_temp.guarded('k=' || token + 1) FROM t WHERE name = 'k';
SELECT pg_temp.guarded('k=' || token - 1) FROM t WHERE name = 'k';
SELECT pg_temp.guarded('k=1,k=' || token) FROM t WHERE name = 'k';
SELECT pg_temp.guarded('k=' || token || ',k=1') FROM t WHERE name = 'k';
SELECT pg_temp.guarded('k=' || token || ',d/k=1,kk=1') FROM t WHERE name = 'k';

-- a domain that the session may not use does not count
SET lockext.domains = 'd';
SELECT pg_temp.guarded('k=' || k.token || ',d/k=' || d.token) FROM t k, t d WHERE k.name = 'k' AND d.name = 'd';
SET lockext.domains = '""';
SELECT pg_temp.guarded('k=' || k.token || ',d/k=' || d.token) FROM t k, t d WHERE k.name = 'k' AND d.name = 'd';
RESET lockext.domains;
SELECT pg_temp.guarded('k=' || k.token || ',d/k=' || d.token) FROM t k, t d WHERE k.name = 'k' AND d.name = 'd';

-- as long as the setting does
SELECT 'k=' || token AS presented FROM t WHERE name = 'k' \gset
BEGIN;
SET LOCAL lockext.token = :'presented';
UPDATE k SET n = 1;
COMMIT;
\set VERBOSITY sqlstate
UPDATE k SET n = 1;
BEGIN;
SET lockext.token = :'presented';
ROLLBACK;
UPDATE k SET n = 1;
BEGIN;
SAVEPOINT a;
SET lockext.token = :'presented';
ROLLBACK TO a;
UPDATE k SET n = 1;
ROLLBACK;
CREATE FUNCTION pg_temp.write_k() RETURNS void LANGUAGE sql AS 'UPDATE public.k SET n = 1';
SET lockext.token = :'presented';
ALTER FUNCTION pg_temp.write_k() SET lockext.token FROM CURRENT;
RESET lockext.token;
UPDATE k SET n = 1;
SELECT pg_temp.write_k();
UPDATE k SET n = 1;
SET lockext.token = :'presented';
UPDATE k SET n = 1;
SET lockext.token = 'oops';
UPDATE k SET n = 1;
RESET lockext.token;
UPDATE k SET n = 1;
\set VERBOSITY default

-- lock_guard() without a token goes by it
CREATE FUNCTION pg_temp.guard(k text, t bigint DEFAULT NULL, d text DEFAULT '', m boolean DEFAULT false)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM lock_guard(k, t, d, m);
	RETURN 'guarded';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ': ' || regexp_replace(detail, '\(.*', '...');
END $$;
SELECT token AS token FROM t WHERE name = 'k' \gset
SET lockext.token = 'k=1';
SELECT pg_temp.guard('k');
SELECT pg_temp.guard('k', :token);
SELECT pg_temp.guard('k', d => 'd');
SET lockext.token = :'presented';
SELECT pg_temp.guard('k');
SELECT pg_temp.guard('k', 1);
-- the master lock has the empty key
SELECT lock_try(NULL, 600, domain => 'd', master => true) AS d, lock_try(NULL, 600, master => true) AS m \gset
SELECT set_config('lockext.token', 'd/=1,/=2', false);
SELECT pg_temp.guard(NULL, NULL, 'd', true), pg_temp.guard(NULL, NULL, '', true);
SELECT set_config('lockext.token', 'd/=' || :d || ',/=' || :m, false) <> '';
SELECT pg_temp.guard(NULL, NULL, 'd', true), pg_temp.guard(NULL, NULL, '', true);
SELECT set_config('lockext.token', 'd/=' || :m || ',/=' || :d, false) <> '';
SELECT pg_temp.guard(NULL, NULL, 'd', true), pg_temp.guard(NULL, NULL, '', true);
-- somebody else's token is good for guarded tables, but not for lock_guard()
CREATE ROLE regress_lockext_alice;
GRANT ALL ON k TO regress_lockext_alice;
SET lockext.token = :'presented';
SET ROLE regress_lockext_alice;
SELECT pg_temp.guard('k');
UPDATE k SET n = 1;
RESET ROLE;
RESET lockext.token;

SELECT string_agg(domain || '/' || key || '=' || token, ',') AS all FROM locks WHERE name NOT IN ('comma') \gset
SELECT set_config('lockext.token', :'all' || ',"a, 2/k=' || token || '"', false) <> '' FROM t WHERE name = 'comma';
SELECT count(lock_unguard_table(quote_ident(name)::regclass)) FROM locks;
SELECT count(*) FROM lockext_guards;
RESET lockext.token;
SELECT count(*) = count(*) FILTER (WHERE lock_release(key, domain => domain, master => master)) AS all_released FROM lockext_held;
DROP TABLE k, "K", comma, equals, d, "D", slash, unicode;
DROP VIEW t;
DROP ROLE regress_lockext_alice;
