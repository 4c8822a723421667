--
-- Updates of a row stay HOT: a cycle makes no index entry.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
CREATE PROCEDURE cycles(n integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..n LOOP
		PERFORM lock_acquire('hot', 60);
		COMMIT;
		PERFORM lock_renew('hot', 120);
		COMMIT;
		PERFORM lock_release('hot');
		COMMIT;
	END LOOP;
END $$;
SET synchronous_commit = off;
CALL cycles(1);
SELECT pg_stat_force_next_flush();
SELECT pg_stat_get_tuples_updated('lockext_lock'::regclass) AS updated,
	pg_stat_get_tuples_hot_updated('lockext_lock'::regclass) AS hot \gset before_
CALL cycles(200);
SELECT pg_stat_force_next_flush();
SELECT pg_stat_get_tuples_updated('lockext_lock'::regclass) - :before_updated AS updated,
	pg_stat_get_tuples_hot_updated('lockext_lock'::regclass) - :before_hot > 540 AS hot_in_nine_of_ten;
DROP PROCEDURE cycles;
