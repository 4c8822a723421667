--
-- Fencing tokens
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
\pset null '<NULL>'

CREATE TEMP TABLE seen (n serial, how text, token bigint);

-- each acquisition of a key has a greater one: the first,
INSERT INTO seen (how, token) SELECT 'first', token FROM lock_acquire('tok', 60);
SELECT lock_release('tok');
-- after a release,
INSERT INTO seen (how, token) SELECT 'release', token FROM lock_acquire('tok', 60);
SELECT lock_break('tok');
-- after a break,
INSERT INTO seen (how, token) SELECT 'break', lock_try('tok', 1);
DO $$
BEGIN
	FOR i IN 1..1000 LOOP
		EXIT WHEN NOT (lock_check('tok')).held;
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$;
-- after expiry,
INSERT INTO seen (how, token) SELECT 'expiry', lock_try('tok', 60);
-- after a transaction that took it and rolled back: not even that one's is used again
SELECT lock_release('tok');
BEGIN;
SELECT token AS undone FROM lock_acquire('tok', 60) \gset
ROLLBACK;
INSERT INTO seen (how, token) VALUES ('undone', :undone);
INSERT INTO seen (how, token) SELECT 'rollback', token FROM lock_acquire('tok', 60);
-- within a transaction
BEGIN;
SELECT lock_release('tok');
INSERT INTO seen (how, token) SELECT 'same transaction', lock_try('tok', 60);
COMMIT;
-- by another role
CREATE ROLE regress_lockext_other;
SELECT lock_release('tok');
SET ROLE regress_lockext_other;
SELECT lock_try('tok', 60) AS other \gset
RESET ROLE;
INSERT INTO seen (how, token) VALUES ('other role', :other);
SELECT lock_release('tok');
DROP ROLE regress_lockext_other;

SELECT n, how, token > lag(token) OVER (ORDER BY n) AS rises,
	token BETWEEN 1 AND 9007199254740990 AS in_range
FROM seen ORDER BY n;

-- through many cycles
DO $$
DECLARE
	last bigint := 0;
	this bigint;
BEGIN
	FOR i IN 1..500 LOOP
		this := lock_try('tok-cycle', 60);
		IF this <= last THEN
			RAISE EXCEPTION 'token % after %', this, last;
		END IF;
		last := this;
		IF NOT lock_release('tok-cycle', this) THEN
			RAISE EXCEPTION 'not released';
		END IF;
	END LOOP;
END $$;

-- also where the last token is ahead of the clock
SELECT lock_try('tok-ahead', 600) > 0 AS acquired;
BEGIN;
ALTER TABLE lockext_lock DISABLE TRIGGER ALL;
UPDATE lockext_lock SET token = 4503599627370496 WHERE key = 'tok-ahead';
COMMIT;
SELECT lock_release('tok-ahead');
SELECT lock_try('tok-ahead', 600);
SELECT lock_break('tok-ahead');
SELECT lock_try('tok-ahead', 600);
SELECT lock_try('tok-beside', 60) < 4503599627370496 AS other_keys_go_on, lock_release('tok-beside');
-- up to the last
BEGIN;
UPDATE lockext_lock SET token = 9007199254740989 WHERE key = 'tok-ahead';
COMMIT;
SELECT lock_release('tok-ahead', 9007199254740989);
SELECT lock_try('tok-ahead', 600);
SELECT lock_release('tok-ahead', 9007199254740990);
SELECT lock_try('tok-ahead', 600);
SELECT lock_acquire('tok-ahead', 600);
SELECT held FROM lock_check('tok-ahead');
BEGIN;
DELETE FROM lockext_lock WHERE key = 'tok-ahead';
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_truncate;
COMMIT;
SELECT count(*) AS held FROM lockext_held;

-- lock_try() gives the token, or null
SELECT lock_try('tok', 60) AS token \gset
SELECT token = :token AS same FROM lock_check('tok');
SELECT lock_try('tok', 60);
SELECT token, acquired FROM lock_acquire('tok', 60);
SELECT token = :token AS unchanged FROM lock_check('tok');
SELECT token = :token AS renewal_keeps_it FROM lock_renew('tok', 60);

-- release with a token
SELECT lock_release('tok', :token + 1), lock_release('tok', :token - 1), lock_release('tok', 1),
	lock_release('tok', 9007199254740991);
SELECT token = :token AS still_held FROM lock_check('tok');
SELECT lock_release('tok', :token);
SELECT held FROM lock_check('tok');
SELECT lock_release('tok', :token), lock_release('tok');

-- renewal with a token
SELECT token AS newer FROM lock_acquire('tok', 60) \gset
SELECT acquired, reason, timeout, token, holder ->> 'scope' AS holder_scope
FROM lock_renew('tok', 600, :token);
SELECT timeout FROM lock_check('tok');
SELECT acquired, reason, timeout, token = :newer AS same FROM lock_renew('tok', 600, :newer);
SELECT timeout FROM lock_check('tok');

-- the old holder can't end the new one's lock
SELECT lock_release('tok', :token);
SELECT token = :newer AS still_held FROM lock_check('tok');
-- a token is good for its own key only
SELECT lock_try('tok-2', 60) AS second \gset
SELECT lock_release('tok-2', :newer), lock_release('tok', :second);
-- null: whatever the token is
SELECT lock_release('tok', NULL), lock_release('tok-2', token => NULL);

-- a lost lock, with and without somebody else in its place
SELECT acquired, reason, holder FROM lock_renew('tok', 60);
SELECT acquired, reason, holder FROM lock_renew('tok', 60, :newer);
SELECT acquired, reason, holder FROM lock_renew('tok-never-taken', 60);

-- out of range
SELECT lock_release('tok', 0);
SELECT lock_release('tok', -1);
SELECT lock_release('tok', 9007199254740992);
SELECT lock_release('tok', 9223372036854775807);
SELECT lock_release('tok', -9223372036854775808);
SELECT lock_renew('tok', 60, 0);
SELECT lock_renew('tok', 60, 9007199254740992);
SELECT lock_release('tok', 9007199254740991), lock_release('tok', 1);

SELECT key FROM lockext_held ORDER BY 1;
DROP TABLE seen;
