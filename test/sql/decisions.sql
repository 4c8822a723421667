--
-- The decisions of the requirements, row by row.
--
-- Here: 1 to 9, 13 and 18, and the SQL sides of 12 and 16.  Rows 10, 11, 14, 15
-- and 17 and the JSON sides of 2, 5, 12, 16 and 18 are about the JSON functions
-- and about waiting, and are tested with those.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'decisions test';
\pset null '<NULL>'

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

-- 1: a timeout is 1 to lockext.max_timeout seconds; the example with 21600 is
-- refused until the bound is raised
SELECT acquired, timeout FROM lock_acquire('quick-sync', 300);
SELECT lock_acquire('full-backup', 21600);
\set VERBOSITY sqlstate
SELECT lock_acquire('full-backup', 21600);
SELECT lock_acquire('full-backup', 0);
SELECT lock_acquire('full-backup', -300);
\set VERBOSITY default
SET lockext.max_timeout = '6h';
SELECT acquired, timeout, expires_at - acquired_at AS lifetime FROM lock_acquire('full-backup', 21600);
SELECT lock_acquire('full-backup', 21601);
RESET lockext.max_timeout;
SELECT acquired, timeout, expires_at FROM lock_acquire('no-timeout', NULL);
CREATE ROLE regress_lockext_app;
SET ROLE regress_lockext_app;
SET lockext.max_timeout = '6h';
RESET ROLE;
SELECT lock_release('quick-sync'), lock_release('full-backup'), lock_release('no-timeout');

-- 2: a lock that can't be had is an answer, not an error: the transaction goes on
BEGIN;
SELECT key, calling_fn, acquired, reason, acquired_at <= clock_timestamp() AS acquired_at, timeout
FROM lock_acquire('db-migration-v2', 300, calling_fn => 'migrateUsers');
SELECT key, calling_fn, acquired, reason, acquired_at, timeout
FROM lock_acquire('db-migration-v2', 300, calling_fn => 'migrateUsers');
SELECT lock_try('db-migration-v2', 300);
SELECT 'goes on' AS transaction;
COMMIT;
SELECT lock_release('db-migration-v2');

-- 3: the rule about keys wins over the example
SELECT lock_acquire('file-processing-large-data-file.csv', 1800);
\set VERBOSITY sqlstate
SELECT lock_acquire('file-processing-large-data-file.csv', 1800);
SELECT lock_acquire('', 1800);
SELECT lock_acquire('my-lock ', 1800);
SELECT lock_acquire(repeat('k', 256), 1800);
\set VERBOSITY default
SELECT acquired FROM lock_acquire('file-processing-large-data-file_csv', 1800);
SELECT acquired FROM lock_acquire('File-Processing-Large-Data-File_csv', 1800);
SELECT acquired FROM lock_acquire(repeat('k', 255), 1800);
SELECT lock_release('file-processing-large-data-file_csv'), lock_release('FILE-processing-large-data-file_csv'),
	lock_release('File-Processing-Large-Data-File_csv'), lock_release(repeat('k', 255));

-- 4: "is being processed": busy, and at once (here by a prepared transaction)
BEGIN;
SELECT acquired FROM lock_acquire('in-flight', 60);
PREPARE TRANSACTION 'regress_lockext_decisions';
SELECT acquired, reason, token, waited_ms FROM lock_acquire('in-flight', 60);
SELECT lock_try('in-flight', 60);
ROLLBACK PREPARED 'regress_lockext_decisions';
SELECT acquired, reason FROM lock_acquire('in-flight', 60);
SELECT lock_release('in-flight');

-- 5: the app is current_user; one space of keys for all of them
CREATE ROLE regress_lockext_app2;
SET ROLE regress_lockext_app;
SELECT acquired FROM lock_acquire('shared-key', 60);
SET ROLE regress_lockext_app2;
SELECT owner FROM lock_check('shared-key');
SELECT acquired, reason, holder ->> 'owner' AS owner FROM lock_acquire('shared-key', 60);
SELECT lock_release('shared-key'), (lock_renew('shared-key', 60)).reason;
SET ROLE regress_lockext_app;
SELECT (lock_renew('shared-key', 60)).acquired, lock_release('shared-key');
RESET ROLE;

-- 6: the label: argument, calling function, application_name, 'unknown'
CREATE FUNCTION pg_temp."migrateUsers"(label text) RETURNS lock_result LANGUAGE plpgsql AS $$
BEGIN
	RETURN lock_acquire('labelled', 60, calling_fn => label);
END $$;
SELECT acquired, calling_fn FROM pg_temp."migrateUsers"('given');
-- in a refusal it is the requester's; the holder's is beside it
SELECT acquired, calling_fn, holder ->> 'calling_fn' AS holder FROM pg_temp."migrateUsers"(NULL);
SELECT acquired, calling_fn, holder ->> 'calling_fn' AS holder FROM lock_acquire('labelled', 60);
SET application_name = '';
SELECT acquired, calling_fn, holder ->> 'calling_fn' AS holder FROM lock_acquire('labelled', 60);
SET application_name = 'decisions test';
-- it is no part of ownership
SELECT lock_release('labelled');

-- 7: an expired lock is absent for every operation, its row removed or not
SELECT acquired, token AS expired FROM lock_acquire('expires', 1) \gset
SELECT pg_temp.until_free('expires');
SELECT count(*) AS rows FROM lockext_lock WHERE key = 'expires' AND released_at IS NULL;
SELECT held, owner, token, expires_at FROM lock_check('expires');
SELECT count(*) FROM lockext_held WHERE key = 'expires';
SELECT lock_release('expires'), lock_release('expires', :expired);
SELECT reason FROM lock_renew('expires', 60, :expired);
SELECT lock_break('expires');
SELECT acquired, token > :expired AS newer FROM lock_acquire('expires', 60);
SELECT lock_release('expires');
-- by the wall clock, also within one transaction
BEGIN;
SELECT acquired, expires_at < now() + interval '1 s' AS by_start_of_transaction
FROM pg_sleep(0.05), lock_acquire('expires', 1);
SELECT pg_temp.until_free('expires');
SELECT acquired FROM lock_acquire('expires', 1);
COMMIT;
-- a refused acquire does not extend the holder's lifetime
SELECT acquired, expires_at AS ends, token FROM lock_acquire('not-extended', 3) \gset
SELECT acquired, reason, holder ->> 'expires_at' IS NOT NULL AS ends FROM lock_acquire('not-extended', 3600);
SELECT lock_try('not-extended', 3600);
SELECT expires_at = :'ends' AS same_end, timeout, token = :token AS same_token FROM lock_check('not-extended');
SELECT pg_temp.until_free('not-extended');

-- 8: with a token one acts on that acquisition only
SELECT lock_try('fenced', 60) AS first \gset
SELECT lock_break('fenced');
SELECT lock_try('fenced', 60) AS second \gset
SELECT :first < :second AS rises;
SELECT lock_release('fenced', :first), (lock_renew('fenced', 600, :first)).reason;
SELECT held, timeout FROM lock_check('fenced');
SELECT (lock_renew('fenced', 600, :second)).acquired, lock_release('fenced', :second);

-- 9: a lock is (domain, key); the default domain is ''
SELECT acquired, domain FROM lock_acquire('in-domain', 60);
SELECT acquired, domain FROM lock_acquire('in-domain', 60, domain => 'events');
SELECT acquired, reason FROM lock_acquire('in-domain', 60, domain => '');
SELECT held, domain FROM lock_check('in-domain', 'other');
SELECT lock_release('in-domain'), lock_release('in-domain', domain => 'events');

-- 12: acquired says whether this call took the lock, held whether anybody has it
SELECT (lock_acquire('locked', 60)).acquired;
SELECT (lock_acquire('locked', 60)).acquired;
SELECT (lock_check('locked')).held;
SELECT lock_release('locked'), (lock_check('locked')).held;

-- 13: the domain's own lock, which needs and reads no id, and excludes none
SELECT acquired, key FROM lock_acquire(NULL, 60, domain => 'events', master => true);
SELECT acquired, key FROM lock_acquire('id-1', 60, domain => 'events');
SELECT acquired, reason FROM lock_acquire('id-1', 60, domain => 'events', master => true);
SELECT acquired, reason FROM lock_acquire('not an id', 60, domain => 'events', master => true);
SELECT acquired FROM lock_acquire(NULL, 60, domain => '', master => true);
SELECT lock_release(NULL, domain => 'events', master => true), lock_release('id-1', domain => 'events'),
	lock_release(NULL, master => true);

-- 16, the SQL side: the release of a lock that is not there, or is another
-- role's, is no error and changes nothing
SELECT lock_release('not-there');
SET ROLE regress_lockext_app;
SELECT acquired FROM lock_acquire('not-yours', 60);
SET ROLE regress_lockext_app2;
SELECT lock_release('not-yours');
RESET ROLE;
SELECT held, owner FROM lock_check('not-yours');
SELECT lock_release('not-yours');

-- 18: the server's own errors come through
\set VERBOSITY sqlstate
BEGIN READ ONLY;
SELECT lock_acquire('read-only', 60);
ROLLBACK;
BEGIN;
SET LOCAL statement_timeout = '100ms';
DO $$
BEGIN
	LOOP
		PERFORM lock_acquire('cancelled', 60);
	END LOOP;
END $$;
ROLLBACK;
SELECT held FROM lock_check('cancelled');
\set VERBOSITY default

SELECT key, domain FROM lockext_held ORDER BY 1, 2;
DROP ROLE regress_lockext_app, regress_lockext_app2;
