--
-- The view lockext_held
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'view test';
\pset null '<NULL>'
-- what column waiters shows where nobody waits
SELECT CASE WHEN current_setting('shared_preload_libraries') ~ 'lockext' THEN '0' ELSE 'NULL' END AS nobody \gset

SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = 'lockext_held'::regclass AND attnum > 0 ORDER BY attnum;
SELECT * FROM lockext_held;

CREATE ROLE regress_lockext_alice;
CREATE ROLE regress_lockext_bob;

-- every kind of lock that is held now, and nothing else
SELECT acquired FROM lock_acquire('view-1', 300, calling_fn => 'job', data => '{"n": 1}');
SELECT acquired FROM lock_acquire('view-1', domain => 'orders');
SELECT acquired FROM lock_acquire(NULL, 60, domain => 'orders', master => true);
SELECT acquired FROM lock_acquire(NULL, master => true);
SET ROLE regress_lockext_alice;
SELECT acquired FROM lock_acquire('view-alice', 60, data => '"secret"');
RESET ROLE;
SELECT acquired FROM lock_acquire('view-released', 60);
SELECT lock_release('view-released');
SELECT acquired FROM lock_acquire('view-broken', 60);
SELECT lock_break('view-broken');
BEGIN;
SELECT acquired FROM lock_acquire('view-undone', 60);
ROLLBACK;
SELECT acquired FROM lock_acquire('view-expired', 1);
DO $$
BEGIN
	FOR i IN 1..1000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM lockext_held WHERE key = 'view-expired' AND expires_at > clock_timestamp());
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$;
SELECT domain, key, master, held, owner = current_user AS own, scope, calling_fn, timeout,
	acquired_at <= clock_timestamp() AS acquired, expires_at - acquired_at AS lifetime,
	token BETWEEN 1 AND 9007199254740990 AS token, pid = pg_backend_pid() AS pid,
	application_name, client_addr, data, waiters IS NOT DISTINCT FROM :nobody AS nobody_waits
FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;

-- the same as lock_check() says of each
SELECT count(*) AS rows, count(*) FILTER (WHERE to_jsonb(h) = to_jsonb(c)) AS same
FROM lockext_held h, LATERAL lock_check(h.key, h.domain, h.master) c;

-- for another role: what is not its business is left out
SET ROLE regress_lockext_bob;
SELECT domain, key, owner = 'regress_lockext_alice' AS alices, timeout, pid = pg_backend_pid() AS pid, token, client_addr, data
FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;
SET ROLE regress_lockext_alice;
SELECT domain, key, token IS NOT NULL AS token, data
FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;
RESET ROLE;

-- one row per lock, the newest state
SELECT timeout FROM lock_renew('view-1', 600);
SELECT lock_release('view-1', domain => 'orders');
SELECT acquired FROM lock_acquire('view-1', 77, domain => 'orders');
SELECT domain, timeout FROM lockext_held WHERE key = 'view-1' ORDER BY 1;

-- what this transaction did is there, and goes with it; of this moment, whatever the isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM lockext_held WHERE key = 'view-2';
SELECT acquired FROM lock_acquire('view-2', 60);
SELECT key FROM lockext_held WHERE key = 'view-2';
SELECT lock_release('view-1');
SELECT domain, key FROM lockext_held WHERE key = 'view-1' ORDER BY 1;
SAVEPOINT s;
SELECT lock_break(NULL, master => true);
SELECT count(*) FROM lockext_held WHERE master;
ROLLBACK TO s;
SELECT count(*) FROM lockext_held WHERE master;
ROLLBACK;
SELECT domain, key FROM lockext_held WHERE key IN ('view-1', 'view-2') ORDER BY 1, 2;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT domain, key FROM lockext_held WHERE key IN ('view-1', 'view-2') ORDER BY 1, 2;
COMMIT;

-- used as any other view
SELECT h.key, a.application_name
FROM lockext_held h JOIN pg_stat_activity a USING (pid) WHERE h.key = 'view-alice';
SELECT domain, count(*), sum(timeout) FROM lockext_held GROUP BY domain ORDER BY domain COLLATE "C";
SELECT count(*) FROM lockext_held a JOIN lockext_held b ON a.domain = b.domain AND a.key IS NOT DISTINCT FROM b.key;
BEGIN;
DECLARE c CURSOR FOR SELECT domain, key FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;
FETCH 2 FROM c;
SELECT lock_release('view-1', domain => 'orders');
FETCH ALL FROM c;
ROLLBACK;

-- a copy of the database has the rows, but not the locks: they are bound to the database
SELECT acquired FROM lock_acquire('view-copy', 600);
BEGIN;
ALTER TABLE lockext_lock DISABLE TRIGGER ALL;
UPDATE lockext_lock SET dboid = 1 WHERE key = 'view-copy';
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_truncate;
COMMIT;
SELECT count(*) FROM lockext_held WHERE key = 'view-copy';
SELECT held, lock_release('view-copy'), lock_break('view-copy') FROM lock_check('view-copy');
SELECT reason, holder FROM lock_renew('view-copy', 60);
SELECT acquired FROM lock_acquire('view-copy', 60);
SELECT count(*) FROM lockext_held WHERE key = 'view-copy';

-- many
SELECT count(lock_try('view-many-' || i, 60)) FROM generate_series(1, 700) i;
SELECT count(*), count(DISTINCT key), count(DISTINCT token) > 1 AS tokens FROM lockext_held WHERE key LIKE 'view-many-%';
SELECT count(*) FROM lockext_held WHERE key LIKE 'view-many-%' AND lock_release(key);
SELECT count(*) FROM lockext_held WHERE key LIKE 'view-many-%';

SELECT count(*) = count(*) FILTER (WHERE lock_release(key, NULL, domain, master)) AS all_released FROM lockext_held;
SELECT domain, key FROM lockext_held ORDER BY 1, 2;
DROP ROLE regress_lockext_alice, regress_lockext_bob;
