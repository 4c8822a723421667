--
-- Guards go by the name of a lock, not by the hash in its lock tag: another lock
-- whose name has the same hash does not pass
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'guard test';

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
\pset format unaligned
\pset tuples_only on
CREATE ROLE regress_lockext_alice;
CREATE TABLE other (n integer);
CREATE VIEW pg_temp.tags AS
	SELECT count(DISTINCT (classid, objid)) AS tags FROM pg_locks
	WHERE locktype = 'advisory' AND objsubid = 27755 AND pid = pg_backend_pid();
-- the names collide, or else this tests nothing
BEGIN;
SELECT lock_try('shared', scope => 'transaction') IS NOT NULL;
SELECT * FROM tags;
SELECT lock_try('kMIjLQhlAXzLx4lBJsIlvXTa', scope => 'transaction') IS NOT NULL;
SELECT * FROM tags;
ROLLBACK;
SELECT lock_guard_table('other', 'shared');
SET ROLE regress_lockext_alice;
SELECT lock_try('shared', 600) IS NOT NULL;
RESET ROLE;
BEGIN;
SELECT lock_try('kMIjLQhlAXzLx4lBJsIlvXTa', 600) IS NOT NULL;
SELECT pg_temp.error('TRUNCATE other');
COMMIT;
BEGIN;
SELECT lock_guard('kMIjLQhlAXzLx4lBJsIlvXTa');
SELECT pg_temp.error('TRUNCATE other');
COMMIT;
SELECT lock_break('shared');
BEGIN;
SELECT lock_guard('kMIjLQhlAXzLx4lBJsIlvXTa');
SELECT pg_temp.error('TRUNCATE other');
COMMIT;
SELECT lock_release('kMIjLQhlAXzLx4lBJsIlvXTa');

BEGIN;
SELECT lock_try('shared', scope => 'transaction') IS NOT NULL, lock_unguard_table('other') IS NULL;
COMMIT;
DROP TABLE other;
DROP VIEW tags;
DROP ROLE regress_lockext_alice;
