--
-- A database with encoding SQL_ASCII, where texts have the bytes that clients
-- send: what messages show of a long text ends between two characters.
--
SELECT current_database() AS regression \gset
CREATE DATABASE regress_lockext_ascii TEMPLATE template0 LOCALE 'C' ENCODING 'SQL_ASCII';
\c regress_lockext_ascii
SET client_min_messages = warning;
CREATE EXTENSION lockext;
RESET client_min_messages;
SET client_encoding = utf8;
SHOW server_encoding;
\pset format unaligned

-- what the client cannot read it would not be sent
SELECT lock_try('k', 60, domain => d) IS NOT NULL AS acquired, octet_length(d) AS bytes
FROM (SELECT repeat('x', 62) || repeat('é', 50)) v(d);
\set VERBOSITY terse
SELECT lock_event('TryLock', '{"id": "k"}', jsonb_build_object('domain', repeat('x', 62) || repeat('é', 50)));

-- characters of two, three and four bytes, wherever the cut would be: what is
-- shown is text in UTF8, ends before or after all of them, and is no shorter
-- than it must be
CREATE FUNCTION pg_temp.shown(domain text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lock_try('k', 60, domain => domain);
	PERFORM lock_event('TryLock', '{"id": "k"}', jsonb_build_object('domain', domain));
EXCEPTION WHEN lock_not_available THEN
	RETURN convert_from(convert_to(substring(SQLERRM, 'in domain "(.*)"$'), 'SQL_ASCII'), 'UTF8');
END $$;
SELECT c, n, pg_temp.shown(repeat('x', n) || repeat(c, 20) || repeat('y', 60)) = repeat('x', n) || '...' AS before
FROM unnest('{é,中,😀}'::text[]) WITH ORDINALITY u(c, i), generate_series(59, 62) n
ORDER BY i, n;
SELECT c, n, pg_temp.shown(repeat('x', n) || c || repeat('y', 60)) = repeat('x', n) || c || repeat('y', 63 - n - octet_length(c)) || '...' AS after
FROM unnest('{é,中,😀}'::text[]) WITH ORDINALITY u(c, i), generate_series(57, 59) n
ORDER BY i, n;
SELECT pg_temp.shown(repeat('слово ', 10));
SELECT pg_temp.shown(repeat('中', 80));
-- short enough to be shown whole
SELECT pg_temp.shown(repeat('中', 21));

\set VERBOSITY default
\c :regression
DROP DATABASE regress_lockext_ascii;
