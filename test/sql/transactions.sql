--
-- Locks and transactions: what is done takes effect at commit and vanishes on
-- rollback
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'transactions test';
\pset null '<NULL>'

-- commit and rollback of each change
BEGIN;
SELECT acquired FROM lock_acquire('tx', 300);
SELECT held FROM lock_check('tx');
ROLLBACK;
SELECT held FROM lock_check('tx');
BEGIN;
SELECT acquired, token FROM lock_acquire('tx', 300) \gset
COMMIT;
SELECT held, token = :token AS same FROM lock_check('tx');
CREATE TEMP TABLE held AS SELECT * FROM lock_check('tx');
BEGIN;
SELECT lock_release('tx'), lock_release('tx');
SELECT held FROM lock_check('tx');
ROLLBACK;
SELECT c = h AS unchanged FROM held h, lock_check('tx') c;
BEGIN;
SELECT timeout FROM lock_renew('tx', 600);
SELECT timeout FROM lock_check('tx');
ROLLBACK;
SELECT c = h AS unchanged FROM held h, lock_check('tx') c;
BEGIN;
SELECT lock_break('tx'), lock_break('tx');
SELECT held FROM lock_check('tx');
ROLLBACK;
SELECT c = h AS unchanged FROM held h, lock_check('tx') c;
BEGIN;
SELECT lock_break('tx');
SELECT acquired, token > :token AS newer FROM lock_acquire('tx', 60);
ROLLBACK;
SELECT c = h AS unchanged FROM held h, lock_check('tx') c;
-- an error ends the transaction, and what it did with it
BEGIN;
SELECT lock_release('tx');
SELECT lock_try('tx-2', 60) IS NOT NULL AS acquired;
SELECT 1 / 0;
SELECT lock_release('tx');
COMMIT;
SELECT c = h AS unchanged FROM held h, lock_check('tx') c;
SELECT held FROM lock_check('tx-2');
SELECT lock_release('tx');
DROP TABLE held;

-- a key taken, given back and taken again, in a transaction
BEGIN;
SELECT token AS first, acquired FROM lock_acquire('tx', 60, calling_fn => 'one') \gset
SELECT acquired, reason FROM lock_acquire('tx', 60, calling_fn => 'two');
SELECT lock_release('tx', :first);
SELECT token AS second, acquired FROM lock_acquire('tx', 70, calling_fn => 'three') \gset
SELECT lock_release('tx', :first);
SELECT :second > :first AS newer, token = :second AS same, timeout, calling_fn FROM lock_check('tx');
SELECT lock_release('tx', :second);
SELECT token AS third, acquired FROM lock_acquire('tx', 80, calling_fn => 'four') \gset
SELECT :third > :second AS newer;
COMMIT;
SELECT held, token = :third AS same, timeout, calling_fn FROM lock_check('tx');
SELECT lock_release('tx');

-- in one statement, from left to right
SELECT lock_try('tx', 60) IS NOT NULL AS taken, lock_try('tx', 60) IS NULL AS refused, lock_release('tx') AS given_back,
	lock_try('tx', 60) IS NOT NULL AS taken_again, (lock_renew('tx', 600)).timeout, (lock_check('tx')).timeout,
	lock_release('tx') AS given_back_again, (lock_check('tx')).held;
SELECT k, r.acquired, r.reason FROM (VALUES (1, 'tx-a'), (2, 'tx-b'), (3, 'tx-a'), (4, 'tx-c')) v(n, k), lock_acquire(k, 60) r
ORDER BY n;
SELECT k, lock_release(k), (lock_check(k)).held FROM (VALUES (1, 'tx-a'), (2, 'tx-b'), (3, 'tx-a'), (4, 'tx-c')) v(n, k)
ORDER BY n;
WITH taken AS MATERIALIZED (SELECT * FROM lock_acquire('tx', 60))
SELECT t.acquired, c.held, t.token = c.token AS same FROM taken t, LATERAL lock_check(t.key) c;
SELECT lock_release('tx');

-- savepoints
BEGIN;
SELECT lock_try('tx-1', 60) IS NOT NULL AS acquired;
SAVEPOINT a;
SELECT lock_try('tx-2', 60) IS NOT NULL AS acquired;
SELECT lock_release('tx-1');
SAVEPOINT b;
SELECT lock_try('tx-3', 60) IS NOT NULL AS acquired;
SELECT acquired, timeout FROM lock_acquire('tx-1', 70);
SELECT (lock_check('tx-1')).held AS "1", (lock_check('tx-2')).held AS "2", (lock_check('tx-3')).held AS "3";
ROLLBACK TO b;
SELECT (lock_check('tx-1')).held AS "1", (lock_check('tx-2')).held AS "2", (lock_check('tx-3')).held AS "3";
ROLLBACK TO a;
SELECT (lock_check('tx-1')).held AS "1", (lock_check('tx-2')).held AS "2", (lock_check('tx-3')).held AS "3";
SAVEPOINT c;
SELECT lock_try('tx-3', 60) IS NOT NULL AS acquired;
RELEASE c;
SELECT lock_try('tx-3', 60) IS NULL AS refused;
COMMIT;
SELECT key, timeout FROM lockext_held ORDER BY key;
-- released in one that is undone, and in one that is not
BEGIN;
SAVEPOINT a;
SELECT lock_release('tx-1');
ROLLBACK TO a;
SELECT lock_try('tx-1', 60) IS NULL AS refused;
SAVEPOINT b;
SELECT lock_release('tx-3');
RELEASE b;
SELECT lock_try('tx-3', 60) IS NOT NULL AS acquired;
SELECT timeout FROM lock_renew('tx-1', 120);
SAVEPOINT d;
SELECT timeout FROM lock_renew('tx-1', 600);
ROLLBACK TO d;
SELECT timeout FROM lock_check('tx-1');
COMMIT;
SELECT key, timeout FROM lockext_held ORDER BY key;
SELECT count(*) AS released FROM lockext_held WHERE lock_release(key);
-- a key lock is kept exactly as long as the change
BEGIN;
SAVEPOINT a;
SELECT lock_try('tx-1', 60) IS NOT NULL AS acquired;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid = 27755;
ROLLBACK TO a;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
SELECT lock_release('tx-1'), (lock_renew('tx-1', 60)).reason, lock_break('tx-1'), (lock_check('tx-1')).held;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
SELECT lock_try('tx-1', 60) IS NOT NULL AS acquired, lock_try('tx-1', 60) IS NULL AS refused;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
COMMIT;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
-- and held locks need none
SELECT held FROM lock_check('tx-1');
SELECT lock_release('tx-1');

-- a key lock does not end with the cursor whose query took it: it belongs to the
-- transaction, or savepoint, that fetched
BEGIN;
DECLARE c CURSOR FOR SELECT CASE i WHEN 1 THEN lock_try('tx-cursor', 60) IS NOT NULL ELSE 1 / (i - 2) > 0 END AS acquired
FROM generate_series(1, 2) i;
FETCH 1 FROM c;
SAVEPOINT a;
FETCH 1 FROM c;
ROLLBACK TO a;
SELECT held FROM lock_check('tx-cursor');
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
DECLARE d CURSOR FOR SELECT lock_try('tx-cursor-2', 60) IS NOT NULL AS acquired;
SAVEPOINT b;
FETCH 1 FROM d;
ROLLBACK TO b;
SELECT held FROM lock_check('tx-cursor-2');
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
CLOSE d;
COMMIT;
SELECT key FROM lockext_held ORDER BY key;
SELECT lock_release('tx-cursor');

-- PL/pgSQL: blocks with exception handlers are savepoints
CREATE FUNCTION pg_temp.blocks() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	first bigint := lock_try('tx-outer', 60);
	second bigint;
BEGIN
	BEGIN
		second := lock_try('tx-inner', 60);
		IF lock_release('tx-outer', first) AND second IS NOT NULL THEN
			RAISE division_by_zero;
		END IF;
	EXCEPTION WHEN division_by_zero THEN
		RETURN NEXT format('undone: outer %s, inner %s', (lock_check('tx-outer')).held, (lock_check('tx-inner')).held);
	END;
	BEGIN
		second := lock_try('tx-inner', 60);
		PERFORM lock_release('tx-outer', first);
		first := lock_try('tx-outer', 70);
	EXCEPTION WHEN division_by_zero THEN
		RETURN NEXT 'not reached';
	END;
	RETURN NEXT format('kept: outer %s, inner %s', (lock_check('tx-outer')).timeout, (lock_check('tx-inner')).timeout);
	BEGIN
		PERFORM lock_acquire('tx inner', 60);
	EXCEPTION WHEN invalid_parameter_value THEN
		RETURN NEXT 'invalid: ' || coalesce(lock_try('tx-handler', 60) > 0, false);
	END;
	FOR i IN 1..3 LOOP
		BEGIN
			IF lock_try('tx-loop', 60) IS NULL THEN
				RETURN NEXT 'not reached';
			END IF;
			RAISE unique_violation;
		EXCEPTION WHEN unique_violation THEN
			RETURN NEXT 'again';
		END;
	END LOOP;
END $$;
SELECT * FROM pg_temp.blocks();
SELECT key, timeout FROM lockext_held ORDER BY key;
SELECT count(*) AS released FROM lockext_held WHERE lock_release(key);

-- procedures that commit and roll back
CREATE PROCEDURE pg_temp.steps() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lock_acquire('tx-step-1', 60);
	COMMIT;
	PERFORM lock_acquire('tx-step-2', 60);
	ROLLBACK;
	PERFORM lock_acquire('tx-step-3', 60), lock_release('tx-step-1');
	COMMIT;
	PERFORM lock_acquire('tx-step-4', 60);
	RAISE EXCEPTION 'the end';
END $$;
\set VERBOSITY terse
CALL pg_temp.steps();
\set VERBOSITY default
SELECT key FROM lockext_held ORDER BY key;
SELECT lock_release('tx-step-3');

-- a deferred trigger runs at commit
CREATE TEMP TABLE deferred (a integer);
CREATE FUNCTION pg_temp.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lock_release('tx-deferred'), lock_acquire('tx-deferred-2', 60);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION pg_temp.at_commit();
BEGIN;
INSERT INTO deferred VALUES (1);
SELECT lock_try('tx-deferred', 60) IS NOT NULL AS acquired;
COMMIT;
SELECT key FROM lockext_held ORDER BY key;
SELECT lock_release('tx-deferred-2');
DROP TABLE deferred;

-- read-only transactions: looking works, changing is 25006
SELECT lock_try('tx-ro', 60) IS NOT NULL AS acquired;
BEGIN READ ONLY;
SELECT held, timeout FROM lock_check('tx-ro');
SELECT held FROM lock_check('tx-ro-2');
SELECT key, token IS NOT NULL AS token FROM lockext_held ORDER BY key;
SAVEPOINT s;
SELECT lock_acquire('tx-ro-2', 60);
ROLLBACK TO s;
SELECT lock_acquire('tx-ro', 60);
ROLLBACK TO s;
SELECT lock_try('tx-ro-2', 60);
ROLLBACK TO s;
SELECT lock_release('tx-ro');
ROLLBACK TO s;
SELECT lock_release('tx-ro-2');
ROLLBACK TO s;
SELECT lock_renew('tx-ro', 60);
ROLLBACK TO s;
SELECT lock_break('tx-ro');
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT lock_acquire('tx-ro-2', 60);
ROLLBACK TO s;
SELECT lock_try('tx-ro-2', 60);
ROLLBACK TO s;
SELECT lock_release('tx-ro');
ROLLBACK TO s;
SELECT lock_renew('tx-ro', 60);
ROLLBACK TO s;
SELECT lock_break('tx-ro');
ROLLBACK TO s;
\set VERBOSITY default
SELECT held, timeout FROM lock_check('tx-ro');
COMMIT;
SET default_transaction_read_only = on;
SELECT lock_try('tx-ro-2', 60);
RESET default_transaction_read_only;
-- a look assigns no transaction ID, nor does a refusal
BEGIN;
SELECT held FROM lock_check('tx-ro');
SELECT count(*) FROM lockext_held;
SELECT lock_try('tx-ro', 60), (lock_acquire('tx-ro', 60)).reason, lock_release('tx-none'), (lock_renew('tx-none', 60)).reason;
SELECT pg_current_xact_id_if_assigned();
ROLLBACK;
SELECT lock_release('tx-ro');

-- at higher isolation levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM lockext_held;
SELECT lock_try('tx-rr', 60) IS NOT NULL AS acquired, lock_try('tx-rr', 60) IS NULL AS refused;
SELECT held FROM lock_check('tx-rr');
SELECT lock_release('tx-rr');
SELECT held FROM lock_check('tx-rr');
SELECT acquired, timeout FROM lock_acquire('tx-rr', 70);
SELECT timeout FROM lock_renew('tx-rr', 80);
COMMIT;
SELECT held, timeout FROM lock_check('tx-rr');
-- the last holder's change is in the snapshot: nothing to be warned of
SELECT lock_release('tx-rr');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT acquired FROM lock_acquire('tx-rr', 60);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT acquired, reason FROM lock_acquire('tx-rr', 60);
SELECT lock_release('tx-rr');
SELECT acquired, reason FROM lock_acquire('tx-rr', 90);
SELECT lock_break('tx-rr');
SELECT acquired, reason FROM lock_acquire('tx-rr', 90);
SELECT key, timeout FROM lockext_held ORDER BY key;
-- without predicate locks on the lock table
SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock'
	AND relation IN (SELECT 'lockext_lock'::regclass UNION SELECT indexrelid FROM pg_index WHERE indrelid = 'lockext_lock'::regclass);
COMMIT;
SELECT lock_release('tx-rr');

-- two-phase commit: busy, with an unknown holder, until it ends
BEGIN;
SELECT lock_try('tx-2pc', 60) IS NOT NULL AND lock_try('tx-2pc-other', 60) IS NOT NULL AS acquired;
PREPARE TRANSACTION 'regress_lockext_1';
SELECT acquired, reason, holder, token, waited_ms FROM lock_acquire('tx-2pc', 60);
SELECT lock_try('tx-2pc', 60);
-- not committed, so it is not held, and neither ours to release nor to renew
SELECT held FROM lock_check('tx-2pc');
SELECT lock_release('tx-2pc'), (lock_renew('tx-2pc', 60)).reason;
SELECT lock_break('tx-2pc');
\set VERBOSITY sqlstate
SELECT lock_break('tx-2pc');
\set VERBOSITY default
COMMIT PREPARED 'regress_lockext_1';
SELECT acquired, reason, holder ->> 'scope' AS scope FROM lock_acquire('tx-2pc', 60);
SELECT key, timeout FROM lockext_held ORDER BY key;
SELECT lock_release('tx-2pc-other');
BEGIN;
SELECT lock_try('tx-2pc-other', 60) IS NOT NULL AS acquired;
PREPARE TRANSACTION 'regress_lockext_2';
SELECT reason FROM lock_acquire('tx-2pc-other', 60);
ROLLBACK PREPARED 'regress_lockext_2';
SELECT held FROM lock_check('tx-2pc-other');
SELECT acquired FROM lock_acquire('tx-2pc-other', 60);
-- a prepared release or break: held until it ends, and nobody can get in between
SELECT token FROM lock_check('tx-2pc') \gset
BEGIN;
SELECT lock_release('tx-2pc'), lock_break('tx-2pc-other');
PREPARE TRANSACTION 'regress_lockext_3';
SELECT acquired, reason FROM lock_acquire('tx-2pc', 60);
SELECT held, token = :token AS same FROM lock_check('tx-2pc');
SELECT lock_break('tx-2pc');
ROLLBACK PREPARED 'regress_lockext_3';
SELECT key, timeout FROM lockext_held ORDER BY key;
BEGIN;
SELECT lock_release('tx-2pc'), lock_break('tx-2pc-other');
PREPARE TRANSACTION 'regress_lockext_4';
COMMIT PREPARED 'regress_lockext_4';
SELECT key, timeout FROM lockext_held ORDER BY key;
SELECT acquired, token > :token AS newer FROM lock_acquire('tx-2pc', 60);
SELECT lock_release('tx-2pc');
SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'regress_lockext_%';

-- the trap: (f()).* calls the function once for each of its columns.  The
-- first call takes the lock, and the third, which fills the column acquired,
-- is refused because of it
SELECT key, acquired, reason, token FROM (SELECT (lock_acquire('tx-trap', 60)).* OFFSET 0) r;
SELECT held FROM lock_check('tx-trap');
SELECT lock_release('tx-trap');
CREATE TEMP SEQUENCE calls;
SELECT count(*) FROM (SELECT (lock_acquire('tx-trap-' || nextval('calls'), 60)).* OFFSET 0) r;
SELECT count(*) AS calls FROM lockext_held WHERE key LIKE 'tx-trap-%' AND lock_release(key);
DROP SEQUENCE calls;
-- what to write instead: the function in FROM
SELECT key, acquired, reason, token IS NOT NULL AS token FROM lock_acquire('tx-trap', 60);
SELECT lock_release('tx-trap');
SELECT v.k, r.acquired, r.reason FROM (VALUES ('tx-trap')) v(k) CROSS JOIN LATERAL lock_acquire(v.k, 60) r;
SELECT lock_release('tx-trap');
-- or a single column, or the scalar function
SELECT (lock_acquire('tx-trap', 60)).acquired;
SELECT lock_release('tx-trap');
SELECT lock_try('tx-trap', 60) IS NOT NULL AS acquired;
SELECT lock_release('tx-trap');
DO $$
DECLARE
	r lock_result;
BEGIN
	r := lock_acquire('tx-trap', 60);
	RAISE NOTICE 'acquired %, token %', r.acquired, r.token IS NOT NULL;
	SELECT * INTO r FROM lock_acquire('tx-trap-2', 60);
	RAISE NOTICE 'acquired %, token %', r.acquired, r.token IS NOT NULL;
END $$;
SELECT lock_release('tx-trap'), lock_release('tx-trap-2');

SELECT key FROM lockext_held ORDER BY key;
