--
-- lock_request() and lock_event() with whatever comes
--
-- Ten thousand calls of each with requests, payloads and metadata made up from a
-- fixed seed, most of them nearly right.  The replies are held against the
-- documentation; what a call took is released by a later call, by a rollback, or at
-- the end.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'random test';
\pset null '<NULL>'
\pset format unaligned
\pset footer off
SET lockext.max_keys_per_transaction = 100000;

CREATE SCHEMA regress_lockext_random;
SELECT set_config('search_path', 'regress_lockext_random, ' || extnamespace::regnamespace, false) <> '' AS set
FROM pg_extension WHERE extname = 'lockext';

CREATE FUNCTION one_of(VARIADIC choices text[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN choices[1 + floor(random() * cardinality(choices))];
END $$;

CREATE FUNCTION is_a(value jsonb, VARIADIC types text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT coalesce(jsonb_typeof(value) = ANY (types), false)
$$;

-- a member's name: one that exists, or not quite
CREATE FUNCTION some_name() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN one_of('operation', 'key', 'domain', 'master', 'timeout', 'callingFn', 'waitMs', 'scope', 'data', 'onConflict', 'token',
				  'inputElement', 'outputElement', 'parameters', 'expiry', 'allowNoLock', 'id', 'locked', 'a', 'b', 'c', '', '$', '-',
				  'Key', 'a.b', chr(233), repeat('n', 300));
END $$;

CREATE FUNCTION some_scalar() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE floor(random() * 8)
		WHEN 0 THEN to_jsonb(one_of('', 'a', 'b', 'a.b', 'k ', 'lease', 'session', 'acquire', '$.a', '-', chr(233), repeat('x', 255), repeat('x', 256), E'\n"\\'))
		WHEN 1 THEN one_of('0', '-1', '1', '-2', '1.5', '60', '3600', '3601', '300.0', '1e400', '-1e400', '1e-400', '2147483648', '9223372036854775807',
						   '9223372036854775808', '9007199254740992', '1.10')::jsonb
		WHEN 2 THEN 'true'
		WHEN 3 THEN 'false'
		WHEN 4 THEN 'null'
		WHEN 5 THEN to_jsonb(floor(random() * 10))
		WHEN 6 THEN to_jsonb(some_name())
		ELSE to_jsonb(round((random() * 1000)::numeric, 2)) END;
END $$;

CREATE FUNCTION some_value(depth integer) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	kind double precision := random();
	result jsonb := '{}';
BEGIN
	IF depth = 0 OR kind < 0.5 THEN
		RETURN some_scalar();
	ELSIF kind < 0.6 THEN
		result := '[]';
		FOR i IN 1..floor(random() * 4) LOOP
			result := result || jsonb_build_array(some_value(depth - 1));
		END LOOP;
		RETURN result;
	END IF;
	FOR i IN 1..floor(random() * 5) LOOP
		result := result || jsonb_build_object(some_name(), some_value(depth - 1));
	END LOOP;
	RETURN result;
END $$;

-- with some probability, a member more, which is now and then of any type
CREATE PROCEDURE maybe_add(INOUT object jsonb, probability double precision, name text, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
	IF random() < probability THEN
		object := object || jsonb_build_object(name, CASE WHEN random() < 0.02 THEN some_value(2) ELSE value END);
	END IF;
END $$;

CREATE FUNCTION some_request() RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	operation text := one_of('acquire', 'acquire', 'release', 'check');
	r jsonb := '{}';
	other double precision := CASE WHEN random() < 0.05 THEN 0.2 ELSE 0 END;
BEGIN
	IF random() < 0.05 THEN
		RETURN some_value(3);
	END IF;
	CALL maybe_add(r, 0.99, 'operation', to_jsonb(operation));
	CALL maybe_add(r, 0.9, 'key', to_jsonb(one_of('k-1', 'k-2', 'k-3', 'K-1', 'k', 'k.1', '', repeat('k', 255))));
	CALL maybe_add(r, 0.3, 'domain', to_jsonb(one_of('', 'd', 'D')));
	CALL maybe_add(r, CASE WHEN r ? 'key' THEN 0.1 ELSE 0.9 END, 'master', to_jsonb(random() < CASE WHEN r ? 'key' THEN 0.2 ELSE 0.9 END));
	CALL maybe_add(r, CASE operation WHEN 'acquire' THEN 0.4 ELSE other END, 'timeout', to_jsonb(floor(random() * 3700)));
	CALL maybe_add(r, CASE operation WHEN 'acquire' THEN 0.3 ELSE other END, 'callingFn', to_jsonb(one_of('f', 'g', '', repeat('f', 256))));
	CALL maybe_add(r, CASE operation WHEN 'acquire' THEN 0.2 ELSE other END, 'waitMs', one_of('0', '1', '-1', '-2', '1.0', '2147483647')::jsonb);
	CALL maybe_add(r, CASE operation WHEN 'acquire' THEN 0.3 ELSE other END, 'scope', to_jsonb(one_of('lease', 'session', 'transaction', 'forever')));
	IF random() < (CASE operation WHEN 'acquire' THEN 0.2 ELSE other END) THEN
		CALL maybe_add(r, 1, 'data', some_value(3));
	END IF;
	CALL maybe_add(r, CASE operation WHEN 'acquire' THEN 0.3 ELSE other END, 'onConflict', to_jsonb(one_of('return', 'error', 'error', 'Error')));
	CALL maybe_add(r, CASE operation WHEN 'release' THEN 0.1 ELSE other END, 'token', some_scalar());
	IF random() < 0.02 THEN
		CALL maybe_add(r, 1, some_name(), some_value(2));
	END IF;
	RETURN r;
END $$;

CREATE FUNCTION some_path() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN one_of('a', 'a', 'b', 'a.b', 'a.b.c', '$', '$.a', '$.b', '$.a.c', '-', '-', 'c', 'id', 'locked', 'a.locked', '', 'a..b', '$.', chr(233));
END $$;

CREATE FUNCTION some_meta() RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m jsonb := '{}';
	p jsonb := '{}';
BEGIN
	IF random() < 0.03 THEN
		m := some_value(3);
		RETURN CASE WHEN is_a(m, 'object') THEN m - 'parameters' ELSE m END;
	END IF;
	CALL maybe_add(p, 0.15, 'master', to_jsonb(random() < 0.7));
	CALL maybe_add(p, 0.2, 'timeout', one_of('0', '1', '-1', '-1', '2.0', '-2', '1.5')::jsonb);
	CALL maybe_add(p, 0.3, 'expiry', one_of('-1', '3599999', '3600000', '3600000.0', '3600001', '0', '-2')::jsonb);
	CALL maybe_add(p, 0.5, 'allowNoLock', to_jsonb(random() < 0.7));
	CALL maybe_add(p, 0.02, some_name(), some_scalar());
	CALL maybe_add(m, 0.3, 'domain', to_jsonb(one_of('', 'd', 'D')));
	CALL maybe_add(m, 0.4, 'inputElement', to_jsonb(some_path()));
	CALL maybe_add(m, 0.5, 'outputElement', to_jsonb(some_path()));
	CALL maybe_add(m, 0.6, 'parameters', p);
	CALL maybe_add(m, 0.02, some_name(), some_scalar());
	-- none that ends while the test runs
	IF m @@ '$.parameters.expiry >= 1 && $.parameters.expiry < 3500000' THEN
		m := jsonb_set(m, '{parameters,expiry}', '3600000');
	END IF;
	RETURN m;
END $$;

CREATE FUNCTION some_payload(depth integer) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	p jsonb := '{}';
BEGIN
	IF random() < 0.05 THEN
		RETURN some_value(3);
	END IF;
	CALL maybe_add(p, 0.9, 'id', one_of('"k-1"', '"k-2"', '1', '"1"', '1.10', 'true', '"a b"', 'null', '""', '[]')::jsonb);
	CALL maybe_add(p, 0.3, 'locked', some_scalar());
	IF random() < 0.3 THEN
		CALL maybe_add(p, 1, 'c', some_value(2));
	END IF;
	IF random() < 0.2 THEN
		CALL maybe_add(p, 1, some_name(), some_value(2));
	END IF;
	IF depth > 0 AND random() < 0.6 THEN
		CALL maybe_add(p, 1, 'a', some_payload(depth - 1));
	END IF;
	IF depth > 0 AND random() < 0.3 THEN
		CALL maybe_add(p, 1, 'b', some_payload(depth - 1));
	END IF;
	RETURN p;
END $$;

--
-- lock_request()
--

CREATE FUNCTION has_members(object jsonb, VARIADIC members text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_typeof(object) = 'object' AND array(SELECT jsonb_object_keys(object) ORDER BY 1) = array(SELECT unnest(members) ORDER BY 1)
$$;

CREATE FUNCTION is_time(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT value::text ~ '^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"$'
$$;

-- which of the documented replies it is; NULL if it is none
CREATE FUNCTION kind_of_reply(request jsonb, reply jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	operation text := CASE WHEN is_a(request, 'object') THEN request ->> 'operation' END;
	-- what a reply about a lock says of it
	key_fits boolean := CASE WHEN is_a(request, 'object') THEN
		coalesce(request -> 'key', 'null') = coalesce(reply -> 'key', reply #> '{data,key}', 'null') END;
BEGIN
	IF has_members(reply, 'success', 'error', 'code') OR has_members(reply, 'success', 'error', 'code', 'data') THEN
		IF reply -> 'success' <> 'false' OR NOT is_a(reply -> 'error', 'string') THEN
			RETURN NULL;
		ELSIF reply ->> 'code' = 'VALIDATION_ERROR' THEN
			IF NOT reply ? 'data' OR has_members(reply -> 'data', 'detail') OR has_members(reply -> 'data', 'hint')
				OR has_members(reply -> 'data', 'detail', 'hint') THEN
				RETURN 'VALIDATION_ERROR';
			END IF;
		ELSIF reply ->> 'code' = 'LOCK_CONFLICT' THEN
			IF operation = 'acquire' AND request ->> 'onConflict' = 'error' AND key_fits
				AND reply ->> 'error' = 'Lock already exists or is being processed'
				AND has_members(reply -> 'data', 'key', 'callingFn', 'acquired') AND reply #> '{data,acquired}' = 'false'
				AND is_a(reply #> '{data,callingFn}', 'string') THEN
				RETURN 'LOCK_CONFLICT';
			END IF;
		END IF;
		RETURN NULL;
	END IF;
	IF NOT key_fits OR NOT is_a(reply -> 'key', 'string', 'null') THEN
		RETURN NULL;
	END IF;

	IF operation = 'acquire' AND is_a(reply -> 'callingFn', 'string')
		AND reply ->> 'callingFn' = coalesce(request ->> 'callingFn', 'run_requests') THEN
		IF has_members(reply, 'key', 'callingFn', 'acquired') AND reply -> 'acquired' = 'false' THEN
			RETURN 'refused';
		ELSIF has_members(reply, 'key', 'callingFn', 'acquired', 'timestamp', 'token') AND reply -> 'acquired' = 'true'
			AND is_time(reply -> 'timestamp') AND is_a(reply -> 'token', 'number') AND coalesce(request -> 'timeout', 'null') = 'null' THEN
			RETURN 'acquired';
		ELSIF has_members(reply, 'key', 'callingFn', 'acquired', 'timestamp', 'token', 'timeout', 'expiresAt') AND reply -> 'acquired' = 'true'
			AND is_time(reply -> 'timestamp') AND is_time(reply -> 'expiresAt') AND is_a(reply -> 'token', 'number')
			AND reply -> 'timeout' = request -> 'timeout' THEN
			RETURN 'acquired, with timeout';
		END IF;
	ELSIF operation = 'release' AND has_members(reply, 'key', 'released', 'timestamp') AND is_a(reply -> 'released', 'boolean')
		AND is_time(reply -> 'timestamp') THEN
		RETURN 'released: ' || (reply ->> 'released');
	ELSIF operation = 'check' AND has_members(reply, 'key', 'exists', 'lockInfo', 'timestamp') AND is_time(reply -> 'timestamp') THEN
		IF reply -> 'exists' = 'false' AND reply -> 'lockInfo' = 'null' THEN
			RETURN 'exists: false';
		ELSIF reply -> 'exists' = 'true' AND has_members(reply -> 'lockInfo', 'key', 'callingFn', 'timestamp', 'timeoutSeconds', 'appId')
			AND reply #> '{lockInfo,key}' = reply -> 'key' AND is_a(reply #> '{lockInfo,callingFn}', 'string') AND is_time(reply #> '{lockInfo,timestamp}')
			AND is_a(reply #> '{lockInfo,timeoutSeconds}', 'number', 'null') AND reply #>> '{lockInfo,appId}' = current_user THEN
			RETURN 'exists: true';
		END IF;
	END IF;
	RETURN NULL;
END $$;

CREATE TABLE seen (kind text, n integer);

CREATE PROCEDURE run_requests(n integer) LANGUAGE plpgsql AS $$
DECLARE
	request jsonb;
	reply jsonb;
	kind text;
	count_of jsonb := '{}';
BEGIN
	PERFORM setseed(0.25);
	FOR i IN 1..n LOOP
		request := some_request();
		BEGIN
			reply := lock_request(request);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'raised %: % by %', SQLSTATE, SQLERRM, request;
			CONTINUE;
		END;
		kind := kind_of_reply(request, reply);
		IF kind IS NULL THEN
			RAISE WARNING 'no documented reply: % to %', reply, request;
			CONTINUE;
		END IF;
		count_of := count_of || jsonb_build_object(kind, coalesce((count_of ->> kind)::integer, 0) + 1);
		IF i % 100 = 0 THEN
			IF random() < 0.5 THEN
				COMMIT;
			ELSE
				ROLLBACK;
			END IF;
		END IF;
	END LOOP;
	INSERT INTO seen SELECT key, value::integer FROM jsonb_each_text(count_of);
END $$;

CALL run_requests(10000);
-- each of the replies was seen, and often enough to count
SELECT kind, n >= 100 AS often FROM seen ORDER BY kind COLLATE "C";
SELECT sum(n) FROM seen;
TRUNCATE seen;
-- what is left can be released
SELECT count(lock_release(key, NULL, domain, master)) > 0 AS some FROM (SELECT * FROM lockext_held OFFSET 0) h;
SELECT count(*) FROM lockext_held;
SELECT count(*) AS locks FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();

--
-- lock_event()
--

-- the names that a path adds to those it is relative to
CREATE FUNCTION path_of(base text[], path text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN path IS NULL THEN base WHEN path = '$' THEN '{}' WHEN path LIKE '$.%' THEN string_to_array(substr(path, 3), '.')
		ELSE base || string_to_array(path, '.') END
$$;

-- the payload as it should be returned; NULL if an error is all it can come to
CREATE FUNCTION with_locked(payload jsonb, meta jsonb, locked boolean) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	output text[];
	parent jsonb;
BEGIN
	IF meta ->> 'outputElement' = '-' THEN
		RETURN payload;
	END IF;
	output := path_of(path_of('{}', nullif(meta ->> 'inputElement', '-')), meta ->> 'outputElement');
	FOR i IN 0..cardinality(output) LOOP
		parent := payload #> output[1:i];
		IF NOT is_a(coalesce(parent, '{}'), 'object') THEN
			RETURN NULL;
		ELSIF parent IS NULL THEN
			payload := jsonb_set(payload, output[1:i], '{}');
		END IF;
	END LOOP;
	RETURN jsonb_set(payload, output || '{locked}'::text[], to_jsonb(locked));
END $$;

CREATE PROCEDURE run_events(n integer) LANGUAGE plpgsql AS $$
DECLARE
	action text;
	payload jsonb;
	meta jsonb;
	result jsonb;
	before integer;
	held integer := 0;
	kind text;
	fits boolean;
	count_of jsonb := '{}';
BEGIN
	PERFORM setseed(0.5);
	FOR i IN 1..n LOOP
		action := one_of('TryLock', 'TryLock', 'TryLock', 'TryLock', 'Unlock', 'CheckLock', 'CheckLock', CASE WHEN random() < 0.1 THEN 'Lock' ELSE 'Unlock' END);
		payload := some_payload(2);
		meta := some_meta();
		before := held;
		BEGIN
			result := lock_event(action, payload, meta);
			kind := action;
		EXCEPTION WHEN invalid_parameter_value OR lock_not_available THEN
			kind := 'raised ' || SQLSTATE;
		WHEN OTHERS THEN
			RAISE WARNING 'raised %: % by %, %, %', SQLSTATE, SQLERRM, action, payload, meta;
			CONTINUE;
		END;
		SELECT count(*) INTO held FROM lockext_held;
		-- TryLock that took the lock says so, and so on; an error leaves all as it was
		fits := CASE kind
			WHEN 'TryLock' THEN result = with_locked(payload, meta, held > before)
				AND (held > before OR meta #> '{parameters,allowNoLock}' = 'true')
			WHEN 'CheckLock' THEN held = before AND (result = with_locked(payload, meta, true) OR result = with_locked(payload, meta, false))
			WHEN 'Unlock' THEN held <= before AND result = payload
			WHEN 'raised 55P03' THEN held = before AND action = 'TryLock' AND with_locked(payload, meta, true) IS NOT NULL
				AND coalesce(meta #> '{parameters,allowNoLock}', 'false') <> 'true'
			ELSE held = before END;
		IF fits IS NOT TRUE THEN
			RAISE WARNING '% (held % before, % after): % by %, %, %', kind, before, held, result, action, payload, meta;
		END IF;
		IF kind = 'TryLock' THEN
			kind := kind || CASE WHEN held > before THEN ': locked' ELSE ': not locked' END;
		END IF;
		count_of := count_of || jsonb_build_object(kind, coalesce((count_of ->> kind)::integer, 0) + 1);
		IF i % 50 = 0 THEN
			IF random() < 0.3 THEN
				COMMIT;
			ELSE
				ROLLBACK;
			END IF;
			SELECT count(*) INTO held FROM lockext_held;
		END IF;
	END LOOP;
	INSERT INTO seen SELECT key, value::integer FROM jsonb_each_text(count_of);
END $$;

CALL run_events(10000);
SELECT kind, n >= 100 AS often FROM seen ORDER BY kind COLLATE "C";
SELECT sum(n) FROM seen;
SELECT count(lock_break(key, 0, domain, master)) > 0 AS some FROM (SELECT * FROM lockext_held OFFSET 0) h;
SELECT count(*) FROM lockext_held;
SELECT count(*) AS locks FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();

SET client_min_messages = warning;
DROP SCHEMA regress_lockext_random CASCADE;
