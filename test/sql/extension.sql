--
-- The extension: its members, DROP and CREATE, other schemas
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
\pset null '<NULL>'

-- members
SELECT member FROM (SELECT CASE d.classid WHEN 'pg_class'::regclass THEN (SELECT relkind::text || ' ' || relname FROM pg_class WHERE oid = d.objid)
		WHEN 'pg_proc'::regclass THEN (SELECT prokind::text || ' ' || proname || '(' || replace(pg_get_function_arguments(oid), nspname || '.', '') || ')'
			|| coalesce(' -> ' || replace(pg_get_function_result(oid), nspname || '.', ''), '') FROM pg_proc WHERE oid = d.objid)
		WHEN 'pg_type'::regclass THEN (SELECT 't ' || typname FROM pg_type WHERE oid = d.objid) END AS member
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'lockext' AND d.deptype = 'e'
	-- row and array types come with their tables, on some versions as members
	AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
		WHERE t.oid = d.objid AND (t.typcategory = 'A' OR c.relkind <> 'c')))) m
ORDER BY member COLLATE "C";

-- none is without a comment
SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'lockext' AND d.deptype = 'e'
	AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
		WHERE t.oid = d.objid AND (t.typcategory = 'A' OR c.relkind <> 'c')))
	AND obj_description(d.objid, d.classid::regclass::text::name) IS NULL
ORDER BY 1;
-- nor are columns, but those that need none
SELECT c.relname, string_agg(a.attname, ', ' ORDER BY a.attnum) AS without_comment
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.oid IN ('lock_result'::regclass, 'lock_info'::regclass, 'lockext_waiters'::regclass)
	AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL
GROUP BY c.relname ORDER BY c.relname COLLATE "C";
SELECT tgname FROM pg_trigger WHERE tgrelid = 'lockext_lock'::regclass AND obj_description(oid, 'pg_trigger') IS NULL ORDER BY 1;
SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'lockext';

-- every function is volatile, and parallel unsafe if it has to do with the lock
-- table; none is strict, SECURITY DEFINER or leakproof
SELECT p.proname, p.provolatile AS volatile, p.proparallel AS parallel, p.proisstrict AS strict, p.prosecdef AS definer,
	p.proleakproof AS leakproof, p.proretset AS set, l.lanname
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
	JOIN pg_language l ON l.oid = p.prolang
WHERE e.extname = 'lockext' AND d.deptype = 'e'
ORDER BY p.proname COLLATE "C";

-- not for everybody to create
CREATE ROLE regress_lockext_user;
DROP EXTENSION lockext;
SET ROLE regress_lockext_user;
\set VERBOSITY sqlstate
CREATE EXTENSION lockext;
\set VERBOSITY default
RESET ROLE;
DROP ROLE regress_lockext_user;

-- in a schema of choice, found by its own place, not by search_path
CREATE SCHEMA regress_lockext_a;
CREATE SCHEMA "regress_lockext B";
CREATE EXTENSION lockext SCHEMA regress_lockext_a;
SHOW search_path;
SELECT acquired FROM regress_lockext_a.lock_acquire('ext', 600);
SELECT regress_lockext_a.lock_try('ext', 60), regress_lockext_a.lock_release('none');
SELECT key FROM regress_lockext_a.lockext_held ORDER BY key;
SELECT token AS old, held FROM regress_lockext_a.lock_check('ext') \gset
SET search_path = '';
SELECT acquired, timeout FROM regress_lockext_a.lock_renew('ext', 500);
SELECT regress_lockext_a.lock_request('{"operation": "acquire", "key": "ext"}') OPERATOR(pg_catalog.->) 'acquired' AS acquired,
	regress_lockext_a.lock_request('{"operation": "check", "key": "ext"}') OPERATOR(pg_catalog.->) 'exists' AS exists;
SELECT regress_lockext_a.lock_event('CheckLock', '{"id": "ext"}');
RESET search_path;
-- nor by what is put in its way
CREATE TABLE public.lockext_lock (key text);
SELECT held FROM regress_lockext_a.lock_check('ext');
DROP TABLE public.lockext_lock;

-- ALTER EXTENSION SET SCHEMA: the locks stay
CREATE FUNCTION pg_temp.kept(k text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RETURN (lock_check(k)).held;
END $$;
SET search_path = regress_lockext_a, "regress_lockext B";
SELECT pg_temp.kept('ext');
BEGIN;
ALTER EXTENSION lockext SET SCHEMA "regress_lockext B";
SELECT pg_temp.kept('ext');
SELECT "regress_lockext B".lock_try('ext', 60), "regress_lockext B".lock_try('ext-2', 60) IS NOT NULL AS acquired;
ROLLBACK;
SELECT pg_temp.kept('ext');
SELECT regress_lockext_a.lock_try('ext', 60), held FROM regress_lockext_a.lock_check('ext-2');
ALTER EXTENSION lockext SET SCHEMA "regress_lockext B";
SELECT pg_temp.kept('ext');
SELECT held, timeout, token = :old AS same FROM "regress_lockext B".lock_check('ext');
SELECT "regress_lockext B".lock_try('ext', 60);
SELECT key FROM "regress_lockext B".lockext_held ORDER BY key;
DELETE FROM "regress_lockext B".lockext_lock;
SELECT "regress_lockext B".lock_release('ext', :old);
RESET search_path;
SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'lockext';

-- DROP EXTENSION takes everything along, and brings it back on rollback
SELECT "regress_lockext B".lock_try('ext', 600) AS old \gset
BEGIN;
DROP EXTENSION lockext;
SELECT count(*) FROM pg_class WHERE relnamespace = '"regress_lockext B"'::regnamespace;
SELECT count(*) FROM pg_proc WHERE pronamespace = '"regress_lockext B"'::regnamespace;
SELECT count(*) FROM pg_type WHERE typnamespace = '"regress_lockext B"'::regnamespace;
ROLLBACK;
SELECT held, token = :old AS same FROM "regress_lockext B".lock_check('ext');
BEGIN;
DROP EXTENSION lockext;
CREATE EXTENSION lockext SCHEMA regress_lockext_a;
SELECT held FROM regress_lockext_a.lock_check('ext');
SELECT regress_lockext_a.lock_try('ext', 60) > :old AS newer;
ROLLBACK;
SELECT held, token = :old AS same FROM "regress_lockext B".lock_check('ext');
DROP EXTENSION lockext;
\set VERBOSITY sqlstate
SELECT "regress_lockext B".lock_check('ext');
\set VERBOSITY default
DROP SCHEMA regress_lockext_a;
DROP SCHEMA "regress_lockext B";

-- created again: the locks are gone, the tokens go on rising
CREATE EXTENSION lockext;
SELECT count(*) FROM lockext_held;
SELECT held FROM lock_check('ext');
SELECT token > :old AS newer FROM lock_acquire('ext', 60);
SELECT token AS old FROM lock_check('ext') \gset
-- in the transaction that also drops it
BEGIN;
DROP EXTENSION lockext;
CREATE EXTENSION lockext;
SELECT acquired, token > :old AS newer FROM lock_acquire('ext', 60);
SELECT acquired, reason FROM lock_acquire('ext', 60);
COMMIT;
SELECT held, token > :old AS newer FROM lock_check('ext');
SELECT lock_release('ext');
SELECT key FROM lockext_held ORDER BY key;

-- a result type was altered: refused, and nothing comes of the call, until the
-- extension is created again
SELECT lock_try('ext-held', 60) IS NOT NULL AS acquired;
ALTER TYPE lock_result ADD ATTRIBUTE more text;
ALTER TYPE lock_info ADD ATTRIBUTE more text;
SELECT lock_acquire('ext', 60);
SELECT lock_acquire('ext-held', 60);
SELECT lock_renew('ext-held', 60);
CALL lock_acquire_wait('ext', 60);
SELECT lock_check('ext-held');
SELECT * FROM lockext_held;
SELECT * FROM lockext_held();
-- what returns something else goes on
SELECT lock_try('ext', 60) IS NOT NULL AS acquired, lock_release('ext');
SELECT lock_request('{"operation": "check", "key": "ext-held"}') -> 'exists' AS exists, lock_event('CheckLock', '{"id": "ext"}');
-- dropped again is not as before
ALTER TYPE lock_result DROP ATTRIBUTE more;
SELECT lock_acquire('ext', 60);
DROP EXTENSION lockext;
CREATE EXTENSION lockext;
SELECT acquired, lock_release('ext') FROM lock_acquire('ext', 60);
SELECT held FROM lock_check('ext');
SELECT key FROM lockext_held ORDER BY key;
