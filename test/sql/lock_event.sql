--
-- lock_event(): TryLock, Unlock and CheckLock over an event's payload
--
-- Waiting for a lock is tested here with a prepared transaction as the holder.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET client_encoding = utf8;
SET application_name = 'event test';
\pset null '<NULL>'
\pset format unaligned
\pset footer off

-- the details of a refusal: who holds the lock, another session or this one
SELECT lock_event('TryLock', '{"id": "e-1"}');
\c -
SET application_name = 'event test';
SET client_encoding = utf8;
CREATE FUNCTION pg_temp.refusal() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN lock_event('TryLock', '{"id": "e-1"}');
EXCEPTION WHEN lock_not_available THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN replace(regexp_replace(regexp_replace(detail, 'process \d+', 'process N'), '\d{4}-\d\d-[^;.]*[.]\d+[-+]\d+', 'T'), current_user, 'me')
		|| E'\n' || hint;
END $$;
SELECT pg_temp.refusal();
SELECT lock_event('Unlock', '{"id": "e-1"}');
SELECT lock_event('TryLock', '{"id": "e-1"}');
SELECT pg_temp.refusal();
SELECT lock_event('Unlock', '{"id": "e-1"}');

-- what a call returns, or fails with
CREATE FUNCTION pg_temp.event(action text, payload jsonb, meta jsonb DEFAULT '{}') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
BEGIN
	RETURN lock_event(action, payload, meta);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	-- the detail of 55P03 has a process and a time
	RETURN concat_ws(' / ', SQLSTATE || ': ' || message, CASE WHEN SQLSTATE <> '55P03' THEN nullif(detail, '') END);
END $$;

-- release whatever is held; how many locks that was
CREATE FUNCTION pg_temp.release_all() RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM (SELECT domain, key, master FROM lockext_held OFFSET 0) h
	WHERE lock_event('Unlock', jsonb_build_object('id', h.key),
					 jsonb_build_object('domain', h.domain, 'parameters', jsonb_build_object('master', h.master))) IS NOT NULL
$$;

-- what this session holds after all, tables aside
CREATE VIEW my_locks AS
	SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';

--
-- The three actions
--
SELECT lock_event('CheckLock', '{"id": "e-1", "kept": [1, {"x": null}]}');
SELECT lock_event('TryLock', '{"id": "e-1", "kept": [1, {"x": null}]}');
SELECT domain, key, owner = current_user AS mine, scope, calling_fn, timeout, data FROM lockext_held;
SELECT lock_event('CheckLock', '{"id": "e-1"}');
-- refused: an error, or with allowNoLock a result
\set VERBOSITY sqlstate
SELECT lock_event('TryLock', '{"id": "e-1"}');
\set VERBOSITY default
SELECT pg_temp.event('TryLock', '{"id": "e-1"}');
SELECT pg_temp.event('TryLock', '{"id": "e-1"}', '{"parameters": {"allowNoLock": false}}');
SELECT pg_temp.event('TryLock', '{"id": "e-1"}', '{"parameters": {"allowNoLock": true}}');
-- Unlock returns the payload, whether or not there was anything to unlock
SELECT lock_event('Unlock', '{"id": "e-1", "kept": 1}');
SELECT lock_event('CheckLock', '{"id": "e-1"}');
SELECT lock_event('Unlock', '{"id": "e-1", "locked": "kept"}');
SELECT lock_event('Unlock', '{"id": "e-never"}', '{"outputElement": "result", "domain": "d"}');
-- the result takes the place of an older one
SELECT lock_event('TryLock', '{"id": "e-1", "locked": false, "a": 1}');
SELECT lock_event('CheckLock', '{"id": "e-1", "locked": {"any": "thing"}, "z": 2}');
-- the example of the documentation
SELECT lock_event('TryLock', '{"parameters": {"id": "doc-1", "x": 1}}', '{"inputElement": "parameters", "outputElement": "result"}');
SELECT lock_event('CheckLock', '{"parameters": {"id": "doc-1"}}', '{"inputElement": "parameters", "outputElement": "result"}');
SELECT lock_event('Unlock', '{"parameters": {"id": "doc-1"}}', '{"inputElement": "parameters"}');
SELECT lock_event('CheckLock', '{"parameters": {"id": "doc-1"}}', '{"inputElement": "parameters", "outputElement": "result"}');
-- the label is found like that of lock_acquire()
CREATE FUNCTION pg_temp."eventHandler"() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN lock_event('TryLock', '{"id": "e-fn"}');
END $$;
SELECT pg_temp."eventHandler"(), (lock_check('e-fn')).calling_fn;
SELECT pg_temp.release_all();

-- an action is one of three
SELECT v.action, pg_temp.event(v.action, '{"id": "e-1"}')
FROM (VALUES (1, NULL), (2, ''), (3, 'trylock'), (4, 'TRYLOCK'), (5, 'TryLock '), (6, 'Lock'), (7, 'Try'), (8, 'TryLockUnlock'), (9, 'acquire')) v(n, action)
ORDER BY n;
-- payload and event_meta
SELECT pg_temp.event('TryLock', NULL);
SELECT pg_temp.event('TryLock', '{"id": "e-0"}', NULL) AS "as {}";
SELECT v.meta, pg_temp.event('TryLock', '{"id": "e-1"}', v.meta::jsonb)
FROM (VALUES (1, 'null'), (2, '[]'), (3, '[{"domain": "d"}]'), (4, '5'), (5, '"d"'), (6, 'true'), (7, '{}')) v(n, meta)
ORDER BY n;
SELECT v.payload, pg_temp.event('TryLock', v.payload::jsonb) AS "TryLock", pg_temp.event('Unlock', v.payload::jsonb) AS "Unlock"
FROM (VALUES (1, 'null'), (2, '[]'), (3, '[{"id": "e-2"}]'), (4, '5'), (5, '"e-2"'), (6, 'true'), (7, '{}')) v(n, payload)
ORDER BY n;
SELECT key FROM lockext_held ORDER BY key;
SELECT pg_temp.release_all();

--
-- Input and output elements
--

-- Each input element with each output element and each payload.  The lock is not
-- held when an error is raised, and is when not.
CREATE FUNCTION pg_temp.tried(payload jsonb, meta jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text := pg_temp.event('TryLock', payload, meta);
	held text[] := array(SELECT key FROM lockext_held ORDER BY key COLLATE "C");
BEGIN
	PERFORM pg_temp.release_all();
	IF (result LIKE '{%') <> (held <> '{}') THEN
		RETURN format('%s, and held is %s', result, held);
	END IF;
	RETURN array_to_string(held || replace(result, ' / Input and output elements are objects, and so is what they are in.', ''), ': ');
END $$;
SELECT p.payload, string_agg(coalesce(i.input, 'NULL'), ' ' ORDER BY i.n) AS "inputElement", o.output AS "outputElement", r.result
FROM (VALUES (1, '{"id": 1, "a": {"id": 2, "b": {"id": 3}}}'), (2, '{"id": 1, "a": {"b": 5, "x": [7]}}'), (3, '{"id": 1, "a": null}')) p(n, payload),
	(VALUES (1, NULL), (2, '-'), (3, '$'), (4, 'a'), (5, '$.a'), (6, 'a.b'), (7, '$.a.b.c')) i(n, input),
	(VALUES (1, NULL), (2, '-'), (3, '$'), (4, 'r'), (5, '$.r'), (6, 'r.s.t'), (7, 'a.r'), (8, '$.a'), (9, 'b'), (10, '$.a.b')) o(n, output),
	pg_temp.tried(p.payload::jsonb, jsonb_strip_nulls(jsonb_build_object('inputElement', i.input, 'outputElement', o.output))) r(result)
GROUP BY p.n, p.payload, o.n, o.output, r.result
ORDER BY p.n, min(i.n), o.n;
-- more of what may be in the way
SELECT v.payload, v.input AS "inputElement", v.output AS "outputElement",
	pg_temp.tried(v.payload::jsonb, jsonb_strip_nulls(jsonb_build_object('inputElement', v.input, 'outputElement', v.output))) AS result
FROM (VALUES
	(1, '{"id": 1, "r": "text"}', NULL, 'r'),
	(2, '{"id": 1, "r": "text"}', NULL, 'r.s'),
	(3, '{"id": 1, "r": 1.5}', NULL, 'r.s.t'),
	(4, '{"id": 1, "r": false}', NULL, 'r'),
	(5, '{"id": 1, "r": []}', NULL, 'r'),
	(6, '{"id": 1, "r": [{"s": {}}]}', NULL, 'r.s'),
	(7, '{"id": 1, "r": [{"s": {}}]}', NULL, 'r.0'),
	(8, '{"id": 1, "r": null}', NULL, 'r'),
	(9, '{"id": 1, "r": {"s": null}}', NULL, 'r.s'),
	(10, '{"id": 1, "r": {"s": {}}}', NULL, 'r.s'),
	(11, '{"id": 1, "r": {}}', NULL, 'r'),
	(12, '{"id": 1}', NULL, 'id'),
	(13, '{"id": 1}', NULL, 'id.x'),
	(14, '{"id": 1}', NULL, 'locked'),
	(15, '{"id": 1, "locked": true}', NULL, 'locked'),
	(16, '{"in": "id"}', 'in', NULL),
	(17, '{"in": ["id"]}', 'in', NULL),
	(18, '{"in": [{"id": 1}]}', 'in', NULL),
	(19, '{"in": [{"id": 1}]}', 'in.0', NULL),
	(20, '{"in": {"x": {"id": 1}, "y": {"z": 2}}}', 'in.x', '$.in.y'),
	(21, '{"in": {"x": {"id": 1}, "y": {"z": 2}}}', 'in.x', '$.in.y.z'),
	(22, '{"in": {"x": {"id": 1}, "y": {"z": 2}}}', 'in.x', '$.out.y'),
	(23, '{"in": {"x": {"id": 1}, "y": {"z": 2}}}', 'in.x', 'in.y'),
	(24, '{"in": {"x": {"id": 1}, "y": {"z": 2}}}', 'in.y', NULL),
	(25, '{"In": {"id": 1}}', 'in', NULL)) v(n, payload, input, output)
ORDER BY n;

-- names of members, and what is none
SELECT v.input AS "inputElement", pg_temp.tried(v.payload::jsonb, jsonb_build_object('inputElement', v.input)) AS result
FROM (VALUES
	(1, '', '{"id": 1, "": {"id": 2}}'),
	(2, '.', '{"id": 1, "": {"": {"id": 2}}}'),
	(3, 'a.', '{"a": {"": {"id": 2}}}'),
	(4, '.a', '{"a": {"id": 2}}'),
	(5, 'a..b', '{"a": {"b": {"id": 2}, "": {"b": {"id": 3}}}}'),
	(6, '$.', '{"id": 1, "": {"id": 2}}'),
	(7, '$..a', '{"a": {"id": 2}}'),
	(8, '$.a.', '{"a": {"id": 2}}'),
	(9, '$a', '{"$a": {"id": 2}}'),
	(10, '$$', '{"$$": {"id": 2}}'),
	(11, 'a.$', '{"a": {"$": {"id": 2}}}'),
	(12, 'a.$.b', '{"a": {"$": {"b": {"id": 2}}}, "b": {"id": 3}}'),
	(13, '$.$', '{"$": {"id": 2}}'),
	(14, '$.$.a', '{"$": {"a": {"id": 2}}, "a": {"id": 3}}'),
	(15, '--', '{"id": 1, "--": {"id": 2}}'),
	(16, '-.a', '{"-": {"a": {"id": 2}}}'),
	(17, '$.-', '{"id": 1, "-": {"id": 2}}'),
	(18, ' ', '{"id": 1, " ": {"id": 2}}'),
	(19, 'a b', '{"a b": {"id": 2}}'),
	(20, '0', '{"0": {"id": 2}}'),
	(21, U&'b\00E9', U&'{"b\00E9": {"id": 2}}'),
	(22, 'a"b', '{"a\"b": {"id": 2}}'),
	(23, 'a[0]', '{"a": [{"id": 2}], "a[0]": {"id": 3}}'),
	(24, 'id', '{"id": {"id": 2}}')) v(n, input, payload)
ORDER BY n;
SELECT v.output AS "outputElement", pg_temp.tried('{"id": 1, "a": {}}', jsonb_build_object('inputElement', v.input, 'outputElement', v.output)) AS result
FROM (VALUES (1, '-', ''), (2, '-', '.'), (3, '-', 'a.'), (4, '-', '.a'), (5, '-', 'a..b'), (6, '-', '$.'), (7, '-', '$..a'), (8, '-', '$.a.'),
			 (9, '-', '$a'), (10, '-', 'a.$'), (11, '-', 'a.$.b'), (12, '-', '$.$'), (13, '-', '--'), (14, '-', 'a.-'), (15, '-', '-.a'), (16, '-', ' '),
			 (17, '-', 'a."b'), (18, '-', U&'\00E9.\00E9'), (19, '-', 'a.b.c.d.e.f'), (20, '-', '$.a.b.c')) v(n, input, output)
ORDER BY n;
-- a hundred names are enough
SELECT (lock_event('TryLock', '{"id": 1}', jsonb_build_object('outputElement', repeat('a.', 99) || 'a'))
		#> string_to_array(repeat('a.', 99) || 'a', '.'))::text;
SELECT pg_temp.event('Unlock', '{"id": 1}');
SELECT pg_temp.tried('{"id": 1}', jsonb_build_object('outputElement', repeat('a.', 100) || 'a'));
SELECT pg_temp.tried('{"id": 1}', jsonb_build_object('inputElement', repeat('a.', 100) || 'a'));
SELECT pg_temp.tried('{"a": {"id": 1}}', jsonb_build_object('inputElement', 'a', 'outputElement', repeat('a.', 99) || 'a'));
SELECT length(pg_temp.tried('{"a": {"id": 1}}', jsonb_build_object('inputElement', 'a', 'outputElement', '$.' || repeat('a.', 99) || 'b'))) > 100 AS enough;

-- siblings are kept as they are, and so are the digits of numbers
SELECT lock_event('TryLock', '{"id": "e-1", "a": 1.10, "b": 1e2, "c": 100000000000000000000.000, "d": -0.00, "e": 1E-7, "f": "\u00e9\u2028\"\\",
	"g": [null, [], {}, {"": ""}], "": {"": 1.50}, "h": {"i": {"j": 0.10}, "k": true}}', '{"outputElement": "h.i"}');
SELECT lock_event('CheckLock', p.payload) = p.payload || '{"locked": true}' AS kept, pg_column_size(p.payload) > 100000 AS large
FROM (SELECT jsonb_build_object('id', 'e-1', 'n', jsonb_agg(i), 'o', jsonb_object_agg(i, repeat('x', i % 50))) FROM generate_series(1, 10000) i) p(payload);
SELECT lock_event('Unlock', p.payload) = p.payload AS same
FROM (SELECT jsonb_build_object('id', 'e-1', 'n', jsonb_agg(i)) FROM generate_series(1, 10000) i) p(payload);
-- also of a payload that is stored compressed, or elsewhere
CREATE TEMP TABLE events (n integer, payload jsonb);
INSERT INTO events SELECT 1, jsonb_build_object('id', 'e-1', 'x', repeat('x', 100000));
INSERT INTO events SELECT 2, jsonb_build_object('id', 'e-2', 'x', string_agg(md5(i::text), '')) FROM generate_series(1, 1000) i;
SELECT n, lock_event('TryLock', payload) = payload || '{"locked": true}' AS same FROM events ORDER BY n;
SELECT n, lock_event('Unlock', payload) = payload AS same FROM events ORDER BY n;

-- a bad output element leaves no lock behind, nor the trace of one
BEGIN;
SELECT pg_temp.event('TryLock', '{"id": "e-1", "r": 5}', '{"outputElement": "r.s"}');
SELECT pg_temp.event('TryLock', '{"id": "e-1"}', '{"outputElement": "r..s"}');
SELECT pg_temp.event('TryLock', '{"r": 5}', '{"outputElement": "r", "parameters": {"master": true, "allowNoLock": true}}');
SELECT * FROM my_locks;
SELECT key FROM lockext_held;
COMMIT;
SELECT count(*) FROM lockext_held;
-- nor does it matter whether the lock is held
SELECT lock_event('TryLock', '{"id": "e-1"}', '{"outputElement": "-"}');
SELECT pg_temp.event('TryLock', '{"id": "e-1", "r": 5}', '{"outputElement": "r", "parameters": {"allowNoLock": true}}');
SELECT pg_temp.event('CheckLock', '{"id": "e-1", "r": 5}', '{"outputElement": "r"}');
-- Unlock writes nothing, so there is nothing in the way
SELECT pg_temp.event('Unlock', '{"id": "e-1", "r": 5}', '{"outputElement": "r.s"}');
SELECT count(*) FROM lockext_held;

--
-- Ids
--
SELECT v.id, pg_temp.tried(('{"id": ' || v.id || '}')::jsonb, '{"outputElement": "-"}') AS result
FROM (VALUES
	(10, '"text"'), (11, '"Text"'), (12, '"a.b c/d:e"'), (13, '" "'), (14, '"\t\n"'), (15, '"\u00e9\u4e2d\ud83d\ude00"'), (16, '"$"'), (17, '"-"'),
	(18, '"null"'), (19, '"--"'), (20, '"\"quoted\""'), (21, '"{}"'),
	(30, '123'), (31, '-123'), (32, '0'), (33, '1.10'), (34, '1.1'), (35, '1e3'), (36, '1000'), (37, '1E-3'), (38, '-0'), (39, '12345678901234567890123456789.50'),
	(40, '1e254'), (41, '1e255'), (42, '1e1000'), (43, '1e-253'), (44, '1e-254'),
	(50, 'true'), (51, 'false'),
	(60, 'null'), (61, '""'), (62, '{}'), (63, '{"id": 1}'), (64, '[]'), (65, '["text"]'), (66, '[1]')) v(n, id)
ORDER BY n;
SELECT pg_temp.tried('{"x": {"Id": 1, "ID": 2, "i": 3}}', '{"inputElement": "x"}') AS missing;
-- 1 to 255 bytes
SELECT v.shown, length(pg_temp.tried(jsonb_build_object('id', v.id), '{"outputElement": "-"}')) > 500 AS taken, (pg_temp.tried(jsonb_build_object('id', v.id), '{"outputElement": "-"}')) ~ '^22023' AS refused
FROM (VALUES (1, '255 bytes', repeat('i', 255)), (2, '256 bytes', repeat('i', 256)), (3, '254 bytes of 127 characters', repeat(U&'\00E9', 127)),
			 (4, '256 bytes of 128 characters', repeat(U&'\00E9', 128)), (5, '255 bytes of 85 characters', repeat(U&'\4E2D', 85)),
			 (6, '258 bytes of 86 characters', repeat(U&'\4E2D', 86)), (7, '256 bytes of -', repeat('-', 256))) v(n, shown, id)
ORDER BY n;
SELECT pg_temp.event('TryLock', jsonb_build_object('id', repeat(U&'\00E9', 128)));
-- an id is a text: 123 is "123", true is "true"; 1.10 and 1.1 are two
SELECT lock_event('TryLock', '{"id": 123}') AS number, pg_temp.event('TryLock', '{"id": "123"}') AS text, pg_temp.event('TryLock', '{"id": 123.0}') AS other;
SELECT lock_event('TryLock', '{"id": "true"}') AS text, lock_event('CheckLock', '{"id": true}') AS "boolean", lock_event('CheckLock', '{"id": "TRUE"}') AS other;
SELECT lock_event('TryLock', '{"id": 1.10}') AS number, lock_event('CheckLock', '{"id": "1.10"}') AS text, lock_event('CheckLock', '{"id": 1.1}') AS other;
SELECT lock_event('TryLock', '{"id": 1e3}') AS number, lock_event('CheckLock', '{"id": "1000"}') AS text, lock_event('CheckLock', '{"id": "1e3"}') AS other;
SELECT key FROM lockext_held ORDER BY key COLLATE "C";
SELECT lock_event('Unlock', '{"id": "123"}') AS text, lock_event('Unlock', '{"id": true}') AS "boolean";
SELECT key FROM lockext_held ORDER BY key COLLATE "C";
SELECT pg_temp.release_all();
-- the id of the input element counts, not another one
SELECT lock_event('TryLock', '{"id": "outer", "in": {"id": "inner"}}', '{"inputElement": "in"}');
SELECT key FROM lockext_held;
SELECT pg_temp.event('TryLock', '{"id": "outer", "in": {}}', '{"inputElement": "in"}');
SELECT pg_temp.release_all();
-- options are never read from the payload
SELECT lock_event('TryLock', '{"id": "e-1", "master": true, "domain": "d", "parameters": {"master": true, "expiry": 0, "timeout": "x"}, "eventMeta": {"domain": "d"}}');
SELECT domain, key, master, timeout FROM lockext_held;
SELECT pg_temp.release_all();

--
-- lock_break(): any id, if there is such a lock
--
SELECT v.key, lock_event('TryLock', jsonb_build_object('id', v.key), '{"outputElement": "-"}') IS NOT NULL AS taken, lock_break(v.key) AS broken
FROM (VALUES (1, 'e 1'), (2, ' '), (3, '1.10'), (4, U&'\00E9\4E2D'), (5, 'a/b:c@d'), (6, '"'), (7, 'plain')) v(n, key)
ORDER BY n;
SELECT lock_event('TryLock', jsonb_build_object('id', repeat('.', 255)), '{"outputElement": "-"}') IS NOT NULL AS taken,
	lock_event('TryLock', jsonb_build_object('id', repeat(U&'\00E9', 127)), '{"outputElement": "-"}') IS NOT NULL AS taken;
SELECT lock_break(repeat('.', 255)), lock_break(repeat(U&'\00E9', 127));
SELECT lock_event('TryLock', '{"id": "e 1"}', '{"domain": "d 1"}');
SELECT lock_break('e 1', domain => 'd 1');
SELECT count(*) FROM lockext_held;
-- if there is none: false for a key, an error for what could only be an id
SELECT lock_break('plain');
SELECT lock_break('e 1');
SELECT lock_break('e 1', domain => 'd 1');
SELECT lock_break(repeat(U&'\00E9', 127));
-- as for what no lock can have
SELECT lock_break('');
SELECT lock_break(repeat('.', 256));
SELECT lock_break(repeat(U&'\00E9', 128));
SELECT lock_break(NULL);
-- rolled back, as others are
SELECT lock_event('TryLock', '{"id": "e 1"}');
BEGIN;
SELECT lock_break('e 1');
SELECT lock_event('CheckLock', '{"id": "e 1"}');
ROLLBACK;
SELECT lock_event('CheckLock', '{"id": "e 1"}');
-- the other functions go by the rule for keys
SELECT lock_release('e 1');
SELECT lock_check('e 1');
SELECT lock_request('{"operation": "release", "key": "e 1"}') ->> 'code' AS code;
SELECT key, held FROM lockext_held;
SELECT lock_break('e 1');
SELECT count(*) FROM lockext_held;

--
-- Domain and master
--
SELECT lock_event('TryLock', '{"id": "e-1"}', '{"domain": "orders"}'), lock_event('CheckLock', '{"id": "e-1"}') AS default_domain,
	lock_event('CheckLock', '{"id": "e-1"}', '{"domain": "Orders"}') AS other;
SELECT lock_event('TryLock', '{"id": "e-1"}', '{"domain": ""}'), lock_event('CheckLock', '{"id": "e-1"}', '{"domain": null}') AS default_domain;
-- the master lock is a slot of its own: it excludes no id, nor does an id exclude it
SELECT lock_event('TryLock', '{"id": "e-1"}', '{"domain": "orders", "parameters": {"master": true}}');
SELECT pg_temp.event('TryLock', '{"id": "e-2"}', '{"domain": "orders", "parameters": {"master": true}}');
SELECT pg_temp.event('TryLock', '{"id": "e-2"}', '{"domain": "orders", "parameters": {"master": false}}');
SELECT pg_temp.event('TryLock', '{"id": "e-1"}', '{"domain": "orders", "parameters": {"master": null}}');
SELECT pg_temp.event('TryLock', '{}', '{"parameters": {"master": true}}') AS default_domain;
SELECT domain, key, master FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;
-- an id is neither needed nor read
SELECT v.payload, v.meta, pg_temp.event('CheckLock', v.payload::jsonb, v.meta::jsonb || '{"domain": "orders", "parameters": {"master": true}}') AS "CheckLock",
	pg_temp.event('Unlock', v.payload::jsonb, v.meta::jsonb || '{"domain": "none", "parameters": {"master": true}}') AS "Unlock"
FROM (VALUES
	(1, '{}', '{}'),
	(2, '{"id": null}', '{}'),
	(3, '{"id": {"x": 1}}', '{}'),
	(4, '{"id": ""}', '{}'),
	(5, '{}', '{"inputElement": "a.b"}'),
	(6, '{"a": {"b": {"id": [1]}}}', '{"inputElement": "a.b", "outputElement": "r"}'),
	(7, '{"a": 5}', '{"inputElement": "a", "outputElement": "-"}'),
	(8, '{"a": 5}', '{"inputElement": "a.b", "outputElement": "$.r"}'),
	(9, '{"a": 5}', '{"inputElement": "a"}'),
	(10, '5', '{"outputElement": "-"}'),
	(11, 'null', '{"outputElement": "-"}'),
	(12, '[1]', '{"outputElement": "r"}'),
	(13, '5', '{}')) v(n, payload, meta)
ORDER BY n;
SELECT lock_event('Unlock', '{"id": "e-2"}', '{"domain": "orders", "parameters": {"master": true}}');
SELECT domain, key, master FROM lockext_held ORDER BY domain COLLATE "C", key COLLATE "C" NULLS FIRST;
SELECT pg_temp.release_all();
SELECT pg_temp.event('TryLock', '{"id": 1}', jsonb_build_object('domain', repeat('d', 256)));
SELECT pg_temp.tried('{"id": 1}', jsonb_build_object('outputElement', '-', 'domain', repeat('d', 255)));

--
-- Members of event_meta
--
SELECT v.meta, pg_temp.event('TryLock', '{"id": "e-meta"}', v.meta::jsonb) AS "TryLock", pg_temp.event('Unlock', '{"id": "e-meta"}', v.meta::jsonb) AS "Unlock",
	pg_temp.event('CheckLock', '{"id": "e-meta"}', v.meta::jsonb) AS "CheckLock"
FROM (VALUES
	(10, '{"domain": 5}'), (11, '{"domain": ["d"]}'), (12, '{"domain": true}'), (13, '{"domain": {}}'),
	(20, '{"inputElement": 5}'), (21, '{"inputElement": ["a"]}'), (22, '{"inputElement": false}'),
	(30, '{"outputElement": 5}'), (31, '{"outputElement": {"a": 1}}'),
	(40, '{"parameters": 5}'), (41, '{"parameters": []}'), (42, '{"parameters": "master"}'), (43, '{"parameters": true}'),
	(50, '{"parameters": {"master": "true"}}'), (51, '{"parameters": {"master": 1}}'), (52, '{"parameters": {"master": {}}}'),
	(60, '{"parameters": {"timeout": "0"}}'), (61, '{"parameters": {"timeout": 0.5}}'), (62, '{"parameters": {"timeout": 1e400}}'), (63, '{"parameters": {"timeout": [0]}}'),
	(70, '{"parameters": {"expiry": "10"}}'), (71, '{"parameters": {"expiry": 1.5}}'), (72, '{"parameters": {"expiry": true}}'), (73, '{"parameters": {"expiry": -1e400}}'),
	(80, '{"parameters": {"allowNoLock": "yes"}}'), (81, '{"parameters": {"allowNoLock": 0}}'),
	(90, '{"Domain": "d"}'), (91, '{"nonsense": null}'), (92, '{"": 1}'), (93, '{"timeout": 5}'), (94, '{"master": true}'), (95, '{"id": 1}'),
	(96, '{"parameters": {"domain": "d"}}'), (97, '{"parameters": {"Master": true}}'), (98, '{"parameters": {"ttl": null}}'),
	(99, '{"parameters": {"parameters": {}}}'), (100, '{"eventMeta": {}}')) v(n, meta)
ORDER BY n;
-- null is absent
SELECT v.meta, pg_temp.tried('{"id": "e-meta"}', v.meta::jsonb)
FROM (VALUES (1, '{"domain": null, "inputElement": null, "outputElement": null, "parameters": null}'), (2, '{"parameters": {}}'),
			 (3, '{"parameters": {"master": null, "timeout": null, "expiry": null, "allowNoLock": null}}')) v(n, meta)
ORDER BY n;
-- the same metadata does for all three actions
SELECT v.action, lock_event(v.action, '{"in": {"id": "e-meta"}}',
	'{"domain": "d", "inputElement": "in", "outputElement": "$.out", "parameters": {"master": false, "timeout": 10, "expiry": 60000, "allowNoLock": true}}')
FROM (VALUES (1, 'TryLock'), (2, 'TryLock'), (3, 'CheckLock'), (4, 'Unlock'), (5, 'CheckLock')) v(n, action)
ORDER BY n;

-- what an action has no use for is checked for its type only; Unlock has none for outputElement
SELECT v.meta, pg_temp.event('TryLock', '{"id": "e-meta"}', v.meta::jsonb) AS "TryLock", pg_temp.event('Unlock', '{"id": "e-meta"}', v.meta::jsonb) AS "Unlock",
	pg_temp.event('CheckLock', '{"id": "e-meta"}', v.meta::jsonb) AS "CheckLock"
FROM (VALUES (1, '{"parameters": {"expiry": 0}}'), (2, '{"parameters": {"expiry": 86400000}}'), (3, '{"parameters": {"timeout": -2}}'),
			 (4, '{"parameters": {"timeout": 9999999999}}'), (5, '{"outputElement": "r..s"}')) v(n, meta)
ORDER BY n;
SELECT lock_event('TryLock', '{"id": "e-meta"}');
SET lockext.default_expiry = '2h';
SELECT pg_temp.event('CheckLock', '{"id": "e-meta"}'), pg_temp.event('Unlock', '{"id": "e-meta"}');
RESET lockext.default_expiry;
SELECT count(*) FROM lockext_held;
SELECT pg_temp.release_all();

-- expiry, in milliseconds
SELECT v.expiry, v.result, h.timeout, h.expires_at - h.acquired_at AS lifetime
FROM (SELECT n, expiry, pg_temp.event('TryLock', jsonb_build_object('id', 'e-expiry-' || n), ('{"outputElement": "-", "parameters": {"expiry": ' || expiry || '}}')::jsonb) AS result
	FROM (VALUES (1, '-1'), (2, '0'), (3, '-2'), (4, '1500'), (5, '3600000'), (6, '3600001'), (7, '60000.0'), (8, '1e4'), (9, '9223372036854775807'),
				 (10, '-9223372036854775808'), (11, '9223372036854775808'), (12, '4294967297000'), (13, 'null')) v(n, expiry)
	ORDER BY n OFFSET 0) v, lock_check('e-expiry-' || v.n) h
ORDER BY n;
SELECT pg_temp.release_all() > 0 AS released;
-- one millisecond is soon over
SELECT lock_event('TryLock', '{"id": "e-short"}', '{"parameters": {"expiry": 1}}');
SELECT pg_sleep(0.01);
SELECT lock_event('CheckLock', '{"id": "e-short"}');
SELECT lock_event('TryLock', '{"id": "e-short"}', '{"parameters": {"expiry": 60000}}');
SELECT timeout, expires_at - acquired_at AS lifetime FROM lock_check('e-short');
-- a refusal does not extend the holder's lifetime
SELECT expires_at AS ends FROM lock_check('e-short') \gset
SELECT lock_event('TryLock', '{"id": "e-short"}', '{"parameters": {"expiry": 3600000, "allowNoLock": true}}');
SELECT expires_at = :'ends' AS same_end FROM lock_check('e-short');
SELECT pg_temp.release_all();
SET lockext.max_timeout = 10;
SELECT pg_temp.event('TryLock', '{"id": "e-max"}', '{"parameters": {"expiry": 10001}}'), pg_temp.event('TryLock', '{"id": "e-max"}', '{"parameters": {"expiry": 10000}}');
SELECT timeout FROM lock_check('e-max');
RESET lockext.max_timeout;
SELECT pg_temp.release_all();
-- by default the setting's
SET lockext.default_expiry = 2500;
SELECT lock_event('TryLock', '{"id": "e-default"}'), (lock_check('e-default')).timeout;
SELECT lock_event('TryLock', '{"id": "e-default-2"}', '{"parameters": {"expiry": -1}}'), (lock_check('e-default-2')).timeout;
SELECT lock_event('TryLock', '{"id": "e-default-3"}', '{"parameters": {"expiry": 1000}}'), (lock_check('e-default-3')).timeout;
-- which is no matter of lockext.default_timeout, and bounded too
SET lockext.default_timeout = 7;
SELECT lock_event('TryLock', '{"id": "e-default-4"}'), (lock_check('e-default-4')).timeout;
RESET lockext.default_expiry;
SELECT lock_event('TryLock', '{"id": "e-default-5"}'), (lock_check('e-default-5')).timeout;
RESET lockext.default_timeout;
SELECT pg_temp.release_all();
SET lockext.default_expiry = '2h';
SELECT lock_event('TryLock', '{"id": "e-default"}');
RESET lockext.default_expiry;

-- timeout: how long to wait, in milliseconds
SELECT v.timeout, pg_temp.tried('{"id": "e-wait"}', ('{"outputElement": "-", "parameters": {"timeout": ' || v.timeout || '}}')::jsonb)
FROM (VALUES (1, '0'), (2, '-1'), (3, '30'), (4, '2147483647'), (5, '2147483648'), (6, '-2'), (7, 'null'), (8, '1e2')) v(n, timeout)
ORDER BY n;
-- for one's own lock there is no wait
SELECT lock_event('TryLock', '{"id": "e-own"}');
SELECT pg_temp.event('TryLock', '{"id": "e-own"}', '{"parameters": {"timeout": -1, "allowNoLock": true}}');
SELECT pg_temp.release_all();
BEGIN;
SELECT lock_event('TryLock', '{"id": "e-wait"}');
PREPARE TRANSACTION 'regress_lockext_event';
CREATE FUNCTION pg_temp.timed(meta jsonb, OUT result text, OUT ms double precision) LANGUAGE plpgsql AS $$
DECLARE
	start timestamptz := clock_timestamp();
BEGIN
	result := pg_temp.event('TryLock', '{"id": "e-wait"}', meta);
	ms := 1000 * extract(epoch FROM clock_timestamp() - start);
END $$;
SELECT result FROM pg_temp.timed('{}');
SELECT result FROM pg_temp.timed('{"parameters": {"allowNoLock": true}}');
SELECT result, ms >= 40 AS waited FROM pg_temp.timed('{"parameters": {"timeout": 40}}');
SELECT result, ms >= 80 AS waited FROM pg_temp.timed('{"parameters": {"timeout": 80, "allowNoLock": true}}');
-- by default as long as the setting says
SET lockext.default_wait = 40;
SELECT result, ms >= 40 AS waited FROM pg_temp.timed('{}');
SELECT result, ms >= 40 AS waited FROM pg_temp.timed('{"parameters": {"timeout": null, "allowNoLock": true}}');
SET lockext.default_wait = '10min';
SELECT result, ms < 300000 AS at_once FROM pg_temp.timed('{"parameters": {"timeout": 0}}');
SELECT result, ms < 300000 AS soon FROM pg_temp.timed('{"parameters": {"timeout": 1, "allowNoLock": true}}');
-- which is for lock_event() only
SELECT acquired, reason, waited_ms FROM lock_acquire('e-wait');
SELECT lock_request('{"operation": "acquire", "key": "e-wait"}') -> 'acquired' AS acquired;
-- a wait without limit
SET lockext.default_wait = -1;
\set VERBOSITY terse
BEGIN;
SET LOCAL statement_timeout = '100ms';
SELECT lock_event('TryLock', '{"id": "e-wait"}');
ROLLBACK;
RESET lockext.default_wait;
BEGIN;
SET LOCAL statement_timeout = '100ms';
SELECT lock_event('TryLock', '{"id": "e-wait"}', '{"parameters": {"timeout": -1, "allowNoLock": true}}');
ROLLBACK;
-- lock_timeout ends it with an error, allowNoLock or not
BEGIN;
SET LOCAL lock_timeout = '50ms';
SELECT lock_event('TryLock', '{"id": "e-wait"}', '{"parameters": {"timeout": -1, "allowNoLock": true}}');
ROLLBACK;
\set VERBOSITY default
ROLLBACK PREPARED 'regress_lockext_event';
SELECT * FROM my_locks;
SELECT lock_event('TryLock', '{"id": "e-wait"}', '{"parameters": {"timeout": -1}}');
SELECT pg_temp.release_all();

--
-- One lock space with the other functions
--
SELECT lock_event('TryLock', '{"id": "e-space"}', '{"domain": "d", "parameters": {"expiry": 60000}}');
SELECT acquired, reason FROM lock_acquire('e-space', domain => 'd');
SELECT lock_try('e-space', domain => 'd');
SELECT lock_request('{"operation": "acquire", "key": "e-space", "domain": "d"}');
SELECT held, timeout, calling_fn FROM lock_check('e-space', 'd');
SELECT lock_request('{"operation": "check", "key": "e-space", "domain": "d"}') #> '{lockInfo,timeoutSeconds}' AS timeout;
SELECT token AS token FROM lock_check('e-space', 'd') \gset
SELECT (lock_renew('e-space', 300, :token, 'd')).acquired, lock_release('e-space', :token, 'd');
SELECT lock_event('CheckLock', '{"id": "e-space"}', '{"domain": "d"}');
SELECT (lock_acquire('e-space', domain => 'd')).acquired;
SELECT pg_temp.event('TryLock', '{"id": "e-space"}', '{"domain": "d"}');
SELECT lock_event('CheckLock', '{"id": "e-space"}', '{"domain": "d"}');
SELECT lock_event('Unlock', '{"id": "e-space"}', '{"domain": "d"}');
SELECT held FROM lock_check('e-space', 'd');
SELECT lock_request('{"operation": "acquire", "master": true, "domain": "d"}') -> 'acquired' AS acquired;
SELECT lock_event('CheckLock', '{}', '{"domain": "d", "parameters": {"master": true}}');
SELECT lock_event('Unlock', '{}', '{"domain": "d", "parameters": {"master": true}}');
SELECT held FROM lock_check(NULL, 'd', true);
-- scopes session and transaction too
BEGIN;
SELECT lock_try('e-session', scope => 'session') IS NOT NULL AND lock_try('e-transaction', scope => 'transaction') IS NOT NULL AS acquired;
SELECT pg_temp.event('TryLock', '{"id": "e-session"}'), pg_temp.event('TryLock', '{"id": "e-transaction"}');
SELECT lock_event('CheckLock', '{"id": "e-session"}'), lock_event('CheckLock', '{"id": "e-transaction"}');
SELECT lock_event('Unlock', '{"id": "e-session"}'), lock_event('Unlock', '{"id": "e-transaction"}');
SELECT count(*) FROM lockext_held;
COMMIT;

--
-- Roles, and transactions
--
CREATE ROLE regress_lockext_app;
CREATE ROLE regress_lockext_app2;
SET ROLE regress_lockext_app;
SELECT lock_event('TryLock', '{"id": "e-role"}');
SET ROLE regress_lockext_app2;
SELECT lock_event('TryLock', '{"id": "e-role"}', '{"parameters": {"allowNoLock": true}}'), lock_event('CheckLock', '{"id": "e-role"}');
-- another role's lock stays where it is, and that is no error
SELECT lock_event('Unlock', '{"id": "e-role", "x": 1}');
SELECT lock_event('CheckLock', '{"id": "e-role"}');
-- it is the administrator's to break
SELECT pg_temp.event('Unlock', '{"id": "e-role"}'), lock_break('e-role');
RESET ROLE;
SELECT owner FROM lock_check('e-role');
SELECT lock_break('e-role');
-- EXECUTE on lock_acquire() and the others counts here too
BEGIN;
REVOKE EXECUTE ON FUNCTION lock_acquire FROM PUBLIC;
SET LOCAL ROLE regress_lockext_app;
SELECT pg_temp.event('TryLock', '{"id": "e-role"}'), pg_temp.event('TryLock', '{"id": []}'), pg_temp.event('CheckLock', '{"id": "e-role"}'), pg_temp.event('Unlock', '{"id": "e-role"}');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION lock_release FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION lock_check FROM PUBLIC;
SET LOCAL ROLE regress_lockext_app;
SELECT pg_temp.event('CheckLock', '{"id": "e-role"}'), pg_temp.event('Unlock', '{"id": "e-role"}');
ROLLBACK;
DROP ROLE regress_lockext_app, regress_lockext_app2;

-- a read-only transaction can look
BEGIN READ ONLY;
SELECT lock_event('CheckLock', '{"id": "e-read-only"}');
SELECT pg_temp.event('TryLock', '{"id": "e-read-only"}');
SELECT pg_temp.event('TryLock', '{"id": "e-read-only"}', '{"parameters": {"allowNoLock": true, "timeout": 10}}');
SELECT pg_temp.event('Unlock', '{"id": "e-read-only"}');
COMMIT;
-- rollback undoes both
SELECT lock_event('TryLock', '{"id": "e-kept"}');
BEGIN;
SELECT lock_event('TryLock', '{"id": "e-undone"}'), lock_event('Unlock', '{"id": "e-kept"}');
SELECT lock_event('CheckLock', '{"id": "e-undone"}'), lock_event('CheckLock', '{"id": "e-kept"}');
ROLLBACK;
SELECT lock_event('CheckLock', '{"id": "e-undone"}'), lock_event('CheckLock', '{"id": "e-kept"}');
SELECT lock_event('Unlock', '{"id": "e-kept"}');
-- too many keys
SET lockext.max_keys_per_transaction = 1;
BEGIN;
SELECT lock_event('TryLock', '{"id": "e-many-1"}');
SELECT pg_temp.event('TryLock', '{"id": "e-many-2"}', '{"parameters": {"allowNoLock": true}}');
COMMIT;
RESET lockext.max_keys_per_transaction;
SELECT key FROM lockext_held;
SELECT pg_temp.release_all();

SELECT key FROM lockext_held ORDER BY key;
SELECT * FROM my_locks;
DROP VIEW my_locks;
