--
-- A lease belongs to its role, not to a session: it outlives what ends or
-- cleans up a session, and any session of the role can go on with it.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
CREATE TABLE session_before AS SELECT pg_backend_pid() AS pid, lock_try('kept', 600) AS token;
RESET client_min_messages;
-- what poolers and drivers send between two users of a connection
SELECT pg_advisory_unlock_all();
DISCARD ALL;
SELECT held FROM lock_check('kept');
-- in the middle of a transaction, too
BEGIN;
SELECT lock_try('open') IS NOT NULL AS taken;
SELECT pg_advisory_unlock_all();
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid = 27755;
COMMIT;
-- another session
\c -
SELECT pg_backend_pid() <> b.pid AS another_session, held, c.token = b.token AS same_token
FROM session_before b, lock_check('kept') c;
SELECT acquired, reason FROM lock_acquire('kept');
SELECT r.acquired, r.token = b.token AS same_token
FROM session_before b CROSS JOIN LATERAL lock_renew('kept', 1200, b.token) r;
SELECT lock_release('kept', token) FROM session_before;
SELECT lock_release('open');
DROP TABLE session_before;
