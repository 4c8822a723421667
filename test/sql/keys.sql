--
-- Keys: ^[A-Za-z0-9_-]{1,255}$, bytewise, case-sensitive, untrimmed
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET client_encoding = utf8;
\pset null '<NULL>'

-- what a statement fails with: SQLSTATE, message, detail and hint
CREATE FUNCTION pg_temp.fails(stmt text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE stmt;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || message,
					 '  ' || nullif(detail, ''), '  ' || nullif(hint, ''));
END $$;

-- accepted
SELECT v.key, r.acquired, r.reason, r.key = v.key AS same, r.domain = '' AS default_domain
FROM (VALUES (1, 'k'), (2, 'K'), (3, '0'), (4, '_'), (5, '-'), (6, '--'),
			 (7, 'db-migration-v2'), (8, 'Data_Sync-2024-01-20'), (9, '007'), (10, '7'),
			 (11, 'null'), (12, 'user-sync'), (13, 'user-syn'), (14, 'user_sync')) v(n, key),
	lock_acquire(v.key, 60) r
ORDER BY n;

-- each of them is a lock of its own, and held now
SELECT count(*), count(DISTINCT key) FROM lockext_held;
SELECT v.key, r.acquired, r.reason
FROM (VALUES (1, 'k'), (2, 'K'), (3, '007'), (4, '7'), (5, 'user-syn')) v(n, key),
	lock_acquire(v.key, 60) r
ORDER BY n;

-- no prefix, pattern or other spelling of a held key is held
SELECT v.key, (lock_check(v.key)).held
FROM (VALUES (1, 'db-migration-v2'), (2, 'db-migration-v'), (3, 'DB-MIGRATION-V2'),
			 (4, 'db_migration_v2'), (5, '07'), (6, '_-'), (7, 'user-sync')) v(n, key)
ORDER BY n;
SELECT count(*) AS released FROM lockext_held h WHERE lock_release(h.key);
SELECT count(*) FROM lockext_held;

-- 255 bytes, and the last of them counts
SELECT acquired, length(key) FROM lock_acquire(repeat('x', 255), 60);
SELECT acquired, reason FROM lock_acquire(repeat('x', 255), 60);
SELECT acquired, length(key) FROM lock_acquire(repeat('x', 254) || 'y', 60);
SELECT acquired, length(key) FROM lock_acquire(repeat('x', 254), 60);
SELECT key = repeat('x', 255) AS same, held FROM lock_check(repeat('x', 255));
SELECT lock_release(repeat('x', 255)), lock_release(repeat('x', 254) || 'y'),
	lock_release(repeat('x', 254)), lock_release(repeat('x', 253));

-- of all single characters up to U+00FF, these are keys
SELECT count(*), string_agg(chr(c), '' ORDER BY c)
FROM generate_series(1, 255) c, lateral pg_temp.fails(format('SELECT lock_release(%L)', chr(c))) f
WHERE f = 'no error';

-- and these are the only ones allowed at the start, in the middle and at the end
SELECT at, count(*), count(*) FILTER (WHERE f LIKE '22023: invalid value for argument "key": %') AS refused
FROM generate_series(1, 255) c,
	(VALUES (1, 'start', '%sab'), (2, 'middle', 'a%sb'), (3, 'end', 'ab%s')) p(n, at, pattern),
	lateral pg_temp.fails(format('SELECT lock_try(%L)', format(pattern, chr(c)))) f
WHERE chr(c) !~ '^[A-Za-z0-9_-]$'
GROUP BY n, at ORDER BY n;

-- rejected, by every function that takes a key
\pset format unaligned
\pset tuples_only on
SELECT pg_temp.fails(format('SELECT lock_acquire(%L)', key))
FROM (VALUES (1, ''), (2, ' '), (3, 'k '), (4, ' k'), (5, 'a b'), (6, E'k\n'), (7, E'\tk'),
			 (8, 'file-processing-large-data-file.csv'), (9, 'a/b'), (10, 'a:b'), (11, 'a''b'),
			 (12, 'a"b'), (13, 'a;b'), (14, 'a%b'), (15, 'a\b'), (16, U&'schl\00FCssel'),
			 (17, U&'\FF4B'), (18, U&'\200Bk'), (19, repeat('x', 256)), (20, repeat('x', 100000)),
			 (21, repeat(U&'\00FC', 128))) v(n, key)
ORDER BY n;
SELECT stmt, pg_temp.fails(stmt)
FROM (VALUES (1, $$SELECT lock_acquire(NULL)$$), (2, $$SELECT lock_try(NULL)$$),
			 (3, $$SELECT lock_try('k ')$$), (4, $$SELECT lock_release(NULL)$$),
			 (5, $$SELECT lock_release('k ')$$), (6, $$SELECT lock_renew(NULL, 60)$$),
			 (7, $$SELECT lock_renew('k ', 60)$$), (8, $$SELECT lock_check(NULL)$$),
			 (9, $$SELECT lock_check('k ')$$), (10, $$SELECT lock_break(NULL)$$),
			 (11, $$SELECT lock_break('k ')$$)) v(n, stmt)
ORDER BY n;
\pset tuples_only off
\pset format aligned

-- none of this took a lock
SELECT key, domain FROM lockext_held ORDER BY 1, 2;
