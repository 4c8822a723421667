--
-- Timeouts: bounds, expiry, renewal
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
\pset null '<NULL>'
-- what column waiters shows where nobody waits
SELECT CASE WHEN current_setting('shared_preload_libraries') ~ 'lockext' THEN '0' ELSE 'NULL' END AS nobody \gset

-- Watch a lock until it is free.  True if it was held until its end, by the
-- server's clock, and not a moment longer.
CREATE FUNCTION pg_temp.ends_on_time(k text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	ends timestamptz := (lock_check(k)).expires_at;
	before timestamptz;
BEGIN
	IF ends IS NULL THEN
		RAISE EXCEPTION 'not held, or without end';
	END IF;
	FOR i IN 1..1000 LOOP
		before := clock_timestamp();
		IF NOT (lock_check(k)).held THEN
			RETURN clock_timestamp() >= ends;
		ELSIF before >= ends THEN
			RETURN false;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RAISE EXCEPTION 'still held';
END $$;

-- bounds
SELECT acquired, timeout, expires_at - acquired_at AS lifetime FROM lock_acquire('t-min', 1);
SELECT acquired, timeout, expires_at - acquired_at AS lifetime FROM lock_acquire('t-300', 300);
SELECT acquired, timeout, expires_at - acquired_at AS lifetime FROM lock_acquire('t-max', 3600);
SELECT lock_acquire('t-bad', 0);
SELECT lock_acquire('t-bad', -1);
SELECT lock_acquire('t-bad', 3601);
SELECT lock_acquire('t-bad', 21600);
SELECT lock_acquire('t-bad', 2147483647);
SELECT lock_acquire('t-bad', -2147483648);
SELECT lock_try('t-bad', 0);
SELECT lock_try('t-bad', 3601);
SELECT held FROM lock_check('t-bad');

-- a bad timeout is an error for a held lock too
SELECT lock_acquire('t-300', 0);
SELECT lock_renew('t-300', 0);
SELECT lock_renew('t-300', -1);
SELECT lock_renew('t-300', 3601);
SELECT timeout FROM lock_check('t-300');

-- without a timeout a lock never expires
SELECT acquired, timeout, expires_at, acquired_at IS NOT NULL AS dated FROM lock_acquire('t-never');
SELECT held, timeout, expires_at FROM lock_check('t-never');
SELECT timeout, expires_at FROM lockext_held WHERE key = 't-never';
SELECT acquired, reason, holder -> 'expires_at' AS expires_at FROM lock_acquire('t-never', 1);
SELECT acquired, timeout, expires_at FROM lock_acquire('t-null', NULL);
SELECT lock_try('t-try') IS NOT NULL AS acquired;
SELECT held, timeout, expires_at FROM lock_check('t-try');

-- an omitted timeout is lockext.default_timeout
SET lockext.default_timeout = '2min';
SELECT timeout, expires_at - acquired_at AS lifetime FROM lock_acquire('t-default');
SELECT timeout FROM lock_acquire('t-default-2', NULL);
SELECT timeout FROM lock_acquire('t-default-3', 30);
SELECT timeout, expires_at - clock_timestamp() BETWEEN '119 s' AND '120 s' AS from_now
FROM lock_renew('t-never', NULL);
-- which is no way round the maximum
SET lockext.default_timeout = 3601;
SELECT lock_acquire('t-default-4');
SELECT lock_try('t-default-4');
SELECT lock_renew('t-default', NULL);
SELECT timeout FROM lock_acquire('t-default-4', 3600);
RESET lockext.default_timeout;

-- the result tells what lock_check() and the view tell
SELECT a.acquired_at = c.acquired_at AS acquired_at, a.expires_at = c.expires_at AS expires_at,
	a.timeout = c.timeout AS timeout, a.token = c.token AS token
FROM lock_acquire('t-same', 77) a, LATERAL lock_check(a.key) c;
SELECT c.acquired_at = h.acquired_at AS acquired_at, c.expires_at = h.expires_at AS expires_at,
	c.timeout = h.timeout AS timeout, c.token = h.token AS token
FROM lock_check('t-same') c JOIN lockext_held h USING (key);

-- renewing: the lifetime begins anew, all else stays
CREATE TEMP TABLE before AS SELECT * FROM lock_acquire('t-renew', 10);
SELECT r.acquired, r.reason, r.timeout, r.token = b.token AS same_token,
	r.acquired_at = b.acquired_at AS same_acquisition,
	r.expires_at - clock_timestamp() BETWEEN '599 s' AND '600 s' AS from_now,
	r.expires_at - r.acquired_at > '600 s' AS not_from_acquisition, r.holder
FROM before b, lock_renew('t-renew', 600) r;
SELECT c.timeout, c.token = b.token AS same_token, c.acquired_at = b.acquired_at AS same_acquisition
FROM before b, lock_check('t-renew') c;
-- shorter, for ever, and back
SELECT timeout, expires_at - clock_timestamp() BETWEEN '4 s' AND '5 s' AS from_now FROM lock_renew('t-renew', 5);
SELECT acquired, timeout, expires_at FROM lock_renew('t-renew', NULL);
SELECT held, timeout, expires_at FROM lock_check('t-renew');
SELECT timeout, expires_at - clock_timestamp() BETWEEN '59 s' AND '60 s' AS from_now FROM lock_renew('t-renew', 60);

-- a refused acquire changes nothing of the holder's lock
CREATE TEMP TABLE holder AS SELECT * FROM lock_check('t-renew');
SELECT acquired, reason FROM lock_acquire('t-renew', 3600, data => '1', calling_fn => 'other');
SELECT acquired, reason FROM lock_acquire('t-renew');
SELECT lock_try('t-renew', 3600);
SELECT c = h AS unchanged FROM holder h, lock_check('t-renew') c;

-- expiry
SELECT acquired FROM lock_acquire('t-short', 2, data => '{"a": 1}');
SELECT token AS old FROM lock_check('t-short') \gset
SELECT pg_temp.ends_on_time('t-short');
-- the row is still there, and counts for nothing
SELECT count(*) AS rows FROM lockext_lock WHERE key = 't-short' AND released_at IS NULL;
SELECT key, domain, master, held, owner, scope, calling_fn, acquired_at, timeout, expires_at, token, pid,
	application_name, client_addr, data, waiters IS NOT DISTINCT FROM :nobody AS nobody_waits
FROM lock_check('t-short');
SELECT count(*) AS held FROM lockext_held WHERE key = 't-short';
SELECT lock_release('t-short'), lock_release('t-short', :old);
SELECT acquired, reason, holder, timeout, expires_at, token FROM lock_renew('t-short', 60);
SELECT acquired, reason, holder FROM lock_renew('t-short', 60, :old);
SELECT lock_break('t-short');
SELECT held FROM lock_check('t-short');
-- so it can be had, and is a new acquisition
SELECT acquired, token > :old AS newer, timeout FROM lock_acquire('t-short', 60);
SELECT data, timeout FROM lock_check('t-short');
SELECT lock_release('t-short', :old);
SELECT reason, holder IS NOT NULL AS holder FROM lock_renew('t-short', 60, :old);
SELECT held FROM lock_check('t-short');

-- a lock can end because it was renewed for less
SELECT acquired FROM lock_acquire('t-shortened', 3600);
SELECT timeout FROM lock_renew('t-shortened', 2);
SELECT pg_temp.ends_on_time('t-shortened');

-- the clock runs on within a transaction
BEGIN;
SELECT now() IS NOT NULL AS begun;
SELECT pg_sleep(0.05);
SELECT acquired, acquired_at > now() AS wall_clock,
	clock_timestamp() - acquired_at < '20 s' AS just_now
FROM lock_acquire('t-xact', 2);
SELECT acquired, reason FROM lock_acquire('t-xact', 2);
SELECT pg_temp.ends_on_time('t-xact');
SELECT acquired, timeout FROM lock_acquire('t-xact', 30);
COMMIT;
SELECT held, timeout FROM lock_check('t-xact');

-- and within a statement
DO $$
DECLARE
	ends timestamptz := (lock_acquire('t-stmt', 2)).expires_at;
BEGIN
	PERFORM lock_acquire('t-stmt', 1);
	WHILE (lock_acquire('t-stmt', 77)).reason = 'held' LOOP
		IF clock_timestamp() > ends + interval '10 s' THEN
			RAISE EXCEPTION 'held beyond its end';
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	IF clock_timestamp() < ends THEN
		RAISE EXCEPTION 'taken before its end';
	END IF;
END $$;
SELECT timeout FROM lock_check('t-stmt');

SELECT count(*) = count(*) FILTER (WHERE lock_release(key)) AS all_released FROM lockext_held;
SELECT key FROM lockext_held ORDER BY 1;
DROP TABLE before, holder;
