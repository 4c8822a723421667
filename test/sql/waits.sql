--
-- Waiting, as far as one session at a time can show it: what is refused at once,
-- deadlines, lock_timeout, CALL lock_acquire_wait()
--
-- In the way stand locks of earlier sessions, and prepared transactions.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'waits test';
-- instead of for ever
SET statement_timeout = '30s';
\pset null '<NULL>'

CREATE ROLE regress_lockext_user;
CREATE TABLE written (n integer);

-- the advisory locks of this session: KEY is 27755, QUEUE 27757, LIVE 27759
CREATE VIEW my_locks AS
SELECT objsubid, mode, granted, count(*) FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid()
GROUP BY 1, 2, 3 ORDER BY 1, 2;

-- a free lock: no wait, whatever is allowed
SELECT n, acquired, reason, waited_ms, holder, released
FROM unnest('{-1,0,1,2147483647}'::integer[]) n, LATERAL lock_acquire('w', 60, wait_ms => n) a, LATERAL lock_release(a.key) released
ORDER BY n;
SELECT s, acquired, waited_ms, released
FROM unnest('{lease,session,transaction}'::text[]) s, LATERAL lock_acquire('w', scope => s, wait_ms => -1) a, LATERAL lock_release(a.key) released
ORDER BY s;
SELECT lock_acquire('w', wait_ms => NULL);
SELECT lock_acquire('w', wait_ms => -2);
SELECT * FROM my_locks;

-- a lock of one's own is refused at once: taken before,
SELECT lock_try('w-l', 600) IS NOT NULL AND lock_try('w-s', 600, scope => 'session') IS NOT NULL AS taken;
SELECT k, s, n, acquired, reason, waited_ms, holder ->> 'scope' AS scope
FROM unnest('{w-l,w-s}'::text[]) k, unnest('{lease,session,transaction}'::text[]) s, unnest('{-1,30000}'::integer[]) n,
	LATERAL lock_acquire(k, scope => s, wait_ms => n) ORDER BY k, s, n;
-- by another role of this session,
SET ROLE regress_lockext_user;
SELECT acquired, reason, waited_ms FROM lock_acquire('w-l', wait_ms => -1);
RESET ROLE;
-- or in this transaction
BEGIN;
SELECT count(lock_try('w-' || s || '-2', scope => s)) FROM unnest('{lease,session,transaction}'::text[]) s;
SELECT s, acquired, reason, waited_ms, holder ->> 'scope' AS scope
FROM unnest('{lease,session,transaction}'::text[]) s, LATERAL lock_acquire('w-' || s || '-2', wait_ms => -1) ORDER BY s;
-- released or broken, it is free at once
SELECT lock_release('w-l'), lock_break('w-s'), lock_release('w-transaction-2');
SELECT k, acquired, waited_ms FROM unnest('{w-l,w-s,w-transaction-2}'::text[]) k, LATERAL lock_acquire(k, wait_ms => -1) ORDER BY k;
-- nobody queued for that
SELECT DISTINCT objsubid FROM my_locks ORDER BY 1;
ROLLBACK;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_release('w-l'), lock_release('w-s');

-- a prepared transaction in the way: the deadline is an answer
BEGIN;
SELECT lock_try('w') IS NOT NULL AND lock_try('w', domain => 'd') IS NOT NULL AND
	lock_try(NULL, domain => 'd', master => true) IS NOT NULL AS taken;
PREPARE TRANSACTION 'regress_lockext_waits';
SELECT s, acquired, reason, token, waited_ms BETWEEN 50 AND 30000 AS waited, holder
FROM unnest('{lease,session,transaction}'::text[]) s, LATERAL lock_acquire('w', scope => s, wait_ms => 50) ORDER BY s;
SELECT acquired, reason, waited_ms FROM lock_acquire('w', wait_ms => 0);
SELECT held FROM lock_check('w');
SELECT * FROM my_locks;
SELECT count(*) FROM lockext_waiters;
-- also in a transaction, which goes on, and without a transaction ID
BEGIN READ ONLY;
SELECT lock_try('w-own', scope => 'transaction') IS NOT NULL AS taken;
SELECT acquired, reason, waited_ms >= 50 AS waited FROM lock_acquire('w', scope => 'transaction', wait_ms => 50);
SELECT * FROM my_locks;
SELECT key FROM lockext_held;
SELECT pg_current_xact_id_if_assigned();
COMMIT;
-- lock_timeout, statement_timeout are errors, and leave nothing
SET lock_timeout = '50ms';
SELECT lock_acquire('w', wait_ms => -1);
SELECT lock_acquire('w', wait_ms => 2147483647);
SELECT lock_acquire('w', domain => 'd', wait_ms => 30000);
SELECT lock_acquire(NULL, domain => 'd', master => true, wait_ms => 30000);
\set VERBOSITY sqlstate
SELECT lock_acquire('w', scope => 'session', wait_ms => -1);
SELECT lock_acquire('w', scope => 'transaction', wait_ms => -1);
CALL lock_acquire_wait('w');
SET lock_timeout = '10s';
SET statement_timeout = '300ms';
SELECT lock_acquire('w', wait_ms => -1);
CALL lock_acquire_wait('w', 60);
\set VERBOSITY default
SELECT lock_acquire('w', wait_ms => -1);
SET statement_timeout = '30s';
SELECT * FROM my_locks;
SELECT count(*) FROM lockext_waiters;
-- the earlier of the two counts
SELECT acquired, reason, waited_ms BETWEEN 50 AND 9000 AS waited FROM lock_acquire('w', wait_ms => 50);
SHOW lock_timeout;
RESET lock_timeout;
-- caught, the transaction goes on with what it had
BEGIN;
SELECT lock_try('w-own', scope => 'transaction') IS NOT NULL AND lock_try('w-own-2', scope => 'session') IS NOT NULL AS taken;
SET LOCAL lock_timeout = '50ms';
DO $$
BEGIN
	PERFORM lock_try('w-own-3'), lock_acquire('w', wait_ms => -1);
EXCEPTION WHEN lock_not_available THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
SELECT key FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
ROLLBACK;
SELECT * FROM my_locks;
-- the user's settings are as they were
SET lockext.log_waits = on;
SELECT acquired FROM lock_acquire('w', wait_ms => 50);
SHOW log_lock_waits;
SET deadlock_timeout = '10ms';
SELECT acquired FROM lock_acquire('w', wait_ms => 100);
SHOW log_lock_waits;
SHOW client_connection_check_interval;
SHOW lock_timeout;
RESET deadlock_timeout;
RESET lockext.log_waits;
-- a break waits as long as it is told to
SELECT clock_timestamp() AS begun \gset
SELECT lock_break('w', 100);
SELECT clock_timestamp() - :'begun' BETWEEN '100 ms' AND '30 s' AS waited;
SET lock_timeout = '50ms';
SELECT lock_break('w', -1);
RESET lock_timeout;
SELECT * FROM my_locks;
-- the other end of it: rolled back, the lock is free
ROLLBACK PREPARED 'regress_lockext_waits';
SELECT acquired, waited_ms FROM lock_acquire('w', 600, wait_ms => -1, calling_fn => 'holder');
SELECT lock_break('w-none', -1);
-- a release that is not committed: held, and by whom
BEGIN;
SELECT lock_release('w');
PREPARE TRANSACTION 'regress_lockext_waits';
\c -
SET statement_timeout = '30s';
SET application_name = 'waits test';
SELECT acquired, reason, waited_ms >= 50 AS waited, holder ->> 'calling_fn' AS holder FROM lock_acquire('w', wait_ms => 50);
SELECT * FROM my_locks;
ROLLBACK PREPARED 'regress_lockext_waits';
-- a lock with scope "transaction"
BEGIN;
SELECT lock_try('w-t', scope => 'transaction') IS NOT NULL AS taken;
PREPARE TRANSACTION 'regress_lockext_waits';
SELECT s, acquired, reason, waited_ms >= 50 AS waited, holder
FROM unnest('{lease,session,transaction}'::text[]) s, LATERAL lock_acquire('w-t', scope => s, wait_ms => 50) ORDER BY s;
COMMIT PREPARED 'regress_lockext_waits';
SELECT acquired, waited_ms FROM lock_acquire('w-t', scope => 'transaction', wait_ms => -1);

-- a lease of an earlier session of the same role in the way: that is not one's own
SELECT s, acquired, reason, token, waited_ms BETWEEN 50 AND 30000 AS waited,
	holder ->> 'scope' AS scope, holder ->> 'calling_fn' AS calling_fn, (holder ->> 'pid')::integer <> pg_backend_pid() AS other_pid
FROM unnest('{lease,session,transaction}'::text[]) s, LATERAL lock_acquire('w', scope => s, wait_ms => 50) ORDER BY s;
SELECT acquired, reason, waited_ms FROM lock_acquire('w', wait_ms => 0);
SET lock_timeout = '50ms';
SELECT lock_acquire('w', wait_ms => -1);
SET lock_timeout = '10s';
SET statement_timeout = '300ms';
SELECT lock_acquire('w', wait_ms => -1);
SET statement_timeout = '30s';
RESET lock_timeout;
SELECT * FROM my_locks;
SELECT count(*) FROM lockext_waiters;
-- no wait where the transaction has its hands on the lock: others wait for it
BEGIN;
SELECT acquired FROM lock_renew('w', 600);
SELECT acquired, reason, waited_ms FROM lock_acquire('w', wait_ms => -1);
SELECT lock_release('w');
SELECT acquired, waited_ms FROM lock_acquire('w', wait_ms => -1);
ROLLBACK;
-- nor where the lock could not be kept
SET lockext.max_keys_per_transaction = 1;
BEGIN;
SELECT lock_try('w-own', scope => 'transaction') IS NOT NULL AS taken;
SELECT lock_acquire('w', wait_ms => -1);
ROLLBACK;
RESET lockext.max_keys_per_transaction;
-- in a function, in the middle of a query, with a cursor open
BEGIN;
DECLARE c CURSOR FOR SELECT i, acquired, reason, waited_ms >= 20 AS waited
FROM generate_series(1, 3) i, LATERAL lock_acquire(CASE i WHEN 2 THEN 'w' ELSE 'w-c' || i END, wait_ms => 20, scope => 'transaction');
FETCH 1 FROM c;
FETCH ALL FROM c;
CLOSE c;
SELECT key, scope FROM lockext_held ORDER BY key;
COMMIT;
SELECT lock_release('w');

-- its end: the waiter has the lock, not a moment before
SELECT lock_try('w-end', 2) IS NOT NULL AS taken;
\c -
SET statement_timeout = '30s';
SET application_name = 'waits test';
SELECT expires_at AS ends FROM lock_check('w-end') \gset
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 1 AS snapshot;
SAVEPOINT s;
-- what is read from now on may be older than the last holder's work
SELECT acquired, reason, waited_ms > 0 AS waited, acquired_at >= :'ends' AS not_before, holder
FROM lock_acquire('w-end', 60, wait_ms => 30000);
-- the next in line wakes when this is over
SELECT * FROM my_locks;
ROLLBACK TO s;
SELECT * FROM my_locks;
SELECT held FROM lock_check('w-end');
ROLLBACK;
-- with a transaction of its own there is nothing to be warned of
SELECT lock_try('w-end', 2) IS NOT NULL AS taken;
\c -
SET statement_timeout = '30s';
SET application_name = 'waits test';
SELECT expires_at AS ends FROM lock_check('w-end') \gset
SET default_transaction_isolation = 'serializable';
CALL lock_acquire_wait('w-end', 2) \gset
RESET default_transaction_isolation;
SELECT acquired, waited_ms > 0 AS waited, acquired_at >= :'ends' AS not_before, token IS NOT NULL AS token
FROM (SELECT (:'result'::lock_result).*) r;
SELECT * FROM my_locks;
-- and without a transaction ID to the end
\c -
SET statement_timeout = '30s';
SET application_name = 'waits test';
BEGIN READ ONLY;
SELECT acquired, waited_ms > 0 AS waited FROM lock_acquire('w-end', scope => 'transaction', wait_ms => -1);
SELECT * FROM my_locks;
SELECT pg_current_xact_id_if_assigned();
COMMIT;
SELECT * FROM my_locks;
SELECT held FROM lock_check('w-end');

-- CALL lock_acquire_wait(): one column, a lock_result
CALL lock_acquire_wait('w-c', 60) \gset first_
SELECT key, acquired, reason, timeout, waited_ms, holder FROM (SELECT (:'first_result'::lock_result).*) r;
SELECT held, scope, token = (:'first_result'::lock_result).token AS same FROM lock_check('w-c');
-- one's own is refused at once, here too
CALL lock_acquire_wait('w-c', 60) \gset second_
SELECT key, acquired, reason, timeout, waited_ms, holder ->> 'scope' AS scope FROM (SELECT (:'second_result'::lock_result).*) r;
SELECT lock_release('w-c', (:'first_result'::lock_result).token);
-- by position and by name
CALL lock_acquire_wait('w-c', 60, 0, 'session', 'label', 'domain', false, '{"a": 1}', NULL) \gset
SELECT key, domain, acquired, calling_fn FROM (SELECT (:'result'::lock_result).*) r;
SELECT scope, timeout, calling_fn, domain, data FROM lock_check('w-c', 'domain');
SELECT * FROM my_locks;
CALL lock_acquire_wait(NULL, wait_ms => 10, domain => 'domain', master => true) \gset
SELECT key, domain, acquired, timeout FROM (SELECT (:'result'::lock_result).*) r;
SET lockext.default_timeout = 7;
CALL lock_acquire_wait(scope => 'session', key => 'w-c', result => NULL) \gset
RESET lockext.default_timeout;
SELECT key, acquired, timeout FROM (SELECT (:'result'::lock_result).*) r;
SELECT lock_release('w-c', domain => 'domain'), lock_release(NULL, domain => 'domain', master => true), lock_release('w-c');
-- a deadline
BEGIN;
SELECT lock_try('w-p', scope => 'transaction') IS NOT NULL AS taken;
PREPARE TRANSACTION 'regress_lockext_waits';
CALL lock_acquire_wait('w-p', 60, 50) \gset
SELECT acquired, reason, waited_ms BETWEEN 50 AND 30000 AS waited, holder FROM (SELECT (:'result'::lock_result).*) r;
CALL lock_acquire_wait('w-p', 60, 0) \gset
SELECT acquired, reason, waited_ms FROM (SELECT (:'result'::lock_result).*) r;
ROLLBACK PREPARED 'regress_lockext_waits';
SELECT * FROM my_locks;
-- bad arguments are told first
CALL lock_acquire_wait('w', wait_ms => NULL);
CALL lock_acquire_wait('w', wait_ms => -2);
CALL lock_acquire_wait('w', scope => 'transaction');
-- nothing to do in a read-only transaction
SET default_transaction_read_only = on;
CALL lock_acquire_wait('w', 60);
\set VERBOSITY sqlstate
CALL lock_acquire_wait('w', 60, 0, 'session');
\set VERBOSITY default
RESET default_transaction_read_only;
SELECT held FROM lock_check('w');

-- in PL/pgSQL it takes one variable
DO $$
DECLARE
	r lock_result;
BEGIN
	CALL lock_acquire_wait('w-c', 60, result => r);
	RAISE NOTICE '%: acquired %, token %', r.key, r.acquired, r.token IS NOT NULL;
	-- it is the transaction's, as yet
	ROLLBACK;
	RAISE NOTICE 'held %', (lock_check('w-c')).held;
	CALL lock_acquire_wait('w-c', 60, -1, 'lease', 'label', '', false, NULL, r);
	COMMIT;
	RAISE NOTICE 'held by %', (lock_check('w-c')).calling_fn;
	CALL lock_acquire_wait('w-c', 60, 30000, result => r);
	RAISE NOTICE 'acquired %, %, waited %', r.acquired, r.reason, r.waited_ms;
	-- a try that failed and a release of nothing have written nothing, and keep nothing
	PERFORM lock_try('w-c'), lock_release('w-none');
	CALL lock_acquire_wait('w-c-2', 60, result => r);
	RAISE NOTICE '%: acquired %', r.key, r.acquired;
END $$;
SELECT key, calling_fn FROM lockext_held ORDER BY key;
CREATE PROCEDURE take_each(keys text[]) LANGUAGE plpgsql AS $$
DECLARE
	r lock_result;
	k text;
BEGIN
	FOR k IN SELECT u FROM unnest(keys) u LOOP
		CALL lock_acquire_wait(k, 60, result => r);
		INSERT INTO written SELECT length(r.key) WHERE r.acquired;
		COMMIT;
	END LOOP;
END $$;
CALL take_each('{w-1,w-22,w-1,w-333}');
SELECT key, calling_fn FROM lockext_held ORDER BY key;
SELECT n FROM written ORDER BY n;
SELECT count(*) AS released FROM lockext_held WHERE lock_release(key);
DELETE FROM written;
-- what fails afterwards takes the lock back
\set SHOW_CONTEXT never
DO $$
DECLARE
	r lock_result;
BEGIN
	CALL lock_acquire_wait('w-c', 60, result => r);
	CALL lock_acquire_wait('w-c-2', 60, result => r);
END $$;
SELECT key FROM lockext_held ORDER BY key;

-- refused where the transaction can't be ended, or not without a loss
BEGIN;
CALL lock_acquire_wait('w', 60);
ROLLBACK;
SELECT 1 AS one\; CALL lock_acquire_wait('w', 60);
\set AUTOCOMMIT off
CALL lock_acquire_wait('w', 60, 0);
ROLLBACK;
\set AUTOCOMMIT on
CREATE FUNCTION pg_temp.waits() RETURNS lock_result LANGUAGE plpgsql AS $$
DECLARE
	r lock_result;
BEGIN
	CALL lock_acquire_wait('w', 60, result => r);
	RETURN r;
END $$;
SELECT pg_temp.waits();
CREATE PROCEDURE waits() LANGUAGE plpgsql AS $$
DECLARE
	r lock_result;
BEGIN
	CALL lock_acquire_wait('w', 60, result => r);
	RAISE NOTICE 'acquired %', r.acquired;
END $$;
ALTER PROCEDURE waits SECURITY DEFINER;
CALL waits();
ALTER PROCEDURE waits SECURITY INVOKER SET work_mem = '1MB';
CALL waits();
ALTER PROCEDURE waits RESET work_mem;
BEGIN;
CALL waits();
ROLLBACK;
CALL waits();
SELECT lock_release('w');
-- in a block with an EXCEPTION clause
DO $$
DECLARE
	r lock_result;
	detail text;
	hint text;
BEGIN
	INSERT INTO written VALUES (1);
	BEGIN
		CALL lock_acquire_wait('w', 60, result => r);
	EXCEPTION WHEN invalid_transaction_termination THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RAISE NOTICE '%, detail %, hint %', SQLSTATE, detail <> '', hint;
	END;
	-- and nothing was committed by the way
	ROLLBACK;
	RAISE NOTICE '% written', (SELECT count(*) FROM written);
	INSERT INTO written VALUES (2);
	BEGIN
		CALL lock_acquire_wait('w', 60, result => r);
	EXCEPTION WHEN invalid_transaction_termination THEN
		NULL;
	END;
END $$;
-- nor lost
SELECT n FROM written;
-- after a write
DO $$
DECLARE
	r lock_result;
BEGIN
	INSERT INTO written VALUES (3);
	CALL lock_acquire_wait('w', 60, result => r);
END $$;
BEGIN;
INSERT INTO written VALUES (4);
SAVEPOINT s;
CALL lock_acquire_wait('w', 60);
ROLLBACK TO s;
INSERT INTO written VALUES (5);
COMMIT;
BEGIN;
INSERT INTO written VALUES (6);
CALL lock_acquire_wait('w', 60);
COMMIT;
SELECT n FROM written ORDER BY n;
-- with a lock of this transaction, of whatever scope
DO $$
DECLARE
	r lock_result;
BEGIN
	PERFORM lock_try('w-own', scope => 'transaction');
	CALL lock_acquire_wait('w', 60, result => r);
END $$;
DO $$
DECLARE
	r lock_result;
BEGIN
	PERFORM lock_try('w-own', scope => 'session');
	CALL lock_acquire_wait('w', 60, result => r);
END $$;
BEGIN;
SELECT lock_try('w-own', 60) IS NOT NULL AND lock_try('w-own-2', scope => 'transaction') IS NOT NULL AS taken;
SAVEPOINT s;
\set VERBOSITY sqlstate
CALL lock_acquire_wait('w', 60);
\set VERBOSITY default
ROLLBACK TO s;
SELECT key, scope FROM lockext_held ORDER BY key;
COMMIT;
SELECT key, scope FROM lockext_held ORDER BY key;
-- those of earlier transactions are no matter
SELECT lock_try('w-own-2', scope => 'session') IS NOT NULL AS taken;
CALL waits();
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
SELECT count(*) AS released FROM lockext_held WHERE lock_release(key);

-- who may: the lock is current_user's
SET ROLE regress_lockext_user;
CALL lock_acquire_wait('w', 60) \gset
SELECT acquired, owner FROM (SELECT (:'result'::lock_result).*) r, lock_check('w');
SELECT lock_release('w');
SELECT count(*) FROM lockext_waiters;
RESET ROLE;
BEGIN;
REVOKE EXECUTE ON PROCEDURE lock_acquire_wait FROM PUBLIC;
SET LOCAL ROLE regress_lockext_user;
CALL lock_acquire_wait('w', 60);
ROLLBACK;
BEGIN;
REVOKE EXECUTE ON FUNCTION lock_acquire FROM PUBLIC;
COMMIT;
SET ROLE regress_lockext_user;
SELECT lock_acquire('w', 60, wait_ms => -1);
CALL lock_acquire_wait('w', 60) \gset
SELECT acquired FROM (SELECT (:'result'::lock_result).*) r;
SELECT lock_release('w');
RESET ROLE;
GRANT EXECUTE ON FUNCTION lock_acquire TO PUBLIC;

-- the view of those who wait: nobody does
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = 'lockext_waiters'::regclass AND attnum > 0 ORDER BY attnum;
SELECT * FROM lockext_waiters;

SELECT key FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
DROP PROCEDURE take_each, waits;
DROP VIEW my_locks;
DROP TABLE written;
DROP ROLE regress_lockext_user;
