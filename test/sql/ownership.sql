--
-- Ownership: the owner is current_user; whoever has its privileges may release
-- and renew; tokens, data and client addresses are hidden from the others
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'ownership test';
\pset null '<NULL>'
-- what column waiters shows where nobody waits
SELECT CASE WHEN current_setting('shared_preload_libraries') ~ 'lockext' THEN '0' ELSE 'NULL' END AS nobody \gset

CREATE ROLE regress_lockext_alice;
CREATE ROLE regress_lockext_bob;
CREATE ROLE regress_lockext_team;
CREATE ROLE regress_lockext_member IN ROLE regress_lockext_team;
CREATE ROLE regress_lockext_noinherit NOINHERIT IN ROLE regress_lockext_team;
CREATE ROLE regress_lockext_stats IN ROLE pg_read_all_stats;
CREATE ROLE regress_lockext_monitor IN ROLE pg_monitor;
CREATE ROLE regress_lockext_writer IN ROLE pg_write_all_data;

-- one space of keys for all roles
SET ROLE regress_lockext_alice;
SELECT acquired, holder FROM lock_acquire('own', 600, calling_fn => 'alices_job', data => '{"a": 1}');
SET ROLE regress_lockext_bob;
SELECT acquired, reason, token, holder ->> 'owner' AS owner, holder ->> 'calling_fn' AS calling_fn,
	calling_fn = 'bobs_job' AS requester
FROM lock_acquire('own', 600, calling_fn => 'bobs_job');
SELECT lock_try('own');

-- somebody else's lock can't be released or renewed, and looks the same afterwards
SELECT lock_release('own');
SELECT acquired, reason, timeout, token, holder ->> 'owner' AS owner FROM lock_renew('own', 60);
SELECT held, owner, timeout FROM lock_check('own');
-- even with the right token
RESET ROLE;
SELECT token AS alices FROM lock_check('own') \gset
SET ROLE regress_lockext_bob;
SELECT lock_release('own', :alices);
SELECT reason FROM lock_renew('own', 60, :alices);

-- who sees what
SELECT key, domain, master, held, owner, scope, calling_fn, acquired_at IS NOT NULL AS acquired_at,
	timeout, expires_at IS NOT NULL AS expires_at, token, pid = pg_backend_pid() AS pid,
	application_name, client_addr, data, waiters IS NOT DISTINCT FROM :nobody AS nobody_waits
FROM lock_check('own');
SELECT key, owner, calling_fn, token, client_addr, data FROM lockext_held ORDER BY key;
SELECT holder ? 'token' OR holder ? 'data' OR holder ? 'client_addr' AS leaks FROM lock_acquire('own');
SET ROLE regress_lockext_alice;
SELECT token = :alices AS token, data FROM lock_check('own');
SELECT token = :alices AS token, data FROM lockext_held ORDER BY key;
SET ROLE regress_lockext_stats;
SELECT token = :alices AS token, data FROM lock_check('own');
SELECT token = :alices AS token, data FROM lockext_held ORDER BY key;
-- seeing is not owning
SELECT lock_release('own'), lock_release('own', :alices);
SELECT reason FROM lock_renew('own', 60, :alices);
SET ROLE regress_lockext_monitor;
SELECT token = :alices AS token, data FROM lock_check('own');
-- the client's address (there is none over a unix socket)
RESET ROLE;
BEGIN;
ALTER TABLE lockext_lock DISABLE TRIGGER ALL;
UPDATE lockext_lock SET client_addr = '192.0.2.1' WHERE key = 'own';
SET ROLE regress_lockext_bob;
SELECT client_addr FROM lock_check('own');
SELECT client_addr FROM lockext_held WHERE key = 'own';
SET ROLE regress_lockext_alice;
SELECT client_addr FROM lock_check('own');
SELECT client_addr FROM lockext_held WHERE key = 'own';
SET ROLE regress_lockext_stats;
SELECT client_addr FROM lock_check('own');
ROLLBACK;

-- the owner renews and releases
SET ROLE regress_lockext_alice;
SELECT acquired, timeout FROM lock_renew('own', 60);
SELECT lock_release('own');
SELECT owner, held FROM lock_check('own');

-- current_user counts, not session_user
SELECT acquired FROM lock_acquire('own', 60);
SELECT owner, session_user = owner AS session FROM lock_check('own');
RESET ROLE;
SET SESSION AUTHORIZATION regress_lockext_bob;
SELECT lock_release('own');
RESET SESSION AUTHORIZATION;

-- a superuser has every role's privileges
SELECT acquired FROM lock_renew('own', 60);
SELECT owner FROM lock_check('own');
SELECT lock_release('own');

-- membership: with the privileges of the owner, by inheritance or SET ROLE
SET ROLE regress_lockext_team;
SELECT acquired FROM lock_acquire('team', 60);
SET ROLE regress_lockext_bob;
SELECT lock_release('team');
SET ROLE regress_lockext_noinherit;
SELECT lock_release('team'), token FROM lock_check('team');
RESET ROLE;
SET SESSION AUTHORIZATION regress_lockext_noinherit;
SET ROLE regress_lockext_team;
SELECT acquired FROM lock_renew('team', 60);
RESET SESSION AUTHORIZATION;
SET ROLE regress_lockext_member;
SELECT acquired, timeout FROM lock_renew('team', 120);
SELECT owner, timeout, token IS NOT NULL AS token FROM lock_check('team');
SELECT lock_release('team');
-- not the other way round: the team has no right to a member's lock
SELECT acquired FROM lock_acquire('team', 60);
SET ROLE regress_lockext_team;
SELECT lock_release('team'), owner, token FROM lock_check('team');
-- membership is looked at when it matters
RESET ROLE;
GRANT regress_lockext_member TO regress_lockext_bob;
SET ROLE regress_lockext_bob;
SELECT acquired FROM lock_renew('team', 60);
RESET ROLE;
REVOKE regress_lockext_member FROM regress_lockext_bob;
SET ROLE regress_lockext_bob;
SELECT lock_release('team');
RESET ROLE;
SELECT lock_release('team');

-- a SECURITY DEFINER function works as its owner
CREATE SCHEMA regress_lockext_s;
GRANT USAGE, CREATE ON SCHEMA regress_lockext_s TO regress_lockext_alice;
SET ROLE regress_lockext_alice;
CREATE FUNCTION regress_lockext_s.take() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $$ BEGIN RETURN (lock_acquire('definer', 60)).acquired; END $$;
CREATE FUNCTION regress_lockext_s.give() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $$ BEGIN RETURN lock_release('definer'); END $$;
CREATE FUNCTION regress_lockext_s.invoker_give() RETURNS boolean
LANGUAGE plpgsql
AS $$ BEGIN RETURN lock_release('definer'); END $$;
RESET ROLE;
GRANT USAGE ON SCHEMA regress_lockext_s TO regress_lockext_bob;
SET ROLE regress_lockext_bob;
SELECT regress_lockext_s.take();
SELECT owner, calling_fn FROM lock_check('definer');
SELECT lock_release('definer'), regress_lockext_s.invoker_give();
SELECT regress_lockext_s.give();
SELECT held FROM lock_check('definer');
RESET ROLE;
DROP FUNCTION regress_lockext_s.take, regress_lockext_s.give, regress_lockext_s.invoker_give;
DROP SCHEMA regress_lockext_s;

-- a renamed owner stays the owner
SET ROLE regress_lockext_alice;
SELECT acquired FROM lock_acquire('renamed', 60);
RESET ROLE;
ALTER ROLE regress_lockext_alice RENAME TO regress_lockext_alicia;
SELECT owner FROM lock_check('renamed');
SET ROLE regress_lockext_alicia;
SELECT lock_release('renamed');
RESET ROLE;
ALTER ROLE regress_lockext_alicia RENAME TO regress_lockext_alice;

-- a dropped one leaves the lock to its timeout and to administrators
CREATE ROLE regress_lockext_gone;
SET ROLE regress_lockext_gone;
SELECT acquired FROM lock_acquire('orphan', 600);
SELECT acquired FROM lock_acquire('orphan-2');
RESET ROLE;
SELECT oid AS gone FROM pg_roles WHERE rolname = 'regress_lockext_gone' \gset
DROP ROLE regress_lockext_gone;
SET ROLE regress_lockext_bob;
SELECT held, owner = :'gone' AS number, timeout, token FROM lock_check('orphan');
SELECT key, owner = :'gone' AS number, token FROM lockext_held ORDER BY key;
SELECT reason, holder ->> 'owner' = :'gone' AS number FROM lock_acquire('orphan');
SELECT lock_release('orphan');
SELECT reason FROM lock_renew('orphan', 60);
RESET ROLE;
-- a new role of that name is another role
CREATE ROLE regress_lockext_gone;
SET ROLE regress_lockext_gone;
SELECT lock_release('orphan'), (lock_renew('orphan', 60)).reason;
RESET ROLE;
DROP ROLE regress_lockext_gone;
SELECT lock_break('orphan'), lock_release('orphan-2');
SELECT key FROM lockext_held ORDER BY 1;

-- lock_break() is for those it was granted to
SET ROLE regress_lockext_alice;
SELECT acquired FROM lock_acquire('own', 60);
SET ROLE regress_lockext_bob;
SELECT lock_break('own');
RESET ROLE;
GRANT EXECUTE ON FUNCTION lock_break TO regress_lockext_bob;
SET ROLE regress_lockext_bob;
SELECT lock_break('own');
SELECT lock_break('own');
SELECT acquired FROM lock_acquire('own', 60);
SET ROLE regress_lockext_alice;
SELECT lock_release('own');
SELECT lock_break('own');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION lock_break FROM regress_lockext_bob;
SELECT lock_break('own');

-- nobody reads or writes the table; everybody reads the view
SET ROLE regress_lockext_bob;
SELECT * FROM lockext_lock;
INSERT INTO lockext_lock DEFAULT VALUES;
UPDATE lockext_lock SET token = 1;
DELETE FROM lockext_lock;
TRUNCATE lockext_lock;
SELECT lockext_refuse_write();
SELECT count(*) FROM lockext_held;
SELECT p, has_table_privilege('lockext_held', p) AS "view", has_table_privilege('lockext_lock', p) AS "table"
FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p ORDER BY 1;
SELECT has_any_column_privilege('lockext_lock', 'SELECT,INSERT,UPDATE,REFERENCES') AS any_column;
-- with the right to write any table one may still not
SET ROLE regress_lockext_writer;
DELETE FROM lockext_lock;
INSERT INTO lockext_lock VALUES (1, 1, now(), 1, 10, 1, 'l', '', 'forged', '', '');
RESET ROLE;
SELECT acquired FROM lock_acquire('own', 60);
SET ROLE regress_lockext_writer;
DELETE FROM lockext_lock WHERE true;
TRUNCATE lockext_lock;
RESET ROLE;
SELECT lock_release('own');

-- who may call what
SELECT p.proname, has_function_privilege('regress_lockext_bob', p.oid, 'EXECUTE') AS everybody
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
WHERE e.extname = 'lockext' AND d.deptype = 'e'
ORDER BY 1;
SELECT p.proname FROM pg_depend d
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
WHERE e.extname = 'lockext' AND d.deptype = 'e' AND p.prosecdef
ORDER BY 1;

SELECT key FROM lockext_held ORDER BY 1;
DROP ROLE regress_lockext_alice, regress_lockext_bob, regress_lockext_team, regress_lockext_member,
	regress_lockext_noinherit, regress_lockext_stats, regress_lockext_monitor, regress_lockext_writer;
