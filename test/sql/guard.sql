--
-- Guards: lock_guard() raises LK001 unless the lock is ours, and pins it
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'guard test';
\pset null '<NULL>'

CREATE ROLE regress_lockext_alice;
CREATE ROLE regress_lockext_bob;
CREATE ROLE regress_lockext_team;
CREATE ROLE regress_lockext_member IN ROLE regress_lockext_team;

-- how it went; numbers that change are masked
CREATE FUNCTION pg_temp.guard(k text, t bigint DEFAULT NULL, d text DEFAULT '', m boolean DEFAULT false)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	PERFORM lock_guard(k, t, d, m);
	RETURN 'guarded';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	detail := regexp_replace(detail, '\d{4}-\d\d-\d\d [0-9:.]+[+-]\d\d', 'TIME', 'g');
	detail := regexp_replace(detail, 'process \d+', 'process PID');
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
-- what this transaction keeps
CREATE VIEW pg_temp.kept AS
	SELECT mode, count(*) FROM pg_locks
	WHERE locktype = 'advisory' AND objsubid = 27755 AND pid = pg_backend_pid() AND granted
	GROUP BY mode ORDER BY mode;
CREATE FUNCTION pg_temp.until_free(k text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	WHILE (lock_check(k)).held LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN true;
END $$;
GRANT SELECT ON pg_temp.kept TO PUBLIC;
\pset format unaligned
\pset tuples_only on

-- ours, nobody's, somebody else's
SET ROLE regress_lockext_alice;
SELECT pg_temp.guard('g');
SELECT lock_try('g', 600) AS old \gset
SELECT pg_temp.guard('g');
SELECT pg_temp.guard('g', :old);
SELECT pg_temp.guard('g', :old + 1);
SELECT pg_temp.guard('g', 1);
SELECT pg_temp.guard('G');
SET ROLE regress_lockext_bob;
SELECT pg_temp.guard('g');
SELECT pg_temp.guard('g', :old);
-- with the privileges of the owner
SET ROLE regress_lockext_team;
SELECT lock_try('team', 600) IS NOT NULL;
SET ROLE regress_lockext_member;
SELECT pg_temp.guard('team');
SET ROLE regress_lockext_bob;
SELECT pg_temp.guard('team');
RESET ROLE;
SELECT pg_temp.guard('team');
SELECT pg_temp.guard('g', :old + 1);
SELECT lock_release('team');
-- with the default detail, as psql shows it
SELECT lock_guard('none');
SELECT pg_temp.guard('none', :old);
-- the result is void
SELECT lock_guard('g') IS NULL, pg_typeof(lock_guard('g'));

-- domains and master locks
SET ROLE regress_lockext_alice;
SELECT lock_try('g', 600, domain => 'd') AS d \gset
SELECT lock_try(NULL, 600, domain => 'd', master => true) IS NOT NULL;
SELECT pg_temp.guard('g', :old, 'd');
SELECT pg_temp.guard('g', :d, 'd');
SELECT pg_temp.guard('g', NULL, 'e');
SELECT pg_temp.guard(NULL, NULL, 'd', true);
SELECT pg_temp.guard(NULL, NULL, '', true);
SELECT pg_temp.guard(NULL, NULL, 'e', true);
SELECT lock_release('g', domain => 'd'), lock_release(NULL, domain => 'd', master => true);
SELECT pg_temp.guard('g', :d, 'd');
SELECT pg_temp.guard(NULL, NULL, 'd', true);
RESET ROLE;
SET lockext.domains = '"", e';
SELECT pg_temp.guard('g', NULL, 'd');
SELECT pg_temp.guard('g');
RESET lockext.domains;

-- bad arguments
SELECT pg_temp.guard(NULL);
SELECT pg_temp.guard('');
SELECT pg_temp.guard('g ');
SELECT pg_temp.guard(repeat('g', 256));
SELECT pg_temp.guard('g', 0);
SELECT pg_temp.guard('g', -1);
SELECT pg_temp.guard('g', 9007199254740992);
SELECT pg_temp.guard('g', d => NULL);
SELECT pg_temp.guard('g', d => repeat('d', 256));
SELECT pg_temp.guard('g', m => NULL);

-- what is kept, and how long
SET ROLE regress_lockext_alice;
SELECT lock_try('h', 600) IS NOT NULL;
SELECT lock_guard('g');
SELECT * FROM kept;
BEGIN;
SELECT lock_guard('g');
SELECT lock_guard('g', :old);
SELECT * FROM kept;
SELECT lock_guard('h');
SELECT * FROM kept;
COMMIT;
SELECT * FROM kept;
BEGIN;
SELECT lock_guard('g');
ROLLBACK;
SELECT * FROM kept;
-- it takes no transaction ID and writes nothing
BEGIN;
SELECT lock_guard('g');
SELECT pg_current_xact_id_if_assigned();
COMMIT;
BEGIN READ ONLY;
SELECT pg_temp.guard('g');
SELECT pg_temp.guard('g', 1);
SELECT * FROM kept;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT pg_temp.guard('g');
COMMIT;
-- nothing is kept of a guard that failed
BEGIN;
SELECT pg_temp.guard('g', 1);
SELECT pg_temp.guard('none');
SELECT * FROM kept;
COMMIT;

-- savepoints
BEGIN;
SAVEPOINT a;
SELECT lock_guard('g');
SELECT * FROM kept;
ROLLBACK TO a;
SELECT * FROM kept;
SELECT lock_guard('g');
SAVEPOINT b;
SELECT lock_guard('g');
SELECT lock_guard('h');
SELECT * FROM kept;
ROLLBACK TO b;
SELECT * FROM kept;
SELECT lock_guard('h');
RELEASE b;
SELECT * FROM kept;
ROLLBACK TO a;
SELECT * FROM kept;
SAVEPOINT c;
SELECT lock_guard('g');
RELEASE c;
SELECT * FROM kept;
SAVEPOINT c;
SELECT lock_guard('g', 1);
ROLLBACK TO c;
SELECT * FROM kept;
COMMIT;
-- blocks with an EXCEPTION clause; a cursor that ends with another savepoint
BEGIN;
DO $$
BEGIN
	BEGIN
		PERFORM lock_guard('g');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
END $$;
SELECT * FROM kept;
DO $$
BEGIN
	BEGIN
		PERFORM lock_guard('g');
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
END $$;
SELECT * FROM kept;
COMMIT;
BEGIN;
DECLARE c CURSOR FOR SELECT lock_guard('g');
SAVEPOINT a;
FETCH c;
SELECT * FROM kept;
ROLLBACK TO a;
SELECT * FROM kept;
COMMIT;

-- after taking, renewing and releasing in the same transaction
BEGIN;
SELECT lock_try('new', 600) IS NOT NULL;
SELECT pg_temp.guard('new');
SELECT lock_guard('new');
SELECT acquired FROM lock_renew('new', 60);
SELECT pg_temp.guard('new');
SELECT lock_release('new');
SELECT pg_temp.guard('new');
SELECT lock_try('new', 600) AS new \gset
SELECT pg_temp.guard('new', :new);
SELECT pg_temp.guard('new', :new - 1);
SAVEPOINT a;
SELECT lock_guard('new');
SELECT lock_release('new');
SELECT pg_temp.guard('new');
ROLLBACK TO a;
SELECT pg_temp.guard('new');
ROLLBACK;
SELECT pg_temp.guard('new');
BEGIN;
SELECT lock_guard('g');
SELECT lock_release('g');
SELECT pg_temp.guard('g');
ROLLBACK;
SELECT pg_temp.guard('g');

-- its time is over
BEGIN;
SELECT lock_try('x', 1) AS x \gset
COMMIT;
SELECT pg_temp.until_free('x');
SELECT pg_temp.guard('x');
SELECT pg_temp.guard('x', :x);
SELECT lock_try('x', 1) AS x \gset
BEGIN;
SELECT lock_guard('x', :x);
SELECT pg_temp.until_free('x');
SELECT lock_guard('x');
SELECT lock_guard('x', :x);
SELECT pg_temp.guard('x', :x - 1);
SET LOCAL ROLE regress_lockext_bob;
SELECT pg_temp.guard('x', :x);
SET LOCAL ROLE regress_lockext_alice;
-- an expired lock can't be released, but brought back
SELECT lock_release('x');
SELECT acquired, timeout, token = :x FROM lock_renew('x', 60, :x);
SELECT lock_guard('x', :x);
COMMIT;
SELECT pg_temp.guard('x', :x);
-- taken anew by the transaction that guards it
SELECT acquired FROM lock_renew('x', 1);
BEGIN;
SELECT lock_guard('x', :x);
SELECT pg_temp.until_free('x');
SELECT lock_try('x', 600) > :x;
SELECT pg_temp.guard('x');
SELECT pg_temp.guard('x', :x);
COMMIT;
SELECT lock_release('x');

-- scope session
SELECT lock_try('s', 600, 'session') AS s \gset
SELECT pg_temp.guard('s', :s);
SELECT pg_temp.guard('s', :s + 1);
BEGIN;
SELECT lock_guard('s');
SELECT * FROM kept;
COMMIT;
SELECT pg_advisory_unlock_all();
SELECT pg_temp.guard('s', :s);
SELECT pg_temp.guard('s');
SELECT lock_try('s', 600, 'session') IS NOT NULL;
BEGIN;
SELECT lock_release('s');
SELECT pg_temp.guard('s');
ROLLBACK;
SELECT pg_temp.guard('s');
SELECT lock_release('s');

-- scope transaction: held anyway, until it is released; the guard adds nothing
BEGIN READ ONLY;
SELECT lock_try('t', scope => 'transaction') AS t \gset
SELECT * FROM kept;
SELECT pg_temp.guard('t');
SELECT pg_temp.guard('t', :t);
SELECT pg_temp.guard('t', :t - 1);
SELECT * FROM kept;
SET LOCAL ROLE regress_lockext_bob;
SELECT pg_temp.guard('t');
SET LOCAL ROLE regress_lockext_alice;
SELECT lock_release('t');
SELECT pg_temp.guard('t');
COMMIT;
SELECT pg_temp.guard('t', :t);
-- an earlier lease is not brought back by one
SELECT lock_try('t', 1) AS t \gset
SELECT pg_temp.until_free('t');
BEGIN;
SELECT lock_try('t', scope => 'transaction') > :t;
SELECT pg_temp.guard('t', :t);
SELECT lock_release('t');
SELECT pg_temp.guard('t', :t);
SELECT acquired, reason FROM lock_renew('t', 60, :t);
COMMIT;

-- ended by lock_break()
RESET ROLE;
SELECT lock_break('g');
SELECT pg_temp.guard('g', :old);

-- not more keys than a transaction may keep
SELECT lock_try('n1', 600) < lock_try('n2', 600);
SELECT lock_try('n3', 600) IS NOT NULL;
SET lockext.max_keys_per_transaction = 2;
BEGIN;
SELECT lock_guard('n1');
SELECT lock_guard('n2');
SELECT lock_guard('n1');
SELECT pg_temp.guard('n3');
SELECT acquired FROM lock_renew('n2', 60);
SELECT * FROM kept;
COMMIT;
-- those that failed and those that were rolled back don't count
BEGIN;
SELECT pg_temp.guard('none'), pg_temp.guard('n1', 1), pg_temp.guard('none-2');
SAVEPOINT a;
SELECT lock_guard('n1'), lock_guard('n2');
ROLLBACK TO a;
SELECT lock_guard('n1'), lock_guard('n3');
SELECT pg_temp.guard('n2');
COMMIT;
RESET lockext.max_keys_per_transaction;

-- a guard before each row that is written
CREATE TEMP TABLE doc (line text);
CREATE FUNCTION pg_temp.guard_doc() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lock_guard('n1');
	RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION pg_temp.guard_doc();
BEGIN;
INSERT INTO doc SELECT n FROM generate_series(1, 1000) n;
SELECT * FROM kept;
COMMIT;
SELECT lock_release('n1');
\set VERBOSITY terse
INSERT INTO doc VALUES ('late');
\set VERBOSITY default
SELECT count(*) FROM doc;

SELECT count(*) = count(*) FILTER (WHERE lock_release(key, domain => domain)) AS all_released FROM lockext_held;
SELECT key FROM lockext_held ORDER BY 1;
DROP TABLE doc;
DROP VIEW kept;
DROP ROLE regress_lockext_alice, regress_lockext_bob, regress_lockext_team, regress_lockext_member;

-- a pinned lock of this session that has expired is still there when the session
-- takes another one, which tidies up
SELECT lock_try('swept', 1, 'session') IS NOT NULL AS acquired;
BEGIN;
SELECT lock_guard('swept');
SELECT pg_sleep(1.1);
SELECT lock_try('sweeper', 60, 'session') IS NOT NULL AS acquired;
SELECT acquired, reason FROM lock_renew('swept', 60);
SELECT held FROM lock_check('swept');
COMMIT;
SELECT held FROM lock_check('swept');
SELECT lock_release('swept'), lock_release('sweeper');

-- one that has ended with its session is not, pinned or not
SELECT lock_try('unlocked', 60, 'session') IS NOT NULL AS acquired;
BEGIN;
SELECT lock_guard('unlocked');
SELECT FROM pg_advisory_unlock_all();
SELECT acquired, reason FROM lock_renew('unlocked', 60);
SELECT lock_guard('unlocked');
ROLLBACK;
