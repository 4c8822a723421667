--
-- Settings: names, units, bounds, who may change them, what they do
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
\pset null '<NULL>'

CREATE FUNCTION pg_temp.fails(stmt text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE stmt;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- the first call loads the library where it is not preloaded
SELECT held FROM lock_check('set');
SELECT name, setting, unit, vartype, context, min_val, max_val, boot_val
FROM pg_settings WHERE name LIKE 'lockext.%' ORDER BY name COLLATE "C";
SELECT name, short_desc, extra_desc FROM pg_settings WHERE name LIKE 'lockext.%' ORDER BY name COLLATE "C";

-- bounds
SELECT stmt, pg_temp.fails(stmt)
FROM (VALUES
	(1, $$SET lockext.max_timeout = 0$$),
	(2, $$SET lockext.max_timeout = -1$$),
	(3, $$SET lockext.max_timeout = 1$$),
	(4, $$SET lockext.max_timeout = 2147483647$$),
	(5, $$SET lockext.max_timeout = 2147483648$$),
	(6, $$SET lockext.max_timeout = 'long'$$),
	(7, $$SET lockext.default_timeout = 0$$),
	(8, $$SET lockext.default_timeout = -2$$),
	(9, $$SET lockext.default_timeout = -1$$),
	(10, $$SET lockext.default_timeout = 1$$),
	(11, $$SET lockext.default_timeout = 2147483647$$),
	(12, $$SET lockext.max_keys_per_transaction = 0$$),
	(13, $$SET lockext.max_keys_per_transaction = 1$$),
	(14, $$SET lockext.max_keys_per_transaction = 1073741823$$),
	(15, $$SET lockext.max_keys_per_transaction = 1073741824$$),
	(16, $$SET lockext.max_keys_per_transaction = '1kB'$$),
	(17, $$SET lockext.naptime = 500$$),
	(18, $$SET lockext.retention = 0$$),
	(19, $$ALTER ROLE CURRENT_USER SET lockext.naptime = 500$$),
	(20, $$SET lockext.nosuch = 1$$),
	(21, $$SET lockext.log_waits = on$$),
	(22, $$SET lockext.log_waits = off$$),
	(23, $$SET lockext.log_waits = 'perhaps'$$),
	(24, $$SET lockext.default_wait = -2$$),
	(25, $$SET lockext.default_wait = -1$$),
	(26, $$SET lockext.default_wait = 0$$),
	(27, $$SET lockext.default_wait = 2147483647$$),
	(28, $$SET lockext.default_wait = 2147483648$$),
	(29, $$SET lockext.default_expiry = -2$$),
	(30, $$SET lockext.default_expiry = -1$$),
	(31, $$SET lockext.default_expiry = 0$$),
	(32, $$SET lockext.default_expiry = 1$$),
	(33, $$SET lockext.default_expiry = 2147483647$$),
	(34, $$SET lockext.default_expiry = 2147483648$$),
	(35, $$SET lockext.domains = 'a, b'$$),
	(36, $$SET lockext.domains = 'a,'$$),
	(37, $$SET lockext.domains = ',a'$$),
	(38, $$SET lockext.domains = 'a b'$$),
	(39, $$SET lockext.domains = '"a'$$),
	(40, $$SET lockext.domains = ''$$)) v(n, stmt)
ORDER BY n;
SET lockext.default_timeout = 0;
SET lockext.default_expiry = 0;
SET lockext.domains = 'a,';
RESET lockext.default_wait;
RESET lockext.default_expiry;
RESET lockext.domains;
RESET lockext.max_timeout;
RESET lockext.default_timeout;
RESET lockext.max_keys_per_transaction;
RESET lockext.log_waits;

-- units
SET lockext.max_timeout = '2h';
SHOW lockext.max_timeout;
SET lockext.default_timeout = '90min';
SELECT setting, unit FROM pg_settings WHERE name = 'lockext.default_timeout';
SELECT timeout FROM lock_acquire('set-unit');
SET lockext.default_timeout = '90s';
SELECT timeout FROM lock_renew('set-unit', NULL);
SELECT lock_release('set-unit');
RESET lockext.max_timeout;
RESET lockext.default_timeout;
SHOW lockext.max_timeout;
SHOW lockext.default_timeout;
SHOW lockext.naptime;
SHOW lockext.retention;

-- lockext.max_timeout bounds what is asked for, not what is held already
SELECT acquired FROM lock_acquire('set-max', 3600);
SET lockext.max_timeout = 10;
SELECT held, timeout FROM lock_check('set-max');
SELECT lock_acquire('set-max-2', 11);
SELECT lock_renew('set-max', 11);
SELECT timeout FROM lock_acquire('set-max-2', 10);
SELECT timeout FROM lock_renew('set-max', 10);
SET lockext.max_timeout = 2147483647;
SELECT timeout, expires_at - acquired_at = 2147483647 * interval '1 s' AS lifetime FROM lock_acquire('set-max-3', 2147483647);
SELECT held, timeout FROM lock_check('set-max-3');
RESET lockext.max_timeout;
SELECT lock_release('set-max'), lock_release('set-max-2'), lock_release('set-max-3');

-- who may change what, and for whom
CREATE ROLE regress_lockext_user LOGIN;
CREATE ROLE regress_lockext_granted LOGIN;
ALTER ROLE regress_lockext_granted SET lockext.max_timeout = '2h';
ALTER ROLE regress_lockext_granted SET lockext.default_timeout = '7min';
ALTER ROLE regress_lockext_granted SET lockext.max_keys_per_transaction = 2;
SET ROLE regress_lockext_user;
SELECT stmt, pg_temp.fails(stmt)
FROM (VALUES
	(1, $$SET lockext.max_timeout = 7200$$),
	(2, $$SET lockext.max_keys_per_transaction = 7200$$),
	(3, $$SET lockext.naptime = 500$$),
	(4, $$SET lockext.retention = 0$$),
	(5, $$SET lockext.default_timeout = 60$$),
	(6, $$ALTER ROLE regress_lockext_user SET lockext.max_timeout = 7200$$),
	(7, $$ALTER ROLE regress_lockext_user SET lockext.default_timeout = 60$$),
	(8, $$SET lockext.log_waits = on$$),
	(9, $$ALTER ROLE regress_lockext_user SET lockext.log_waits = on$$),
	(10, $$SET lockext.default_wait = 60$$),
	(11, $$SET lockext.default_expiry = 60$$),
	(12, $$ALTER ROLE regress_lockext_user SET lockext.default_wait = 60$$),
	(13, $$SET lockext.domains = '*'$$),
	(14, $$SET lockext.domains = 'a'$$),
	(15, $$ALTER ROLE regress_lockext_user SET lockext.domains = '*'$$)) v(n, stmt)
ORDER BY n;
SELECT timeout FROM lock_acquire('set-user');
SELECT lock_release('set-user');
RESET lockext.default_timeout;
RESET lockext.default_wait;
RESET lockext.default_expiry;
RESET ROLE;
GRANT SET ON PARAMETER lockext.max_timeout TO regress_lockext_user;
SET ROLE regress_lockext_user;
SET lockext.max_timeout = 7200;
SELECT timeout FROM lock_acquire('set-user', 7200);
SELECT lock_release('set-user');
RESET lockext.max_timeout;
RESET ROLE;
REVOKE SET ON PARAMETER lockext.max_timeout FROM regress_lockext_user;

-- per role and per database, from the first call of a session on
SELECT current_user AS me \gset
ALTER DATABASE :"DBNAME" SET lockext.max_timeout = 120;
ALTER DATABASE :"DBNAME" SET lockext.default_timeout = 30;
\c - regress_lockext_granted
SELECT timeout FROM lock_acquire('set-role', 7200);
SELECT lock_acquire('set-role-2', 7201);
SELECT timeout FROM lock_acquire('set-role-2');
SELECT lock_try('set-role-3', 1) IS NOT NULL AND lock_try('set-role-4', 1) IS NOT NULL AND lock_try('set-role-5', 1) IS NOT NULL;
SHOW lockext.max_timeout;
SHOW lockext.default_timeout;
SHOW lockext.max_keys_per_transaction;
SELECT lock_release('set-role'), lock_release('set-role-2');
\c - regress_lockext_user
SELECT lock_acquire('set-db', 121);
SELECT timeout FROM lock_acquire('set-db', 120);
SELECT timeout FROM lock_renew('set-db', NULL);
SELECT lock_release('set-db');
-- a value set before the library was loaded counts for no more than one set after
\c - regress_lockext_user
SET client_min_messages = error;
DO $$
BEGIN
	SET lockext.max_timeout = 999999;
EXCEPTION WHEN insufficient_privilege THEN
	NULL;
END $$;
SELECT timeout FROM lock_acquire('set-smuggled', 60);
SELECT lock_renew('set-smuggled', 121);
SHOW lockext.max_timeout;
SELECT lock_release('set-smuggled');
RESET client_min_messages;
\c - :me
ALTER DATABASE :"DBNAME" RESET lockext.max_timeout;
ALTER DATABASE :"DBNAME" RESET lockext.default_timeout;
\c - regress_lockext_user
SELECT timeout FROM lock_acquire('set-db', 3600);
SELECT lock_release('set-db');
\c - :me

-- lockext.max_keys_per_transaction
SET lockext.max_keys_per_transaction = 3;
BEGIN;
SELECT lock_try('keys-1', 60) IS NOT NULL AND lock_try('keys-2', 60) IS NOT NULL
	AND lock_try('keys-3', 60) IS NOT NULL AS acquired;
SELECT lock_try('keys-4', 60);
ROLLBACK;
BEGIN;
SELECT lock_try('keys-1', 60) IS NOT NULL AND lock_try('keys-2', 60) IS NOT NULL AS acquired;
\set VERBOSITY sqlstate
SELECT acquired FROM unnest('{keys-3,keys-4}'::text[]) k, lock_acquire(k, 60) ORDER BY 1;
\set VERBOSITY default
ROLLBACK;
SELECT count(*) FROM lockext_held WHERE key LIKE 'keys-%';
-- the same key again is no other key; a refusal and a miss take none
BEGIN;
SELECT lock_try('keys-1', 60) IS NOT NULL AND lock_release('keys-1') AND lock_try('keys-1', 60) IS NOT NULL
	AND lock_release('keys-1') AND lock_try('keys-1', 60) IS NOT NULL AS again;
SELECT lock_try('keys-1', 60), (lock_acquire('keys-1', 60)).reason;
SELECT lock_release('keys-none-' || i) FROM generate_series(1, 5) i;
SELECT (lock_renew('keys-none-' || i, 60)).reason FROM generate_series(1, 5) i;
SELECT lock_break('keys-none-' || i) FROM generate_series(1, 5) i;
SELECT (lock_check('keys-none-' || i)).held FROM generate_series(1, 5) i;
SELECT lock_try('keys-2', 60) IS NOT NULL AND lock_try('keys-3', 60) IS NOT NULL AS acquired;
-- nor does anything else with a key that is kept already
SELECT (lock_renew('keys-1', 60)).acquired, lock_break('keys-1'), lock_try('keys-1', 60) IS NOT NULL AS acquired,
	(lock_renew('keys-1', 60)).acquired;
SAVEPOINT s;
SELECT (lock_renew('keys-2', 60)).acquired, lock_release('keys-2');
ROLLBACK TO s;
COMMIT;
SELECT key FROM lockext_held WHERE key LIKE 'keys-%' ORDER BY 1;
-- renewing, releasing and breaking count as well, each key once
SELECT lock_try('keys-4', 60) IS NOT NULL AS acquired;
BEGIN;
SELECT (lock_acquire('keys-4', 60)).reason FROM generate_series(1, 5) i;
SELECT (lock_renew('keys-1', 60)).acquired, lock_release('keys-2'), lock_break('keys-3');
SELECT lock_release('keys-1');
SAVEPOINT s;
SELECT lock_release('keys-4');
ROLLBACK TO s;
SELECT lock_renew('keys-4', 60);
ROLLBACK TO s;
SELECT lock_break('keys-4');
ROLLBACK TO s;
SELECT lock_try('keys-5', 60);
ROLLBACK TO s;
SELECT lock_try('keys-3', 60) IS NOT NULL AS acquired;
COMMIT;
SELECT key FROM lockext_held WHERE key LIKE 'keys-%' ORDER BY 1;
-- a key that was renewed in a savepoint is given back with it
BEGIN;
SELECT lock_try('keys-5', 60) IS NOT NULL AND lock_try('keys-6', 60) IS NOT NULL AS acquired;
SAVEPOINT s;
SELECT (lock_renew('keys-4', 60)).acquired, lock_release('keys-4');
ROLLBACK TO s;
SELECT lock_try('keys-7', 60) IS NOT NULL AS acquired;
ROLLBACK;
-- what a savepoint took is given back with it
BEGIN;
SELECT lock_try('keys-7', 60) IS NOT NULL AS acquired;
SAVEPOINT a;
SELECT lock_try('keys-8', 60) IS NOT NULL AND lock_try('keys-9', 60) IS NOT NULL AS acquired;
SAVEPOINT b;
SELECT lock_try('keys-10', 60);
ROLLBACK TO b;
RELEASE b;
ROLLBACK TO a;
SELECT lock_try('keys-10', 60) IS NOT NULL AND lock_try('keys-11', 60) IS NOT NULL AS acquired;
ROLLBACK TO a;
SAVEPOINT b;
SELECT lock_try('keys-12', 60) IS NOT NULL AS acquired;
RELEASE b;
SELECT lock_try('keys-13', 60) IS NOT NULL AS acquired;
SELECT lock_try('keys-14', 60);
ROLLBACK TO a;
SELECT lock_try('keys-14', 60) IS NOT NULL AS acquired;
COMMIT;
DO $$
DECLARE
	taken integer := 0;
BEGIN
	FOR i IN 1..20 LOOP
		BEGIN
			PERFORM lock_try('keys-loop-' || i, 60);
			RAISE unique_violation;
		EXCEPTION WHEN unique_violation THEN
			taken := taken + 1;
		END;
	END LOOP;
	RAISE NOTICE '% taken and undone', taken;
	FOR i IN 1..20 LOOP
		PERFORM lock_try('keys-loop-' || i, 60);
	END LOOP;
EXCEPTION WHEN configuration_limit_exceeded THEN
	RAISE NOTICE '%: too many', SQLSTATE;
END $$;
-- the count begins anew with each transaction
SELECT count(*) = count(*) FILTER (WHERE lock_release(key)) AS released FROM (SELECT key FROM lockext_held ORDER BY key LIMIT 3) h;
SELECT count(*) = count(*) FILTER (WHERE lock_release(key)) AS released FROM (SELECT key FROM lockext_held ORDER BY key LIMIT 3) h;
RESET lockext.max_keys_per_transaction;
BEGIN;
SELECT count(lock_try('keys-' || i, 60)) FROM generate_series(1, 1000) i;
\set VERBOSITY sqlstate
SELECT lock_try('keys-1001', 60);
\set VERBOSITY default
ROLLBACK;

-- lockext.default_wait and lockext.default_expiry: units
SET lockext.default_wait = '2s';
SET lockext.default_expiry = '3min';
SHOW lockext.default_wait;
SHOW lockext.default_expiry;
SELECT setting, unit FROM pg_settings WHERE name IN ('lockext.default_wait', 'lockext.default_expiry') ORDER BY name COLLATE "C";
SELECT lock_event('TryLock', '{"id": "set-event"}'), (lock_check('set-event')).timeout;
SELECT lock_release('set-event');
RESET lockext.default_wait;
RESET lockext.default_expiry;

-- lockext.domains: which domains there are to a list
CREATE FUNCTION pg_temp.fails(stmt text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE stmt;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.allowed(list text) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('lockext.domains', list, false);
	RETURN array(SELECT d FROM unnest('{"",a,A,b,"a b","a,b",*,"\"",a*}'::text[]) d
				 WHERE pg_temp.fails(format('SELECT lock_check(%L, %L)', 'k', d)) = 'no error');
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN NULL;
END $$;
-- those that are refused have none
SELECT list, pg_temp.allowed(list)
FROM (VALUES (1, '*'), (2, ''), (3, '""'), (4, 'a'), (5, 'A'), (6, '"A"'), (7, 'a, b'), (8, ' a ,b '), (9, '"", b'), (10, 'b, ""'), (11, 'a, *'),
			 (12, '"*"'), (13, ' *'), (14, '"a b", "a,b"'), (15, '""""'), (16, 'a, a'), (17, 'a*')) v(n, list)
ORDER BY n;
SET lockext.domains = 'a, *';
RESET lockext.domains;
-- every function that names a lock, whether or not it is held
SELECT lock_try('set-domain', 60, domain => d) IS NOT NULL AS acquired FROM unnest('{a,b}'::text[]) d;
SELECT lock_try(NULL, 60, domain => d, master => true) IS NOT NULL AS acquired FROM unnest('{a,b}'::text[]) d;
SET lockext.domains = 'a, ""';
\pset format unaligned
SELECT v.stmt, pg_temp.fails(replace(v.stmt, 'D', quote_literal('a'))) AS a, pg_temp.fails(replace(v.stmt, 'D', quote_literal(''))) AS "default",
	pg_temp.fails(replace(v.stmt, 'D', quote_literal('b'))) AS b, pg_temp.fails(replace(v.stmt, 'D', quote_literal('*'))) AS other
FROM (VALUES
	(1, $$SELECT lock_acquire('set-domain', 60, domain => D)$$),
	(2, $$SELECT lock_acquire(NULL, 60, domain => D, master => true)$$),
	(3, $$SELECT lock_acquire('set-domain', domain => D, scope => 'transaction')$$),
	(4, $$SELECT lock_try('set-domain', 60, domain => D)$$),
	(5, $$SELECT lock_try(NULL, 60, domain => D, master => true)$$),
	(6, $$SELECT lock_renew('set-domain', 60, domain => D)$$),
	(7, $$SELECT lock_check('set-domain', D)$$),
	(8, $$SELECT lock_check(NULL, D, true)$$),
	(9, $$SELECT lock_event('TryLock', '{"id": "set-domain"}', jsonb_build_object('domain', D, 'parameters', '{"allowNoLock": true}'::jsonb))$$),
	(10, $$SELECT lock_event('CheckLock', '{"id": "set-domain"}', jsonb_build_object('domain', D))$$),
	(11, $$SELECT lock_event('CheckLock', '{}', jsonb_build_object('domain', D, 'parameters', '{"master": true}'::jsonb))$$),
	(12, $$SELECT lock_event('Unlock', '{"id": "set-domain"}', jsonb_build_object('domain', D))$$),
	(13, $$SELECT lock_release('set-domain', domain => D)$$),
	(14, $$SELECT lock_release(NULL, domain => D, master => true)$$),
	(15, $$SELECT lock_break('set-domain', domain => D)$$),
	(16, $$SELECT lock_break(NULL, domain => D, master => true)$$)) v(n, stmt)
ORDER BY n;
SELECT d, o, lock_request(jsonb_build_object('operation', o, 'key', 'set-domain', 'domain', d)) - '{timestamp,token,callingFn,lockInfo}'::text[] AS reply
FROM unnest('{a,b}'::text[]) d, unnest('{acquire,check,release}'::text[]) WITH ORDINALITY o(o, n)
ORDER BY d, n;
SELECT lock_request('{"operation": "acquire", "master": true, "domain": "b"}');
SELECT lock_request('{"operation": "acquire", "key": "a.b", "domain": "b", "timeout": 0}') ->> 'code' AS domain_first;
\pset format aligned
CALL lock_acquire_wait('set-domain', 60, domain => 'b');
SELECT lock_acquire('set-domain', 60, domain => 'b');
SELECT lock_acquire('set-domain', 60, domain => repeat('b', 200));
-- those of other domains are there, and shown
SELECT domain, key, master FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;
RESET lockext.domains;
SELECT domain, lock_release(key, NULL, domain, master) FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;
-- LOCAL, and undone
BEGIN;
SET LOCAL lockext.domains = 'a';
\set VERBOSITY sqlstate
SAVEPOINT s;
SELECT lock_check('set-domain');
ROLLBACK TO s;
\set VERBOSITY default
SET LOCAL lockext.domains = '""';
SELECT held FROM lock_check('set-domain');
COMMIT;
SELECT held FROM lock_check('set-domain', 'b');
-- per role, from the first call of a session on, and for no one else
ALTER ROLE regress_lockext_user SET lockext.domains = '"", events';
\c - regress_lockext_user
SELECT lock_try('set-domain', 60) IS NOT NULL AS "default", lock_try('set-domain', 60, domain => 'events') IS NOT NULL AS events;
SELECT lock_try('set-domain', 60, domain => 'orders');
SHOW lockext.domains;
SET lockext.domains = '*';
RESET lockext.domains;
SELECT lock_request('{"operation": "check", "key": "set-domain", "domain": "orders"}');
SELECT lock_event('CheckLock', '{"id": "set-domain"}', '{"domain": "orders"}');
SELECT lock_release('set-domain'), lock_release('set-domain', domain => 'events');
-- set before the library was loaded
\c - regress_lockext_user
SET client_min_messages = error;
DO $$
BEGIN
	SET lockext.domains = '*';
EXCEPTION WHEN insufficient_privilege THEN
	NULL;
END $$;
SELECT held FROM lock_check('set-domain');
SELECT held FROM lock_check('set-domain', 'orders');
SHOW lockext.domains;
RESET client_min_messages;
\c - regress_lockext_granted
SELECT held FROM lock_check('set-domain', 'orders');
\c - :me
SELECT held FROM lock_check('set-domain', 'orders');
-- the setting of a role is checked when it is made; what needs quotes needs them
-- inside the value
ALTER ROLE regress_lockext_user SET lockext.domains = 'a,';
ALTER ROLE regress_lockext_user SET lockext.domains = a, "B c";
ALTER ROLE regress_lockext_user SET lockext.domains = a, b;
ALTER ROLE regress_lockext_user SET lockext.domains = 'a, "B c"';
SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'regress_lockext_user'::regrole;

SELECT key FROM lockext_held ORDER BY 1;
DROP ROLE regress_lockext_user, regress_lockext_granted;
