--
-- lock_request(): requests and replies
--
-- Waiting for another session's lock, and being cancelled meanwhile, is tested
-- here with a prepared transaction as the holder.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET client_encoding = utf8;
SET application_name = 'request test';
\pset null '<NULL>'
\pset format unaligned
\pset footer off

-- A reply without what differs from run to run: "T" stands for a timestamp as it
-- should be, "N" for a token.
CREATE FUNCTION pg_temp.shown(reply jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	form CONSTANT text := '^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"$';
	path text[];
BEGIN
	FOREACH path SLICE 1 IN ARRAY '{{-,timestamp},{-,expiresAt},{lockInfo,timestamp}}'::text[] LOOP
		path := array_remove(path, '-');
		IF (reply #> path)::text ~ form THEN
			reply := jsonb_set(reply, path, '"T"');
		END IF;
	END LOOP;
	IF jsonb_typeof(reply -> 'token') = 'number' AND (reply ->> 'token') ~ '^\d{15,16}$' THEN
		reply := jsonb_set(reply, '{token}', '"N"');
	END IF;
	RETURN reply;
END $$;

-- the reply's members, in order, with their types
CREATE FUNCTION pg_temp.members(reply jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(key || ' ' || jsonb_typeof(value), ', ' ORDER BY key COLLATE "C") FROM jsonb_each(reply)
$$;

CREATE FUNCTION pg_temp.until_free(k text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..1000 LOOP
		IF NOT (lock_check(k)).held THEN
			RETURN true;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN false;
END $$;

-- what this session holds after all, tables aside
CREATE VIEW my_locks AS
	SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';

--
-- The replies: all members, and their types
--

-- acquire: free, with a timeout
SELECT lock_request('{"operation": "acquire", "key": "r-1", "timeout": 300, "callingFn": "migrateUsers"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), pg_temp.members(:'reply');
-- what it says is what is so
SELECT held, owner = current_user AS mine, scope, calling_fn, timeout, token = (:'reply'::jsonb ->> 'token')::bigint AS token,
	date_trunc('milliseconds', acquired_at) = (:'reply'::jsonb ->> 'timestamp')::timestamptz AS "timestamp",
	date_trunc('milliseconds', expires_at) = (:'reply'::jsonb ->> 'expiresAt')::timestamptz AS "expiresAt",
	(:'reply'::jsonb ->> 'expiresAt')::timestamptz - (:'reply'::jsonb ->> 'timestamp')::timestamptz AS lifetime
FROM lock_check('r-1');
-- acquire: held
SELECT lock_request('{"operation": "acquire", "key": "r-1", "timeout": 300, "callingFn": "other"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), pg_temp.members(:'reply');
SELECT calling_fn, timeout FROM lock_check('r-1');
-- acquire: held, and that is an error
SELECT lock_request('{"operation": "acquire", "key": "r-1", "onConflict": "error", "callingFn": "other"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), pg_temp.members(:'reply'), pg_temp.members(:'reply'::jsonb -> 'data') AS data;
-- acquire: free, without a timeout
SELECT lock_request('{"operation": "acquire", "key": "r-2"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), pg_temp.members(:'reply');
SELECT timeout, expires_at FROM lock_check('r-2');
-- check: held, with a timeout and without
SELECT lock_request('{"operation": "check", "key": "r-1"}') AS reply \gset
SELECT pg_temp.shown(:'reply') - 'lockInfo' AS reply, pg_temp.members(:'reply'),
	pg_temp.shown(:'reply') -> 'lockInfo' ->> 'appId' = current_user AS "appId",
	pg_temp.shown(:'reply') -> 'lockInfo' #- '{appId}' AS "lockInfo", pg_temp.members(:'reply'::jsonb -> 'lockInfo');
SELECT date_trunc('milliseconds', acquired_at) = (:'reply'::jsonb #>> '{lockInfo,timestamp}')::timestamptz AS since_acquired,
	date_trunc('milliseconds', acquired_at) <= (:'reply'::jsonb ->> 'timestamp')::timestamptz AS checked_later
FROM lock_check('r-1');
SELECT lock_request('{"operation": "check", "key": "r-2"}') AS reply \gset
SELECT pg_temp.shown(:'reply') -> 'lockInfo' #- '{appId}' AS "lockInfo", pg_temp.members(:'reply'::jsonb -> 'lockInfo');
-- check: free
SELECT lock_request('{"operation": "check", "key": "r-3"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), pg_temp.members(:'reply');
-- release: held
SELECT lock_request('{"operation": "release", "key": "r-1"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), pg_temp.members(:'reply');
SELECT held FROM lock_check('r-1');
-- release: a second time
SELECT lock_request('{"operation": "release", "key": "r-1"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), pg_temp.members(:'reply');
SELECT pg_temp.shown(lock_request('{"operation": "release", "key": "r-2"}'));
-- release: never held
SELECT pg_temp.shown(lock_request('{"operation": "release", "key": "r-3"}'));
-- a wrong request: with detail; without any; with detail and hint
SELECT lock_request('{"operation": "acquire", "key": ""}') AS reply \gset
SELECT :'reply', pg_temp.members(:'reply'), pg_temp.members(:'reply'::jsonb -> 'data') AS data;
SELECT lock_request('{"operation": "acquire"}') AS reply \gset
SELECT :'reply', pg_temp.members(:'reply'), pg_temp.members(:'reply'::jsonb -> 'data') AS data;
SELECT lock_request('{"operation": "acquire", "key": "r-1", "timeout": 0}') AS reply \gset
SELECT :'reply', pg_temp.members(:'reply'), pg_temp.members(:'reply'::jsonb -> 'data') AS data;

-- the timestamps of replies are the wall clock's, in UTC, whatever the session shows
BEGIN;
SET LOCAL DateStyle = 'German, DMY';
SET LOCAL TimeZone = 'Asia/Kathmandu';
SET LOCAL IntervalStyle = 'sql_standard';
SET LOCAL extra_float_digits = -15;
SELECT lock_request('{"operation": "acquire", "key": "r-time", "timeout": 60}') AS reply \gset
SELECT pg_temp.shown(:'reply');
SELECT abs(extract(epoch FROM clock_timestamp() - (:'reply'::jsonb ->> 'timestamp')::timestamptz)) < 60 AS now,
	abs(extract(epoch FROM clock_timestamp() - (:'reply'::jsonb ->> 'expiresAt')::timestamptz)) BETWEEN 1 AND 119 AS ends;
SELECT pg_temp.shown(lock_request('{"operation": "check", "key": "r-time"}')) #- '{lockInfo,appId}';
SELECT lock_request('{"operation": "check", "key": "r-none"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), abs(extract(epoch FROM clock_timestamp() - (:'reply'::jsonb ->> 'timestamp')::timestamptz)) < 60 AS now;
SET LOCAL TimeZone = 'America/St_Johns';
SET LOCAL DateStyle = 'SQL, YMD';
SELECT lock_request('{"operation": "release", "key": "r-time"}') AS reply \gset
SELECT pg_temp.shown(:'reply'), abs(extract(epoch FROM clock_timestamp() - (:'reply'::jsonb ->> 'timestamp')::timestamptz)) < 60 AS now;
-- not the time at which the transaction began
SELECT (lock_request('{"operation": "check", "key": "r-none"}') ->> 'timestamp')::timestamptz > now() + interval '50 ms' AS later
FROM pg_sleep(0.1);
ROLLBACK;

-- an expired lock is free for every operation, and another's expired one too
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-expires", "timeout": 1}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-expires-2", "timeout": 1}')) ->> 'acquired' AS acquired;
SELECT pg_temp.until_free('r-expires'), pg_temp.until_free('r-expires-2');
SELECT pg_temp.shown(lock_request('{"operation": "check", "key": "r-expires"}'));
SELECT pg_temp.shown(lock_request('{"operation": "release", "key": "r-expires"}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-expires", "timeout": 60}'));
SELECT pg_temp.shown(lock_request('{"operation": "release", "key": "r-expires"}'));

-- a refused request does not extend the holder's lifetime
SELECT lock_request('{"operation": "acquire", "key": "r-same-end", "timeout": 60}') ->> 'expiresAt' AS ends \gset
SELECT lock_request('{"operation": "acquire", "key": "r-same-end", "timeout": 600}') ->> 'acquired' AS acquired;
SELECT date_trunc('milliseconds', expires_at) = :'ends' AS same_end FROM lock_check('r-same-end');
SELECT lock_release('r-same-end');

--
-- Members
--

-- key: what is one, and what is not
SELECT v.shown, r.reply -> 'acquired' AS acquired, r.reply -> 'code' AS code, r.reply ->> 'key' = v.key AS same_key
FROM (VALUES
	(1, 'one letter', 'k'),
	(2, 'upper case is another key', 'K'),
	(3, 'the same again', 'k'),
	(4, 'db-migration-v2', 'db-migration-v2'),
	(5, 'digits', '007'),
	(6, 'null, as text', 'null'),
	(7, '- and _', '-_'),
	(8, '255 bytes', repeat('k', 255)),
	(9, '256 bytes', repeat('k', 256)),
	(10, 'empty', ''),
	(11, 'with a dot', 'file-processing-large-data-file.csv'),
	(12, 'with a blank', 'k '),
	(13, 'with a line feed', E'k\n'),
	(14, 'not ASCII', U&'\00E9'),
	(15, 'colon', 'a:b')) v(n, shown, key),
	lock_request(jsonb_build_object('operation', 'acquire', 'timeout', 60, 'key', v.key)) r(reply)
ORDER BY n;
SELECT lock_request('{"operation": "acquire", "key": "file-processing-large-data-file.csv", "timeout": 1800}');
SELECT jsonb_pretty(lock_request(jsonb_build_object('operation', 'acquire', 'key', repeat('k', 256))));
SELECT key, lock_release(key) FROM lockext_held WHERE length(key) < 255 ORDER BY key COLLATE "C";
SELECT lock_request(jsonb_build_object('operation', 'release', 'key', repeat('k', 255))) ->> 'released' AS released;
SELECT count(*) FROM lockext_held;

-- timeout
SELECT v.timeout, r.reply -> 'acquired' AS acquired, r.reply -> 'timeout' AS timeout, r.reply ? 'expiresAt' AS ends,
	r.reply -> 'error' AS error, r.reply #>> '{data,detail}' AS detail, r.reply #>> '{data,hint}' AS hint
FROM (VALUES (1, '1'), (2, '3600'), (3, '3601'), (4, '21600'), (5, '0'), (6, '-1'), (7, '1.5'), (8, '1e400'),
			 (9, '"300"'), (10, '300.0'), (11, 'null'), (12, '3e2'), (13, '-1e400'), (14, '9223372036854775808'),
			 (15, '18446744073709551916'), (16, '4294967596'), (17, '0.9999999999'), (18, 'true'), (19, '[300]'),
			 (20, '{"s": 300}'), (21, '1e-400')) v(n, timeout),
	lock_request(('{"operation": "acquire", "key": "r-timeout-' || v.n || '", "timeout": ' || v.timeout || '}')::jsonb) r(reply)
ORDER BY n;
SELECT key, timeout FROM lockext_held WHERE key LIKE 'r-timeout-%' AND timeout > 1 ORDER BY key;
-- settings have their say
SET lockext.max_timeout = 21600;
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "full-backup", "timeout": 21600}'));
RESET lockext.max_timeout;
SET lockext.default_timeout = 90;
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-default"}'));
SET lockext.max_timeout = 60;
SELECT lock_request('{"operation": "acquire", "key": "r-default-2"}');
RESET lockext.max_timeout;
RESET lockext.default_timeout;
SELECT count(*) = count(*) FILTER (WHERE lock_release(key)) AS released FROM lockext_held;

-- domain: another lock; '' is the default
SELECT v.domain, pg_temp.shown(lock_request(('{"operation": "acquire", "key": "r-d"' || v.domain || '}')::jsonb)) - '{callingFn,timestamp,token}'::text[] AS reply
FROM (VALUES (1, ''), (2, ', "domain": ""'), (3, ', "domain": null'), (4, ', "domain": "orders"'), (5, ', "domain": "Orders"'),
			 (6, ', "domain": "*"')) v(n, domain)
ORDER BY n;
SELECT domain, key FROM lockext_held ORDER BY domain COLLATE "C";
SELECT lock_request('{"operation": "check", "key": "r-d", "domain": "orders"}') -> 'exists' AS exists,
	lock_request('{"operation": "check", "key": "r-d", "domain": "none"}') -> 'exists' AS none;
SELECT lock_request('{"operation": "release", "key": "r-d", "domain": "orders"}') -> 'released' AS released,
	lock_request('{"operation": "release", "key": "r-d", "domain": "orders"}') -> 'released' AS again;
SELECT domain, key FROM lockext_held ORDER BY domain COLLATE "C";
SELECT count(lock_release(key, domain => domain)) FROM lockext_held;
SELECT lock_request(jsonb_build_object('operation', 'check', 'key', 'k', 'domain', repeat('d', 256))) ->> 'error' AS error;

-- master: the domain's own lock; replies have a key that is null
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "master": true, "domain": "orders", "timeout": 60}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "master": true, "domain": "orders", "timeout": 60}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "master": true, "domain": "orders", "onConflict": "error"}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "master": true, "key": null}')) -> 'acquired' AS default_domain;
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "master": false, "key": "r-1", "domain": "orders"}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "master": null, "key": "r-2", "domain": "orders"}')) -> 'acquired' AS master_null;
SELECT pg_temp.shown(lock_request('{"operation": "check", "master": true, "domain": "orders"}')) #- '{lockInfo,appId}';
SELECT domain, key, master FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;
SELECT pg_temp.shown(lock_request('{"operation": "release", "master": true, "domain": "orders"}'));
SELECT pg_temp.shown(lock_request('{"operation": "release", "master": true, "domain": "orders"}'));
SELECT pg_temp.shown(lock_request('{"operation": "check", "master": true, "domain": "orders"}'));
-- key and master both name a lock
SELECT lock_request('{"operation": "acquire", "master": true, "key": "r-1"}');
SELECT lock_request('{"operation": "release", "master": true, "key": "r-1"}') ->> 'code' AS release,
	lock_request('{"operation": "check", "master": true, "key": "r-1"}') ->> 'code' AS "check";
SELECT count(lock_release(key, NULL, domain, master)) FROM lockext_held;

-- token: a release of exactly that acquisition
SELECT lock_request('{"operation": "acquire", "key": "r-token"}') -> 'token' AS token \gset
SELECT pg_temp.shown(lock_request(jsonb_build_object('operation', 'release', 'key', 'r-token', 'token', :token - 1))) AS wrong;
SELECT pg_temp.shown(lock_request(jsonb_build_object('operation', 'release', 'key', 'r-token', 'token', :token + 1))) AS wrong;
SELECT lock_request(jsonb_build_object('operation', 'release', 'key', 'r-token', 'token', :'token')) ->> 'code' AS text;
SELECT held FROM lock_check('r-token');
SELECT pg_temp.shown(lock_request(jsonb_build_object('operation', 'release', 'key', 'r-token', 'token', :token))) AS "right";
SELECT pg_temp.shown(lock_request(jsonb_build_object('operation', 'release', 'key', 'r-token', 'token', :token))) AS again;
SELECT v.token, lock_request(('{"operation": "release", "key": "r-token", "token": ' || v.token || '}')::jsonb) - '{timestamp,key}'::text[] AS reply
FROM (VALUES (1, 'null'), (2, '1'), (3, '0'), (4, '-1'), (5, '9007199254740991'), (6, '9007199254740992'), (7, '1e400'), (8, '1.5'),
			 (9, '"1"'), (10, 'true'), (11, '{}')) v(n, token)
ORDER BY n;
-- as a number that has a fraction of zero
SELECT lock_request('{"operation": "acquire", "key": "r-token"}') -> 'token' AS token \gset
SELECT lock_request(('{"operation": "release", "key": "r-token", "token": ' || :token || '.0}')::jsonb) -> 'released' AS released;

-- scope
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-lease", "scope": "lease", "timeout": 60}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-session", "scope": "session"}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-session-2", "scope": "session", "timeout": 60}'));
BEGIN READ ONLY;
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-transaction", "scope": "transaction"}'));
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-transaction", "scope": "transaction"}'));
SELECT pg_temp.shown(lock_request('{"operation": "check", "key": "r-transaction"}')) #- '{lockInfo,appId}';
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_request('{"operation": "release", "key": "r-transaction"}') -> 'released' AS released;
SELECT lock_request('{"operation": "acquire", "key": "r-transaction", "scope": "transaction"}') -> 'acquired' AS acquired;
COMMIT;
SELECT key, scope FROM lockext_held ORDER BY key;
SELECT lock_request('{"operation": "acquire", "key": "r-transaction", "scope": "transaction", "timeout": 60}');
SELECT lock_request('{"operation": "acquire", "key": "r-scope", "scope": "forever"}');
SELECT v.scope, lock_request(('{"operation": "acquire", "key": "r-scope-' || v.n || '", "scope": ' || v.scope || '}')::jsonb) - '{data,timestamp,token,callingFn}'::text[] AS reply
FROM (VALUES (1, '""'), (2, '"Lease"'), (3, '"l"'), (4, '5'), (5, 'null')) v(n, scope)
ORDER BY n;
SELECT count(lock_release(key)) FROM lockext_held;

-- data: shown by lock_check, at most 1 kB
SELECT v.data, lock_request(('{"operation": "acquire", "key": "r-data-' || v.n || '", "data": ' || v.data || '}')::jsonb) -> 'acquired' AS acquired,
	(lock_check('r-data-' || v.n)).data AS kept
FROM (VALUES (1, '{"job": [1, 2.50, {"x": null}]}'), (2, '"text"'), (3, '1.10'), (4, 'false'), (5, '[]'), (6, 'null')) v(n, data)
ORDER BY n;
SELECT lock_request(jsonb_build_object('operation', 'acquire', 'key', 'r-data-7', 'data', repeat('x', 1012))) -> 'acquired' AS acquired,
	length((lock_check('r-data-7')).data #>> '{}') AS kept;
SELECT lock_request(jsonb_build_object('operation', 'acquire', 'key', 'r-data-8', 'data', repeat('x', 1013)));
SELECT lock_request(jsonb_build_object('operation', 'acquire', 'key', 'r-data-8', 'data', (SELECT jsonb_agg(i) FROM generate_series(1, 10000) i))) ->> 'code' AS code;
SELECT count(lock_release(key)) FROM lockext_held;

-- callingFn: given, found, application_name; in a refusal it is the requester's
CREATE FUNCTION pg_temp."migrateUsers"(request jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN lock_request(request);
END $$;
SELECT pg_temp."migrateUsers"('{"operation": "acquire", "key": "r-fn", "timeout": 60}') -> 'callingFn' AS found;
SELECT pg_temp."migrateUsers"('{"operation": "acquire", "key": "r-fn", "callingFn": "given"}') - 'key' AS given;
SELECT pg_temp."migrateUsers"('{"operation": "acquire", "key": "r-fn", "callingFn": null}') - 'key' AS found;
SELECT lock_request('{"operation": "acquire", "key": "r-fn"}') - 'key' AS application_name;
SELECT lock_request('{"operation": "check", "key": "r-fn"}') #> '{lockInfo,callingFn}' AS holder;
SET application_name = '';
SELECT lock_request('{"operation": "acquire", "key": "r-fn"}') - 'key' AS "unknown";
SET application_name = 'request test';
SELECT lock_request('{"operation": "acquire", "key": "r-fn-2", "callingFn": "any \"text\" \u00e9"}') -> 'callingFn' AS given;
SELECT lock_request(jsonb_build_object('operation', 'acquire', 'key', 'r-fn-3', 'callingFn', repeat('f', 255))) ->> 'callingFn' = repeat('f', 255) AS given;
SELECT lock_request(jsonb_build_object('operation', 'acquire', 'key', 'r-fn-4', 'callingFn', repeat('f', 256)));
SELECT lock_request('{"operation": "acquire", "key": "r-fn-4", "callingFn": ""}') ->> 'error' AS error;
-- it is no part of ownership
SELECT lock_request('{"operation": "release", "key": "r-fn"}') -> 'released' AS released;
SELECT count(lock_release(key)) FROM lockext_held;

-- onConflict
SELECT lock_request('{"operation": "acquire", "key": "r-conflict", "onConflict": "error"}') -> 'acquired' AS free;
SELECT v.on_conflict, lock_request(('{"operation": "acquire", "key": "r-conflict", "onConflict": ' || v.on_conflict || '}')::jsonb) AS held
FROM (VALUES (1, '"return"'), (2, '"error"'), (3, 'null'), (4, '"Error"'), (5, '"nonsense"'), (6, '""'), (7, 'true')) v(n, on_conflict)
ORDER BY n;
-- a wrong request is a wrong request, also where the lock is held
SELECT lock_request('{"operation": "acquire", "key": "r-conflict", "onConflict": "error", "timeout": 3601}') ->> 'code' AS code;
SELECT lock_release('r-conflict');

-- waitMs: free and held by this session, no wait
SELECT v.wait, lock_request(('{"operation": "acquire", "key": "r-wait-' || v.n || '", "waitMs": ' || v.wait || '}')::jsonb) - '{callingFn,timestamp,token}'::text[] AS free
FROM (VALUES (1, '0'), (2, '-1'), (3, '30'), (4, '2147483647'), (5, 'null'), (6, '-2'), (7, '2147483648'), (8, '1e400'), (9, '0.5'),
			 (10, '"30"'), (11, '10.0')) v(n, wait)
ORDER BY n;
SELECT count(lock_release(key)) FROM lockext_held;

-- waitMs: in another's hands, a prepared transaction's
BEGIN;
SELECT lock_request('{"operation": "acquire", "key": "r-wait"}') -> 'acquired' AS acquired;
SELECT lock_request('{"operation": "acquire", "key": "r-wait-scope", "scope": "transaction"}') -> 'acquired' AS acquired;
PREPARE TRANSACTION 'regress_lockext_request';
CREATE FUNCTION pg_temp.timed(request jsonb, OUT reply jsonb, OUT waited boolean) LANGUAGE plpgsql AS $$
DECLARE
	start timestamptz := clock_timestamp();
BEGIN
	reply := lock_request(request);
	waited := clock_timestamp() - start >= (request ->> 'waitMs')::integer * interval '1 ms';
END $$;
SELECT lock_request('{"operation": "acquire", "key": "r-wait"}') AS busy;
SELECT lock_request('{"operation": "acquire", "key": "r-wait", "waitMs": 0, "onConflict": "error"}') AS busy;
SELECT * FROM pg_temp.timed('{"operation": "acquire", "key": "r-wait", "waitMs": 30}');
SELECT * FROM pg_temp.timed('{"operation": "acquire", "key": "r-wait", "waitMs": 30, "onConflict": "error"}');
-- the row of an open transaction is not there yet; of a lock with scope "transaction" that is
-- another's only the owner is known, and of a prepared transaction's not even that
SELECT pg_temp.shown(lock_request('{"operation": "check", "key": "r-wait"}'));
SELECT pg_temp.shown(lock_request('{"operation": "check", "key": "r-wait-scope"}'));
-- a cancel is raised, not replied to, and leaves nothing behind
\set VERBOSITY terse
BEGIN;
SET LOCAL statement_timeout = '100ms';
SELECT lock_request('{"operation": "acquire", "key": "r-wait", "waitMs": -1}');
ROLLBACK;
BEGIN;
SET LOCAL statement_timeout = '100ms';
SELECT lock_request('{"operation": "acquire", "key": "r-wait", "waitMs": 60000, "onConflict": "error"}');
ROLLBACK;
BEGIN;
SET LOCAL statement_timeout = '100ms';
DO $$
BEGIN
	LOOP
		PERFORM lock_request('{"operation": "acquire", "key": "r-cancelled"}');
		PERFORM lock_request('{"operation": "release", "key": "r-cancelled"}');
		PERFORM lock_request('{"operation": "acquire", "key": "r-cancelled", "timeout": 0}');
	END LOOP;
END $$;
ROLLBACK;
\set VERBOSITY default
SELECT held FROM lock_check('r-cancelled');
-- lock_timeout is no cancel: it is a failure to acquire
BEGIN;
SET LOCAL lock_timeout = '50ms';
SELECT lock_request('{"operation": "acquire", "key": "r-wait", "waitMs": -1}');
SELECT lock_request('{"operation": "release", "key": "r-wait"}') -> 'released' AS released;
SELECT * FROM my_locks;
SELECT lock_request('{"operation": "acquire", "key": "r-wait-2"}') -> 'acquired' AS goes_on;
ROLLBACK;
SELECT * FROM my_locks;
ROLLBACK PREPARED 'regress_lockext_request';
SELECT lock_request('{"operation": "acquire", "key": "r-wait", "waitMs": 30}') -> 'acquired' AS acquired;
SELECT lock_release('r-wait');

--
-- Wrong requests
--
SELECT lock_request(NULL);
SELECT v.request, lock_request(v.request::jsonb) - '{success,code}'::text[] AS reply, lock_request(v.request::jsonb) ->> 'code' AS code
FROM (VALUES
	(10, 'null'), (11, 'true'), (12, '5'), (13, '"acquire"'), (14, '[]'), (15, '[{"operation": "acquire", "key": "k"}]'),
	(20, '{}'),
	(21, '{"key": "k"}'),
	(22, '{"operation": null, "key": "k"}'),
	(23, '{"operation": "", "key": "k"}'),
	(24, '{"operation": "Acquire", "key": "k"}'),
	(25, '{"operation": "acquire ", "key": "k"}'),
	(26, '{"operation": "renew", "key": "k"}'),
	(27, '{"operation": 5, "key": "k"}'),
	(28, '{"operation": ["acquire"], "key": "k"}'),
	(29, '{"Operation": "acquire", "key": "k"}'),
	(30, '{"operation": "acquire", "key": null}'),
	(31, '{"operation": "acquire", "key": 5}'),
	(32, '{"operation": "acquire", "key": ["k"]}'),
	(33, '{"operation": "acquire", "key": {"k": 1}}'),
	(34, '{"operation": "acquire", "Key": "k"}'),
	(35, '{"operation": "release"}'),
	(36, '{"operation": "check"}'),
	(37, '{"operation": "release", "key": ""}'),
	(38, '{"operation": "check", "key": "a.b"}'),
	(39, '{"operation": "check", "master": false}'),
	(40, '{"operation": "acquire", "key": "k", "nonsense": 1}'),
	(41, '{"operation": "acquire", "key": "k", "nonsense": null}'),
	(42, '{"operation": "acquire", "key": "k", "": 1}'),
	(43, '{"operation": "acquire", "key": "k", "wait_ms": 1}'),
	(44, '{"operation": "acquire", "key": "k", "token": 1}'),
	(46, '{"operation": "release", "key": "k", "timeout": 60}'),
	(47, '{"operation": "release", "key": "k", "callingFn": "f"}'),
	(48, '{"operation": "release", "key": "k", "waitMs": 0}'),
	(49, '{"operation": "check", "key": "k", "token": 1}'),
	(50, '{"operation": "check", "key": "k", "scope": "lease"}'),
	(51, '{"operation": "check", "key": "k", "onConflict": "error"}'),
	(52, '{"operation": "check", "key": "k", "data": {}}'),
	(60, '{"operation": "acquire", "key": "k", "domain": 5}'),
	(61, '{"operation": "acquire", "key": "k", "domain": {"d": 1}}'),
	(62, '{"operation": "acquire", "key": "k", "master": "false"}'),
	(63, '{"operation": "acquire", "key": "k", "master": 0}'),
	(64, '{"operation": "acquire", "key": "k", "callingFn": 5}'),
	(65, '{"operation": "acquire", "key": "k", "waitMs": true}'),
	(66, '{"operation": "acquire", "key": "k", "onConflict": 5}'),
	(67, '{"operation": "acquire", "key": "k", "scope": ["lease"]}')) v(n, request)
ORDER BY n;
-- what is shown of a long value or name is cut, between characters
SELECT lock_request(jsonb_build_object('operation', repeat(U&'\00E9', 100), 'key', 'k')) ->> 'error' AS error;
SELECT lock_request(jsonb_build_object('operation', 'acquire', 'key', 'k', repeat('m', 100), 1)) ->> 'error' AS error;
SELECT lock_request(jsonb_build_object('operation', 'acquire', 'key', 'k', 'master', (SELECT jsonb_agg(i) FROM generate_series(1, 1000) i))) ->> 'error' AS error;
-- a null member counts as absent, also one of another operation
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-null", "domain": null, "master": null, "timeout": null, "callingFn": null,
	"waitMs": null, "scope": null, "data": null, "onConflict": null, "token": null}'));
SELECT pg_temp.shown(lock_request('{"operation": "check", "key": "r-null", "domain": null, "master": null, "timeout": null, "data": null}')) #- '{lockInfo,appId}';
SELECT pg_temp.shown(lock_request('{"operation": "release", "key": "r-null", "domain": null, "master": null, "token": null, "scope": null, "callingFn": null}'));
SELECT key FROM lockext_held ORDER BY key;
SELECT count(*) AS rows FROM lockext_lock WHERE key = 'k' AND released_at IS NULL AND domain = '';

--
-- Other roles
--
CREATE ROLE regress_lockext_app;
CREATE ROLE regress_lockext_app2;
SET ROLE regress_lockext_app;
SELECT pg_temp.shown(lock_request('{"operation": "acquire", "key": "r-role", "timeout": 60, "data": {"secret": 1}}')) -> 'acquired' AS acquired;
SET ROLE regress_lockext_app2;
SELECT lock_request('{"operation": "acquire", "key": "r-role"}');
-- who holds it can be seen
SELECT pg_temp.shown(lock_request('{"operation": "check", "key": "r-role"}'));
-- but not released, token or not
SELECT pg_temp.shown(lock_request('{"operation": "release", "key": "r-role"}'));
RESET ROLE;
SELECT token FROM lock_check('r-role') \gset
SET ROLE regress_lockext_app2;
SELECT pg_temp.shown(lock_request(jsonb_build_object('operation', 'release', 'key', 'r-role', 'token', :token)));
RESET ROLE;
SELECT held, owner FROM lock_check('r-role');
SET ROLE regress_lockext_app;
SELECT pg_temp.shown(lock_request(jsonb_build_object('operation', 'release', 'key', 'r-role', 'token', :token)));
RESET ROLE;

-- a role that may not execute lock_acquire() may not acquire, and so on
BEGIN;
REVOKE EXECUTE ON FUNCTION lock_acquire FROM PUBLIC;
SET LOCAL ROLE regress_lockext_app;
SELECT lock_request('{"operation": "acquire", "key": "r-revoked"}') AS reply \gset
SELECT :'reply', pg_temp.members(:'reply');
-- whether or not the rest of the request is right
SELECT lock_request('{"operation": "acquire", "key": "a.b", "nonsense": 1}');
SELECT lock_request('{"operation": "release", "key": "r-revoked"}') -> 'released' AS release,
	lock_request('{"operation": "check", "key": "r-revoked"}') -> 'exists' AS "check";
RESET ROLE;
GRANT EXECUTE ON FUNCTION lock_acquire TO regress_lockext_app;
SET LOCAL ROLE regress_lockext_app;
SELECT lock_request('{"operation": "acquire", "key": "r-revoked"}') -> 'acquired' AS granted;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION lock_release FROM PUBLIC;
SET LOCAL ROLE regress_lockext_app;
SELECT lock_request('{"operation": "release", "key": "r-revoked"}');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION lock_check FROM PUBLIC;
SET LOCAL ROLE regress_lockext_app;
SELECT lock_request('{"operation": "check", "key": "r-revoked"}');
SELECT lock_request('{"operation": "acquire", "key": "r-revoked"}') -> 'acquired' AS acquired;
SELECT lock_request('{"operation": "nonsense", "key": "r-revoked"}') ->> 'code' AS code;
ROLLBACK;
-- a role that may not execute lock_request() itself has no reply
BEGIN;
REVOKE EXECUTE ON FUNCTION lock_request FROM PUBLIC;
SET LOCAL ROLE regress_lockext_app;
\set VERBOSITY sqlstate
SELECT lock_request('{"operation": "check", "key": "r-revoked"}');
\set VERBOSITY default
ROLLBACK;
DROP ROLE regress_lockext_app, regress_lockext_app2;

--
-- Transactions
--

-- rollback undoes an acquire, and a release, also to a savepoint
BEGIN;
SELECT lock_request('{"operation": "acquire", "key": "r-undone"}') -> 'acquired' AS acquired;
SELECT lock_request('{"operation": "check", "key": "r-undone"}') -> 'exists' AS exists;
ROLLBACK;
SELECT lock_request('{"operation": "check", "key": "r-undone"}') -> 'exists' AS exists;
BEGIN;
SELECT lock_request('{"operation": "acquire", "key": "r-kept"}') -> 'acquired' AS acquired;
SAVEPOINT s;
SELECT lock_request('{"operation": "acquire", "key": "r-undone"}') -> 'acquired' AS acquired;
SELECT lock_request('{"operation": "release", "key": "r-kept"}') -> 'released' AS released;
ROLLBACK TO s;
SELECT lock_request('{"operation": "check", "key": "r-undone"}') -> 'exists' AS undone,
	lock_request('{"operation": "check", "key": "r-kept"}') -> 'exists' AS kept;
COMMIT;
SELECT key FROM lockext_held ORDER BY key;
SELECT lock_request('{"operation": "release", "key": "r-kept"}') -> 'released' AS released;

-- a read-only transaction: a check is a check, the rest fails, and the transaction goes on
BEGIN READ ONLY;
SELECT pg_temp.shown(lock_request('{"operation": "check", "key": "r-read-only"}'));
SELECT lock_request('{"operation": "acquire", "key": "r-read-only"}') AS reply \gset
SELECT :'reply', pg_temp.members(:'reply');
SELECT lock_request('{"operation": "acquire", "key": "r-read-only", "waitMs": 30, "scope": "session", "onConflict": "error"}');
SELECT lock_request('{"operation": "release", "key": "r-read-only"}');
SELECT * FROM my_locks;
SELECT 'goes on' AS transaction;
COMMIT;
\set VERBOSITY sqlstate
BEGIN READ ONLY;
SELECT lock_request('{"operation": "acquire", "key": "r-read-only"}') ->> 'code' AS code;
COMMIT;
\set VERBOSITY default

-- too many keys: likewise; what was taken before stays
SET lockext.max_keys_per_transaction = 2;
BEGIN;
SELECT lock_request('{"operation": "acquire", "key": "r-many-1"}') -> 'acquired' AS acquired;
SELECT lock_request('{"operation": "acquire", "key": "r-many-2", "scope": "transaction"}') -> 'acquired' AS acquired;
\set VERBOSITY sqlstate
SELECT lock_request('{"operation": "acquire", "key": "r-many-3"}');
SELECT lock_request('{"operation": "acquire", "key": "r-many-3", "waitMs": -1}');
\set VERBOSITY default
SELECT lock_request('{"operation": "acquire", "key": "r-many-1"}') AS still_refused;
SELECT count(*) AS locks FROM my_locks;
SELECT key FROM lockext_held ORDER BY key;
COMMIT;
SELECT key FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
-- nor does a failed release end anything
SELECT lock_try('r-many-2') IS NOT NULL AS acquired;
BEGIN;
SELECT lock_try('r-many-3') IS NOT NULL AND lock_try('r-many-4') IS NOT NULL AS acquired;
\set VERBOSITY sqlstate
SELECT lock_request('{"operation": "release", "key": "r-many-1"}');
\set VERBOSITY default
COMMIT;
RESET lockext.max_keys_per_transaction;
SELECT key, lock_release(key) FROM lockext_held ORDER BY key;

-- inside a savepoint, and inside a function's block with a handler
BEGIN;
SAVEPOINT s;
SELECT lock_request('{"operation": "acquire", "key": "a.b"}') ->> 'code' AS code;
SELECT lock_request('{"operation": "acquire", "key": "r-save-1"}') -> 'acquired' AS acquired;
RELEASE s;
SAVEPOINT s;
SELECT lock_request('{"operation": "acquire", "key": "r-save-2"}') -> 'acquired' AS acquired;
SELECT lock_request('{"operation": "acquire", "key": "r-save-3", "timeout": 0}') ->> 'code' AS code;
ROLLBACK TO s;
DO $$
BEGIN
	PERFORM lock_request('{"operation": "acquire", "key": "r-save-4"}');
	PERFORM 1 / 0;
EXCEPTION WHEN division_by_zero THEN
	RAISE NOTICE '%', lock_request('{"operation": "acquire", "key": "r-save-5", "callingFn": "f"}') - '{timestamp,token}'::text[];
END $$;
COMMIT;
SELECT key, lock_release(key) FROM lockext_held ORDER BY key;
-- many in one statement
SELECT r.reply ->> 'code' AS code, r.reply -> 'acquired' AS acquired, count(*)
FROM generate_series(1, 300) i,
	lock_request(jsonb_build_object('operation', 'acquire', 'key', CASE WHEN i % 3 = 0 THEN 'a.b' ELSE 'r-of-' || i / 2 END)) r(reply)
GROUP BY 1, 2 ORDER BY 1, 2;
SELECT lock_request(jsonb_build_object('operation', 'release', 'key', key)) -> 'released' AS released, count(*)
FROM (SELECT key FROM lockext_held OFFSET 0) h GROUP BY 1;

-- one lock space with the other functions
SELECT lock_try('r-space', 60) AS token \gset
SELECT lock_request('{"operation": "acquire", "key": "r-space"}') -> 'acquired' AS acquired;
SELECT lock_request('{"operation": "check", "key": "r-space"}') #> '{lockInfo,timeoutSeconds}' AS timeout;
SELECT lock_request(jsonb_build_object('operation', 'release', 'key', 'r-space', 'token', :token)) -> 'released' AS released;
SELECT lock_request('{"operation": "acquire", "key": "r-space", "timeout": 60}') -> 'token' AS token \gset
SELECT (lock_acquire('r-space')).reason, (lock_renew('r-space', 300, :token)).acquired, lock_release('r-space', :token);
-- a lifetime that is no number of seconds
SELECT lock_event('TryLock', '{"id": "r-space"}', '{"parameters": {"expiry": 10500}}');
SELECT lock_request('{"operation": "check", "key": "r-space"}') #> '{lockInfo,timeoutSeconds}' AS timeout;
SELECT lock_release('r-space');

SELECT key FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
DROP VIEW my_locks;
