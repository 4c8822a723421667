--
-- Scopes: lease, session, transaction
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
\pset null '<NULL>'

CREATE ROLE regress_lockext_alice;
CREATE ROLE regress_lockext_bob;

-- the advisory locks of this session: KEY is 27755, QUEUE 27757, LIVE 27759
CREATE VIEW my_locks AS
SELECT objsubid, mode, granted, count(*) FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid()
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY 1, 2, 3 ORDER BY 1, 2;

CREATE FUNCTION until_free(k text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..1000 LOOP
		IF NOT (lock_check(k)).held THEN
			RETURN true;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN false;
END $$;

-- each scope: taken, refused, seen, released
BEGIN;
SELECT acquired, reason, timeout, expires_at IS NULL AS endless, token BETWEEN 1 AND 9007199254740990 AS token,
	waited_ms, holder, calling_fn
FROM lock_acquire('sc', scope => 'transaction', calling_fn => 'first', data => '{"n": 1}');
SELECT acquired, reason, token, calling_fn, holder - '{pid,since,application_name,owner}'::text[] AS holder,
	(holder ->> 'pid')::integer = pg_backend_pid() AS pid
FROM lock_acquire('sc', scope => 'transaction', calling_fn => 'second');
SELECT lock_try('sc', scope => 'transaction');
SELECT held, owner = current_user AS owner, scope, calling_fn, acquired_at <= clock_timestamp() AS acquired_at,
	timeout, expires_at, token IS NOT NULL AS token, pid = pg_backend_pid() AS pid, data
FROM lock_check('sc');
SELECT to_jsonb(c) = to_jsonb(h) AS same FROM lockext_held h, LATERAL lock_check('sc') c WHERE h.key = 'sc';
SELECT * FROM my_locks;
SELECT lock_release('sc'), lock_release('sc');
SELECT held, scope, owner, token FROM lock_check('sc');
SELECT count(*) FROM lockext_held;
-- no more than a mark: KEY stays
SELECT * FROM my_locks;
COMMIT;
SELECT * FROM my_locks;
SELECT count(*) AS rows FROM lockext_lock WHERE key = 'sc';

SELECT acquired, reason, timeout, expires_at IS NULL AS endless, token BETWEEN 1 AND 9007199254740990 AS token,
	waited_ms, holder, calling_fn
FROM lock_acquire('sc', scope => 'session', calling_fn => 'first', data => '{"n": 1}');
SELECT acquired, reason, token, calling_fn, holder - '{pid,since,application_name,owner}'::text[] AS holder,
	(holder ->> 'pid')::integer = pg_backend_pid() AS pid
FROM lock_acquire('sc', scope => 'session', calling_fn => 'second');
SELECT lock_try('sc', scope => 'session');
SELECT held, owner = current_user AS owner, scope, calling_fn, acquired_at <= clock_timestamp() AS acquired_at,
	timeout, expires_at, token IS NOT NULL AS token, pid = pg_backend_pid() AS pid, data
FROM lock_check('sc');
SELECT to_jsonb(c) = to_jsonb(h) AS same FROM lockext_held h, LATERAL lock_check('sc') c WHERE h.key = 'sc';
SELECT * FROM my_locks;
SELECT lock_release('sc'), lock_release('sc');
SELECT held, scope, owner, token FROM lock_check('sc');
SELECT * FROM my_locks;
SELECT scope, released_at IS NOT NULL AS released, data FROM lockext_lock WHERE key = 'sc';

SELECT acquired, scope FROM lock_acquire('sc') a, LATERAL lock_check(a.key);
SELECT * FROM my_locks;
SELECT lock_release('sc');

-- a transaction-scoped lock ends with its transaction, a session-scoped one does not
BEGIN;
SELECT lock_try('sc-t', scope => 'transaction') IS NOT NULL AND lock_try('sc-s', scope => 'session') IS NOT NULL AS taken;
SELECT key, scope FROM lockext_held ORDER BY key;
COMMIT;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_try('sc-t', scope => 'transaction') IS NOT NULL AS taken;
SELECT lock_try('sc-t', scope => 'transaction') IS NOT NULL AS taken;
SELECT lock_release('sc-t'), lock_release('sc-s');
-- neither outlives a rollback
BEGIN;
SELECT lock_try('sc-t', scope => 'transaction') IS NOT NULL AND lock_try('sc-s', scope => 'session') IS NOT NULL AS taken;
ROLLBACK;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
-- nor an error
BEGIN;
SELECT lock_try('sc-t', scope => 'transaction') IS NOT NULL AND lock_try('sc-s', scope => 'session') IS NOT NULL AS taken;
SELECT 1 / 0;
COMMIT;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;

-- all exclude each other on one key: within a transaction
CREATE TEMP TABLE scopes AS SELECT n, s FROM unnest('{lease,session,transaction}'::text[]) WITH ORDINALITY u(s, n);
BEGIN;
SELECT h.s AS held, r.s AS wanted, a.acquired, b.acquired AS also, b.reason, b.holder ->> 'scope' AS scope, c.scope AS checked
FROM scopes h, scopes r, LATERAL lock_acquire(format('sc-%s-%s', h.s, r.s), scope => h.s) a,
	LATERAL lock_acquire(a.key, scope => r.s) b, LATERAL lock_check(b.key) c
ORDER BY h.n, r.n;
SELECT scope, count(*) FROM lockext_held GROUP BY scope ORDER BY scope;
SELECT * FROM my_locks;
SELECT count(*) AS released FROM lockext_held WHERE lock_release(key);
COMMIT;
SELECT * FROM my_locks;
-- and what was taken before
SELECT lock_try('sc-lease') IS NOT NULL AND lock_try('sc-session', scope => 'session') IS NOT NULL AS taken;
SELECT h.k, r.s AS wanted, a.acquired, a.reason, a.holder ->> 'scope' AS scope
FROM unnest('{sc-lease,sc-session}'::text[]) h(k), scopes r, LATERAL lock_acquire(h.k, scope => r.s) a
ORDER BY h.k, r.n;
SELECT * FROM my_locks;
-- KEY is one and the same lock for all scopes
BEGIN;
SELECT lock_release('sc-lease'), lock_release('sc-session');
SELECT lock_try('sc-lease', scope => 'transaction') IS NOT NULL AND lock_try('sc-session') IS NOT NULL AS taken;
SELECT count(DISTINCT (classid, objid)) AS keys, count(*) AS modes FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid = 27755;
COMMIT;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_release('sc-lease'), lock_release('sc-session');

-- from one scope to another, in a transaction and out of it
SELECT lock_try('sc', 600) AS lease \gset
BEGIN;
SELECT lock_release('sc', :lease);
SELECT acquired FROM lock_acquire('sc', scope => 'transaction');
SELECT scope FROM lock_check('sc');
SELECT key, scope FROM lockext_held;
ROLLBACK;
SELECT held, scope, token = :lease AS same FROM lock_check('sc');
BEGIN;
SELECT lock_release('sc', :lease);
SELECT acquired FROM lock_acquire('sc', scope => 'transaction');
SELECT lock_release('sc');
SELECT acquired FROM lock_acquire('sc', scope => 'session');
SELECT lock_release('sc');
SELECT acquired FROM lock_acquire('sc', scope => 'transaction');
SAVEPOINT s;
SELECT lock_release('sc');
SELECT acquired FROM lock_acquire('sc', 60);
SELECT key, scope FROM lockext_held;
ROLLBACK TO s;
SELECT key, scope FROM lockext_held;
COMMIT;
SELECT held FROM lock_check('sc');

-- with a token: only that acquisition
BEGIN;
SELECT lock_try('sc', scope => 'transaction') AS one \gset
SELECT lock_release('sc', :one + 1), lock_release('sc', 1), (lock_check('sc')).held;
SELECT lock_release('sc', :one), lock_release('sc', :one), (lock_check('sc')).held;
SELECT lock_try('sc', scope => 'transaction') AS two \gset
SELECT :two > :one AS newer, lock_release('sc', :one), (lock_check('sc')).held;
SELECT token = :two AS same, lock_release('sc', :two) FROM lock_check('sc');
ROLLBACK;
SELECT lock_try('sc', scope => 'session') AS one \gset
SELECT lock_release('sc', :one + 1), lock_release('sc', 1), (lock_check('sc')).held;
SELECT lock_release('sc', :one), lock_release('sc', :one), (lock_check('sc')).held;
SELECT lock_try('sc', scope => 'session') AS two \gset
SELECT :two > :one AS newer, lock_release('sc', :one), (lock_check('sc')).held;
SELECT token = :two AS same, lock_release('sc', :two) FROM lock_check('sc');

-- they rise from scope to scope, on one key
CREATE TEMP TABLE seen (n serial, scope text, token bigint);
INSERT INTO seen (scope, token) SELECT 'transaction', lock_try('sc-rise', scope => 'transaction');
INSERT INTO seen (scope, token) SELECT 'lease', lock_try('sc-rise');
SELECT lock_release('sc-rise');
INSERT INTO seen (scope, token) SELECT 'transaction', lock_try('sc-rise', scope => 'transaction');
INSERT INTO seen (scope, token) SELECT 'session', lock_try('sc-rise', scope => 'session');
SELECT lock_release('sc-rise');
INSERT INTO seen (scope, token) SELECT 'session', lock_try('sc-rise', scope => 'session');
SELECT lock_break('sc-rise');
INSERT INTO seen (scope, token) SELECT 'transaction', lock_try('sc-rise', scope => 'transaction');
INSERT INTO seen (scope, token) SELECT 'lease', lock_try('sc-rise');
SELECT lock_release('sc-rise');
SELECT n, scope, token > lag(token) OVER (ORDER BY n) AS rises FROM seen ORDER BY n;
DROP TABLE seen;

-- timeouts: none with scope "transaction", neither asked for nor by default
SELECT lock_acquire('sc', 60, scope => 'transaction');
SELECT lock_acquire('sc', 0, scope => 'transaction');
SELECT lock_try('sc', 3601, scope => 'transaction');
SET lockext.default_timeout = 60;
BEGIN;
SELECT acquired, timeout, expires_at FROM lock_acquire('sc', scope => 'transaction');
SELECT acquired, timeout, expires_at FROM lock_acquire('sc-2', NULL, scope => 'transaction');
SELECT lock_try('sc-3', scope => 'transaction') IS NOT NULL AS acquired;
SELECT key, timeout, expires_at FROM lockext_held ORDER BY key;
ROLLBACK;
SELECT acquired, timeout, expires_at - acquired_at AS lifetime FROM lock_acquire('sc', scope => 'session');
SELECT lock_release('sc');
SET lockext.default_timeout = 3601;
SELECT lock_try('sc', scope => 'transaction') IS NOT NULL AS acquired;
SELECT lock_try('sc', scope => 'session');
RESET lockext.default_timeout;
-- a session-scoped lock may have one, and ends by it
SELECT acquired, timeout, expires_at - acquired_at AS lifetime FROM lock_acquire('sc', 1, scope => 'session');
SELECT held, scope, timeout FROM lock_check('sc');
SELECT * FROM my_locks;
SELECT token AS expired FROM lock_check('sc') \gset
SELECT until_free('sc');
SELECT lock_release('sc'), lock_release('sc', :expired), (lock_renew('sc', 60, :expired)).reason, lock_break('sc');
SELECT acquired FROM lock_acquire('sc', 60, scope => 'session');
-- what keeps it alive goes when the next one is taken
SELECT * FROM my_locks;
SELECT lock_release('sc');
SELECT * FROM my_locks;

-- renewal
SELECT acquired FROM lock_acquire('sc', 60);
SELECT acquired, timeout FROM lock_renew('sc', 120);
SELECT lock_release('sc');
SELECT acquired, token AS one FROM lock_acquire('sc', 60, scope => 'session') \gset
SELECT acquired, reason, timeout, token = :one AS same, expires_at - clock_timestamp() > '119 s' AS from_now FROM lock_renew('sc', 120);
SELECT acquired, timeout, expires_at FROM lock_renew('sc', NULL, :one);
SELECT acquired, reason, holder ->> 'scope' AS scope FROM lock_renew('sc', 60, :one + 1);
SELECT held, scope, timeout FROM lock_check('sc');
BEGIN;
SELECT timeout FROM lock_renew('sc', 300);
ROLLBACK;
SELECT held, scope, timeout FROM lock_check('sc');
SELECT * FROM my_locks;
-- it can end by having been renewed
SELECT timeout FROM lock_renew('sc', 1);
SELECT until_free('sc');
BEGIN;
SELECT acquired FROM lock_acquire('sc', scope => 'transaction');
\set VERBOSITY sqlstate
SAVEPOINT s;
SELECT lock_renew('sc', NULL);
ROLLBACK TO s;
\set VERBOSITY default
SELECT lock_renew('sc', 60);
ROLLBACK TO s;
SELECT reason FROM lock_renew('sc', 60, 1);
SELECT lock_release('sc');
SELECT reason FROM lock_renew('sc', 60);
COMMIT;

-- lock_break()
SELECT lock_try('sc-l') IS NOT NULL AND lock_try('sc-s', scope => 'session') IS NOT NULL AS taken;
BEGIN;
SELECT lock_try('sc-t', scope => 'transaction') IS NOT NULL AS taken;
SELECT lock_break('sc-l'), lock_break('sc-s'), lock_break('sc-t');
SELECT lock_break('sc-l'), lock_break('sc-s'), lock_break('sc-t');
SELECT key FROM lockext_held ORDER BY key;
-- LIVE goes at commit
SELECT * FROM my_locks;
SAVEPOINT s;
SELECT acquired FROM lock_acquire('sc-t', scope => 'transaction');
ROLLBACK TO s;
ROLLBACK;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_break('sc-s'), lock_break('sc-l', -1);
SELECT * FROM my_locks;
SELECT key FROM lockext_held ORDER BY key;

-- master locks and domains
BEGIN;
SELECT domain, key, a.acquired, b.acquired AS again, c.master, c.scope
FROM (VALUES (1, NULL, 'sc', true, 'transaction'), (2, 'sc', 'sc', false, 'session'), (3, 'sc', '', false, 'transaction'),
			 (4, NULL, '', true, 'session')) v(n, k, d, m, s),
	LATERAL lock_acquire(k, domain => d, master => m, scope => s) a,
	LATERAL (SELECT acquired FROM lock_acquire(k, domain => a.domain, master => m, scope => 'transaction')) b,
	LATERAL (SELECT master, scope FROM lock_check(k, a.domain, m)) c
ORDER BY n;
SELECT domain, key, master, scope FROM lockext_held ORDER BY domain, key NULLS FIRST;
SELECT lock_release(NULL, domain => 'sc', master => true), lock_release('sc'), lock_release('sc', domain => 'other');
SELECT domain, key, master, scope FROM lockext_held ORDER BY domain, key NULLS FIRST;
COMMIT;
SELECT domain, key, master, scope FROM lockext_held ORDER BY domain, key NULLS FIRST;
SELECT lock_release('sc', domain => 'sc'), lock_release(NULL, master => true);

-- read-only transactions
SELECT lock_try('sc-l') IS NOT NULL AND lock_try('sc-s', scope => 'session') IS NOT NULL AS taken;
BEGIN READ ONLY;
SELECT acquired, reason FROM lock_acquire('sc', scope => 'transaction', data => '1');
SELECT acquired, reason FROM lock_acquire('sc', scope => 'transaction', wait_ms => 1000);
SELECT reason, holder ->> 'scope' AS scope FROM lock_acquire('sc-s', scope => 'transaction');
SELECT lock_try('sc-l', scope => 'transaction'), lock_try('sc-2', scope => 'transaction') IS NOT NULL AS taken;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_release('sc', 1), lock_release('sc'), (lock_check('sc')).held, lock_break('sc-2'), (lock_check('sc-2')).held;
SELECT acquired FROM lock_acquire('sc', scope => 'transaction');
SELECT pg_current_xact_id_if_assigned();
SAVEPOINT s;
SELECT lock_acquire('sc-3', scope => 'session');
ROLLBACK TO s;
SELECT lock_try('sc-3', scope => 'session');
ROLLBACK TO s;
SELECT lock_try('sc-3');
ROLLBACK TO s;
-- whether or not it could be had
SELECT lock_try('sc', scope => 'session');
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT lock_try('sc-s', scope => 'session');
ROLLBACK TO s;
SELECT lock_release('sc-s');
ROLLBACK TO s;
SELECT lock_renew('sc-s', 60);
ROLLBACK TO s;
\set VERBOSITY default
SELECT key, scope FROM lockext_held ORDER BY key;
COMMIT;
SELECT key, scope FROM lockext_held ORDER BY key;
SET default_transaction_read_only = on;
SELECT lock_try('sc', scope => 'transaction') IS NOT NULL AS taken;
RESET default_transaction_read_only;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT lock_try('sc', scope => 'transaction') IS NOT NULL AND lock_try('sc', scope => 'transaction') IS NULL AS once;
SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock' AND relation = 'lockext_lock'::regclass;
COMMIT;
-- a read-write transaction that holds nothing else has no transaction ID either
BEGIN;
SELECT lock_try('sc', scope => 'transaction') IS NOT NULL AS taken, lock_try('sc', scope => 'session'), lock_try('sc-s', scope => 'session');
SELECT lock_release('sc');
SELECT pg_current_xact_id_if_assigned();
COMMIT;
SELECT lock_release('sc-l'), lock_release('sc-s');

-- savepoints, scope "transaction"
BEGIN;
SELECT lock_try('sc', scope => 'transaction') AS one \gset
SAVEPOINT a;
SELECT lock_try('sc-2', scope => 'transaction') IS NOT NULL AS taken;
SELECT lock_release('sc');
SAVEPOINT b;
SELECT lock_try('sc', scope => 'transaction') > :one AS newer;
SELECT key, token = :one AS same FROM lockext_held ORDER BY key;
ROLLBACK TO b;
SELECT key, token = :one AS same FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
ROLLBACK TO a;
SELECT key, token = :one AS same FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
SAVEPOINT c;
SELECT lock_try('sc-3', scope => 'transaction') IS NOT NULL AS taken;
SAVEPOINT d;
SELECT lock_release('sc');
RELEASE d;
RELEASE c;
SELECT key FROM lockext_held ORDER BY key;
ROLLBACK TO a;
SELECT key, token = :one AS same FROM lockext_held ORDER BY key;
RELEASE a;
SELECT lock_release('sc', :one);
SAVEPOINT e;
SELECT lock_release('sc');
ROLLBACK TO e;
SELECT key FROM lockext_held ORDER BY key;
COMMIT;
SELECT * FROM my_locks;
-- scope "session"
SELECT lock_try('sc', scope => 'session') AS one \gset
BEGIN;
SAVEPOINT a;
SELECT lock_try('sc-2', scope => 'session') IS NOT NULL AS taken;
SELECT lock_release('sc');
SAVEPOINT b;
SELECT lock_try('sc', scope => 'session') > :one AS newer;
SELECT key, token = :one AS same FROM lockext_held ORDER BY key;
SELECT * FROM my_locks WHERE objsubid = 27759;
ROLLBACK TO b;
SELECT key FROM lockext_held ORDER BY key;
SELECT * FROM my_locks WHERE objsubid = 27759;
ROLLBACK TO a;
SELECT key, token = :one AS same FROM lockext_held ORDER BY key;
SELECT * FROM my_locks WHERE objsubid = 27759;
SAVEPOINT c;
SELECT lock_try('sc-3', scope => 'session') IS NOT NULL AS taken;
SAVEPOINT d;
SELECT lock_release('sc-3'), lock_release('sc');
RELEASE d;
SELECT key FROM lockext_held ORDER BY key;
RELEASE c;
-- what the transaction took and released is gone, what it found is not
SELECT * FROM my_locks WHERE objsubid = 27759;
COMMIT;
SELECT * FROM my_locks;
SELECT key FROM lockext_held ORDER BY key;

-- PL/pgSQL: blocks with exception handlers are savepoints
CREATE FUNCTION pg_temp.blocks(s text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	first bigint := lock_try('sc-outer', scope => s);
BEGIN
	BEGIN
		PERFORM lock_try('sc-inner', scope => s), lock_release('sc-outer', first);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RETURN NEXT format('%s, undone: outer %s, inner %s', s, (lock_check('sc-outer')).held, (lock_check('sc-inner')).held);
	END;
	FOR i IN 1..3 LOOP
		BEGIN
			IF lock_try('sc-inner', scope => s) IS NULL THEN
				RETURN NEXT 'not reached';
			END IF;
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
	BEGIN
		PERFORM lock_try('sc-inner', scope => s), lock_release('sc-outer', first);
	EXCEPTION WHEN division_by_zero THEN
		RETURN NEXT 'not reached';
	END;
	RETURN NEXT format('%s, kept: outer %s, inner %s', s, (lock_check('sc-outer')).held, (lock_check('sc-inner')).held);
END $$;
BEGIN;
SELECT b FROM scopes, LATERAL (SELECT b, lock_release('sc-inner') FROM pg_temp.blocks(s) b) x ORDER BY n, b DESC;
COMMIT;
SELECT key FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;

-- a lock taken by a cursor's query belongs to the transaction, or savepoint, that fetched
BEGIN;
DECLARE c CURSOR FOR SELECT k, s, lock_try(k, scope => s) IS NOT NULL AS taken
FROM (VALUES ('sc-c1', 'transaction'), ('sc-c2', 'session'), ('sc-c3', 'transaction'), ('sc-c4', 'session')) v(k, s);
FETCH 2 FROM c;
SAVEPOINT a;
FETCH 2 FROM c;
SELECT key, scope FROM lockext_held ORDER BY key;
ROLLBACK TO a;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
CLOSE c;
SELECT key, scope FROM lockext_held ORDER BY key;
COMMIT;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_release('sc-c2');
-- one that is held beyond its transaction was run at commit, so inside it
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT s, lock_try('sc-hold-' || s, scope => s) IS NOT NULL AS taken FROM scopes ORDER BY n;
COMMIT;
FETCH ALL FROM c;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_release('sc-hold-lease'), lock_release('sc-hold-session');
CLOSE c;

-- owners: the role that took it, and its members
SET ROLE regress_lockext_alice;
SELECT acquired FROM lock_acquire('sc-s', scope => 'session', data => '"secret"');
BEGIN;
SELECT acquired FROM lock_acquire('sc-t', scope => 'transaction', data => '"secret"');
SET LOCAL ROLE regress_lockext_bob;
SELECT key, owner, scope, token, data FROM lockext_held ORDER BY key;
SELECT owner, scope, token, data FROM lock_check('sc-t');
SELECT lock_release('sc-t'), lock_release('sc-s'), (lock_renew('sc-t', 60)).reason, (lock_renew('sc-s', 60)).reason;
SELECT reason, holder ->> 'owner' AS owner, holder ->> 'scope' AS scope FROM unnest('{sc-s,sc-t}'::text[]) k, lock_acquire(k) ORDER BY k;
SAVEPOINT s;
SELECT lock_break('sc-t');
ROLLBACK TO s;
-- bob's own, in the same session and transaction
SELECT acquired FROM lock_acquire('sc-bob', scope => 'transaction');
SET LOCAL ROLE regress_lockext_alice;
SELECT lock_release('sc-bob'), owner, token FROM lock_check('sc-bob');
SELECT key, owner, token IS NOT NULL AS token, data FROM lockext_held ORDER BY key;
SELECT lock_release('sc-t'), lock_release('sc-s');
COMMIT;
RESET ROLE;
-- a superuser has the privileges of all
SET ROLE regress_lockext_bob;
BEGIN;
SELECT acquired FROM unnest('{sc-t,sc-s}'::text[], '{transaction,session}'::text[]) v(k, s), lock_acquire(k, scope => s) ORDER BY k;
RESET ROLE;
SELECT lock_release('sc-t'), lock_release('sc-s');
COMMIT;
SELECT key FROM lockext_held;

-- lockext.max_keys_per_transaction counts KEY of every scope
SET lockext.max_keys_per_transaction = 3;
BEGIN;
SELECT count(lock_try('sc-' || s, scope => s)) FROM scopes;
SAVEPOINT s;
SELECT lock_try('sc', scope => 'transaction');
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT lock_try('sc', scope => 'session');
ROLLBACK TO s;
SELECT lock_acquire('sc', scope => 'transaction', wait_ms => 1000);
ROLLBACK TO s;
\set VERBOSITY default
-- a release does not give it back, and the same key again is no other
SELECT lock_release('sc-transaction'), lock_try('sc-transaction') IS NOT NULL AS again;
\set VERBOSITY sqlstate
SELECT lock_try('sc', scope => 'transaction');
\set VERBOSITY default
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT count(lock_try('sc-' || i, scope => 'transaction')) FROM generate_series(1, 3) i;
ROLLBACK TO s;
SELECT count(lock_try('sc-' || i, scope => 'transaction')) FROM generate_series(4, 6) i;
COMMIT;
RESET lockext.max_keys_per_transaction;
SELECT * FROM my_locks;

-- two-phase commit: not with a session-scoped lock that the transaction has taken
BEGIN;
SELECT lock_try('sc', scope => 'session') IS NOT NULL AS taken;
PREPARE TRANSACTION 'regress_lockext_scopes';
SELECT held FROM lock_check('sc');
SELECT * FROM my_locks;
BEGIN;
SELECT lock_try(NULL, scope => 'session', domain => 'sc', master => true) IS NOT NULL AS taken;
\set VERBOSITY sqlstate
PREPARE TRANSACTION 'regress_lockext_scopes';
\set VERBOSITY default
-- with one that it has released again, undone, or only released it may be
BEGIN;
SELECT lock_try('sc', scope => 'session') IS NOT NULL AS taken, lock_release('sc');
SAVEPOINT s;
SELECT lock_try('sc-2', scope => 'session') IS NOT NULL AS taken;
ROLLBACK TO s;
PREPARE TRANSACTION 'regress_lockext_scopes';
COMMIT PREPARED 'regress_lockext_scopes';
SELECT held FROM lock_check('sc');
SELECT lock_try('sc', scope => 'session') AS one \gset
BEGIN;
SELECT lock_release('sc');
PREPARE TRANSACTION 'regress_lockext_scopes';
SELECT held, token = :one AS same FROM lock_check('sc');
SELECT reason, holder ->> 'scope' AS scope FROM lock_acquire('sc', scope => 'session');
ROLLBACK PREPARED 'regress_lockext_scopes';
SELECT held, token = :one AS same FROM lock_check('sc');
-- also when the session has taken and released another since
SELECT lock_try('sc-2', scope => 'session') IS NOT NULL AS taken;
SELECT lock_release('sc-2');
SELECT held, token = :one AS same FROM lock_check('sc');
BEGIN;
SELECT lock_release('sc', :one);
PREPARE TRANSACTION 'regress_lockext_scopes';
COMMIT PREPARED 'regress_lockext_scopes';
SELECT held FROM lock_check('sc');
SELECT acquired FROM lock_acquire('sc', scope => 'session');
SELECT * FROM my_locks;
SELECT lock_release('sc');
SELECT * FROM my_locks;
-- a transaction-scoped lock stays with the prepared transaction
BEGIN;
SELECT lock_try('sc', scope => 'transaction') IS NOT NULL AS taken;
PREPARE TRANSACTION 'regress_lockext_scopes';
SELECT s, acquired, reason, holder FROM scopes, LATERAL lock_acquire('sc', scope => s) ORDER BY n;
SELECT held, owner, scope, token, pid, calling_fn, acquired_at FROM lock_check('sc');
SELECT count(*) FROM lockext_held;
SELECT lock_release('sc'), (lock_renew('sc', 60)).reason;
SELECT lock_break('sc');
SELECT * FROM my_locks;
SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 27755 AND pid IS NULL;
COMMIT PREPARED 'regress_lockext_scopes';
SELECT held FROM lock_check('sc');
BEGIN;
SELECT lock_try('sc', scope => 'transaction') IS NOT NULL AS taken, lock_release('sc');
PREPARE TRANSACTION 'regress_lockext_scopes';
-- also one that it released: that was to take effect at its end
SELECT acquired, reason FROM lock_acquire('sc', scope => 'transaction');
ROLLBACK PREPARED 'regress_lockext_scopes';
SELECT lock_try('sc', scope => 'transaction') IS NOT NULL AS taken;

-- pg_advisory_unlock_all() ends a session-scoped lock, as the end of the session would
SELECT lock_try('sc-l') IS NOT NULL AS taken, lock_try('sc-s', 600, scope => 'session') AS one \gset
SELECT pg_advisory_unlock_all();
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT held, owner, token FROM lock_check('sc-s');
SELECT lock_release('sc-s'), lock_release('sc-s', :one), (lock_renew('sc-s', 60)).reason, (lock_renew('sc-s', 60, :one)).reason,
	lock_break('sc-s');
SELECT token > :one AS newer FROM lock_acquire('sc-s', 600, scope => 'session');
SELECT lock_release('sc-s', :one), (lock_check('sc-s')).held;
SELECT * FROM my_locks;
-- inside the transaction that took it, which keeps its transaction-scoped ones
BEGIN;
SELECT lock_try('sc-t', scope => 'transaction') IS NOT NULL AS taken, lock_try('sc-s2', scope => 'session') IS NOT NULL AS taken_too;
SELECT pg_advisory_unlock_all();
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_release('sc-s'), lock_release('sc-s2'), (lock_renew('sc-s2', 60)).reason;
SAVEPOINT s;
SELECT acquired FROM lock_acquire('sc-s2', scope => 'session');
ROLLBACK TO s;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT acquired FROM lock_acquire('sc-s', scope => 'session');
COMMIT;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
-- and one that released it
BEGIN;
SELECT lock_release('sc-s');
SELECT pg_advisory_unlock_all();
ROLLBACK;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
-- as does DISCARD ALL
SELECT lock_try('sc-s', scope => 'session') AS one \gset
DISCARD ALL;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT held, scope FROM lock_check('sc-s');
SELECT lock_release('sc-s', :one), (lock_renew('sc-s', 60, :one)).reason, lock_release('sc-s');
SELECT acquired FROM lock_acquire('sc-s', scope => 'session');
SELECT * FROM my_locks;
SELECT lock_release('sc-s'), lock_release('sc-l');
-- while the user's own advisory locks are none of ours
SELECT pg_advisory_lock(27759);
SELECT lock_try('sc-s', scope => 'session') IS NOT NULL AS taken;
SELECT pg_advisory_unlock(27759);
SELECT held, lock_release('sc-s') FROM lock_check('sc-s');

-- what a session has taken and released leaves nothing in the lock table
SELECT count(*) FROM generate_series(1, 500) i WHERE lock_try('sc-cycle', scope => 'session') IS NOT NULL AND lock_release('sc-cycle');
DO $$
BEGIN
	FOR i IN 1..200 LOOP
		PERFORM lock_try('sc-cycle-' || i, scope => 'session');
		COMMIT;
		PERFORM CASE i % 3 WHEN 0 THEN pg_advisory_unlock_all()::text WHEN 1 THEN lock_break('sc-cycle-' || i)::text
			ELSE lock_release('sc-cycle-' || i)::text END;
		COMMIT;
	END LOOP;
END $$;
SELECT * FROM my_locks;

-- many at a time, to the end of the session
SELECT count(lock_try('sc-many-' || i, scope => 'session')) FROM generate_series(1, 1000) i;
SELECT * FROM my_locks;
SELECT count(*), count(*) FILTER (WHERE scope = 'session') AS session FROM lockext_held;
SELECT count(*) AS again FROM generate_series(1, 1000) i WHERE lock_try('sc-many-' || i, scope => 'session') IS NOT NULL;
SELECT count(*) AS released FROM generate_series(1, 500) i WHERE lock_release('sc-many-' || i);
SELECT * FROM my_locks;
SELECT lock_try('sc-lease', 600) IS NOT NULL AS taken;
\c -
DO $$
BEGIN
	FOR i IN 1..1000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM lockext_held WHERE scope = 'session');
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT count(lock_try('sc-many-' || i, scope => 'transaction')) FROM generate_series(501, 1000) i;
SELECT lock_release('sc-many-501'), lock_release('sc-lease');

-- a token that the clock has yet to reach is not given twice, row or no row
SELECT lock_release('sc-ahead') FROM lock_acquire('sc-ahead');
ALTER TABLE lockext_lock DISABLE TRIGGER ALL;
UPDATE lockext_lock SET token = token + 3600000000 WHERE key = 'sc-ahead';
ALTER TABLE lockext_lock ENABLE TRIGGER ALL;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_truncate;
BEGIN;
SELECT lock_try('sc-ahead', scope => 'transaction') AS first \gset
SELECT lock_release('sc-ahead');
SELECT lock_try('sc-ahead', scope => 'transaction') AS second \gset
COMMIT;
SELECT lock_try('sc-ahead', scope => 'transaction') AS third \gset
SELECT lock_try('sc-ahead', scope => 'session') AS fourth \gset
SELECT :first < :second AND :second < :third AND :third < :fourth AS rising, lock_release('sc-ahead');

SELECT key FROM lockext_held ORDER BY key;
DROP FUNCTION until_free;
DROP VIEW my_locks;
DROP ROLE regress_lockext_alice, regress_lockext_bob;
