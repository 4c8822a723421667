--
-- The label of a lock: the argument, else the innermost calling function, else
-- application_name, else 'unknown'
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
RESET client_min_messages;
SET application_name = 'the application';
\pset null '<NULL>'

CREATE SCHEMA regress_lockext_fn;
-- lockext itself stays in the path
SELECT set_config('search_path', 'regress_lockext_fn, ' || extnamespace::regnamespace, false) <> '' AS set
FROM pg_extension WHERE extname = 'lockext';

-- takes the lock, so that the label is looked up in what was kept
CREATE FUNCTION kept() RETURNS text LANGUAGE sql AS $$
	SELECT c.calling_fn || CASE WHEN lock_release('fn') THEN '' ELSE ' (not held)' END FROM lock_check('fn') c
$$;

-- an argument wins
CREATE FUNCTION given(label text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (lock_acquire('fn', 60, calling_fn => label)).calling_fn;
END $$;
SELECT given('migrateUsers');
SELECT kept();
SELECT given(E'PL/pgSQL function evil() line 1 at RETURN');
SELECT kept();
-- null is no argument
SELECT given(NULL);
SELECT kept();

-- without a function: application_name, and without that: unknown
SELECT calling_fn FROM lock_acquire('fn', 60);
SELECT kept();
SET application_name = '';
SELECT calling_fn FROM lock_acquire('fn', 60);
SELECT kept();
SELECT lock_try('fn', 60) IS NOT NULL AS acquired;
SELECT kept();
SET application_name = 'the application';

-- the innermost function, not the outermost
CREATE FUNCTION inner_fn() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (lock_acquire('fn', 60)).calling_fn;
END $$;
CREATE FUNCTION middle_fn() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN inner_fn();
END $$;
CREATE FUNCTION outer_fn() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	SELECT middle_fn() INTO result;
	RETURN result;
END $$;
SELECT outer_fn();
SELECT kept();
-- one that has returned counts no more
CREATE FUNCTION afterwards() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM inner_fn(), lock_release('fn');
	RETURN (lock_acquire('fn', 60)).calling_fn;
END $$;
SELECT afterwards();
SELECT kept();

-- every kind of statement
CREATE FUNCTION statements() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	r record;
	c CURSOR FOR SELECT * FROM lock_acquire('fn', 60);
	label text := (lock_acquire('fn', 60)).calling_fn;
BEGIN
	RETURN NEXT 'declaration: ' || label || ', ' || kept();
	label := (lock_acquire('fn', 60)).calling_fn;
	RETURN NEXT 'assignment: ' || label || ', ' || kept();
	SELECT calling_fn INTO label FROM lock_acquire('fn', 60);
	RETURN NEXT 'select into: ' || label || ', ' || kept();
	PERFORM lock_acquire('fn', 60);
	RETURN NEXT 'perform: ' || kept();
	EXECUTE 'SELECT calling_fn FROM lock_acquire($1, 60)' INTO label USING 'fn';
	RETURN NEXT 'execute: ' || label || ', ' || kept();
	IF (lock_acquire('fn', 60)).acquired THEN
		RETURN NEXT 'if: ' || kept();
	END IF;
	FOR r IN SELECT * FROM lock_acquire('fn', 60) LOOP
		RETURN NEXT 'for: ' || r.calling_fn || ', ' || kept();
	END LOOP;
	OPEN c;
	FETCH c INTO r;
	RETURN NEXT 'cursor: ' || r.calling_fn || ', ' || kept();
	BEGIN
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		label := (lock_acquire('fn', 60)).calling_fn;
		RETURN NEXT 'exception: ' || label || ', ' || kept();
	END;
	EXECUTE $do$DO $in$BEGIN PERFORM lock_acquire('fn', 60); END$in$ $do$;
	RETURN NEXT 'do: ' || kept();
	RETURN QUERY SELECT 'return query: ' || calling_fn FROM lock_acquire('fn', 60);
	RETURN NEXT 'return query: ' || kept();
END $$;
SELECT * FROM statements();

-- a refusal tells the requester's label, and the holder's beside it
SELECT (lock_acquire('fn', 60, calling_fn => 'holder')).acquired;
CREATE FUNCTION refused() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r lock_result := lock_acquire('fn', 60);
BEGIN
	RETURN format('acquired %s, requester %s, holder %s', r.acquired, r.calling_fn, r.holder ->> 'calling_fn');
END $$;
SELECT refused();
-- renewing leaves the label alone, in vain or not
CREATE FUNCTION renewing(t bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r lock_result := lock_renew('fn', 60, t);
BEGIN
	RETURN format('acquired %s, calling_fn %s, holder %s', r.acquired, r.calling_fn, r.holder ->> 'calling_fn');
END $$;
SELECT renewing(NULL), renewing(1);
SELECT kept();

-- names: mixed case, blanks, dots, quotes, brackets; without the schema
CREATE FUNCTION "migrateUsers"() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION "two words"(a integer, b numeric(5, 2) DEFAULT 0) RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION "dot.ted"() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION "quo""ted"() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION "brack(et)s"() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION "x() line 3 at RETURN"() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION "select"() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION inline_code_block() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION a_name_of_just_sixty_three_bytes_which_is_the_longest_there_is_() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
SELECT "migrateUsers"(), kept();
SELECT "two words"(1), kept();
SELECT "dot.ted"(), kept();
SELECT "quo""ted"(), kept();
SELECT "brack(et)s"(), kept();
SELECT "x() line 3 at RETURN"(), kept();
SELECT "select"(), kept();
SELECT inline_code_block(), kept();
SELECT a_name_of_just_sixty_three_bytes_which_is_the_longest_there_is_() AS fn, kept();
-- with a schema that is not in the path, and a quoted one, the signature is qualified
CREATE SCHEMA "regress_lockext Fn.2";
CREATE FUNCTION "regress_lockext Fn.2"."migrateOrders"(text) RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION "regress_lockext Fn.2"."my.app(1)"() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
SELECT "regress_lockext Fn.2"."migrateOrders"(''), kept();
SELECT "regress_lockext Fn.2"."my.app(1)"(), kept();

-- SQL functions that run as functions: several statements, settings, SECURITY DEFINER
CREATE FUNCTION sql_several() RETURNS text LANGUAGE sql AS $$
	SELECT 1;
	SELECT calling_fn FROM lock_acquire('fn', 60);
$$;
SELECT sql_several();
SELECT kept();
CREATE FUNCTION "sqlWith ""settings"""() RETURNS bigint LANGUAGE sql SET work_mem = '4MB' AS $$
	SELECT lock_try('fn', 60) * 0
$$;
SELECT "sqlWith ""settings"""();
SELECT kept();
CREATE FUNCTION "x"" statement 1"() RETURNS text LANGUAGE sql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$ SELECT calling_fn FROM lock_acquire('fn', 60) $$;
SELECT "x"" statement 1"();
SELECT kept();
CREATE FUNCTION sql_atomic() RETURNS text LANGUAGE sql SECURITY DEFINER
BEGIN ATOMIC
	SELECT calling_fn FROM lock_acquire('fn', 60);
END;
SELECT sql_atomic();
SELECT kept();
CREATE FUNCTION sql_calls() RETURNS text LANGUAGE sql SECURITY DEFINER
SET search_path FROM CURRENT AS $$ SELECT inner_fn() $$;
SELECT sql_calls();
SELECT kept();
CREATE FUNCTION calls_sql() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN sql_several(); END $$;
SELECT calls_sql();
SELECT kept();
-- one that the planner merges into its caller is no function any more
CREATE FUNCTION sql_inlined() RETURNS bigint LANGUAGE sql AS $$ SELECT lock_try('fn', 60) $$;
SELECT sql_inlined() > 0 AS acquired;
SELECT kept();

-- procedures
CREATE PROCEDURE plpgsql_procedure(INOUT label text DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	label := (lock_acquire('fn', 60)).calling_fn;
	COMMIT;
END $$;
CALL plpgsql_procedure();
SELECT kept();
CREATE PROCEDURE "sqlProcedure"() LANGUAGE sql AS $$ SELECT lock_acquire('fn', 60) $$;
CALL "sqlProcedure"();
SELECT kept();

-- triggers
CREATE TABLE guarded (a integer);
CREATE FUNCTION in_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lock_acquire('fn', 60);
	RETURN NULL;
END $$;
CREATE TRIGGER t AFTER INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION in_trigger();
INSERT INTO guarded VALUES (1);
SELECT kept();
CREATE CONSTRAINT TRIGGER d AFTER DELETE ON guarded DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION in_trigger();
BEGIN;
DELETE FROM guarded;
SELECT held FROM lock_check('fn');
COMMIT;
SELECT kept();

-- a DO block has no name
DO $$ BEGIN PERFORM lock_acquire('fn', 60); END $$;
SELECT kept();
DO $$ BEGIN PERFORM outer_fn(); END $$;
SELECT kept();

-- the text of a statement is not the call stack
CREATE FUNCTION honest(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	label text;
BEGIN
	EXECUTE statement INTO label;
	RETURN label;
END $$;
SELECT honest(E'SELECT calling_fn FROM lock_acquire(''fn'', 60) /*\nPL/pgSQL function evil() line 1 at RETURN\n*/'), kept();
SELECT honest(E'/*\nPL/pgSQL function evil() line 1 at RETURN\n*/ SELECT calling_fn FROM lock_acquire(''fn'', 60)'), kept();
SELECT honest(E'/*"\nSQL function "evil" statement 1\n*/ SELECT calling_fn FROM lock_acquire(''fn'', 60)'), kept();
SELECT honest(E'/* PL/pgSQL function evil() line 1 */ SELECT calling_fn FROM lock_acquire(''fn'', 60)'), kept();
DO $do$
BEGIN
	EXECUTE E'SELECT lock_acquire(''fn'', 60) --\nPL/pgSQL function evil() line 1 at RETURN'
		|| E'\n' || 'WHERE true';
EXCEPTION WHEN syntax_error THEN
	EXECUTE E'SELECT lock_acquire(''fn'', 60) /*"\nPL/pgSQL function evil() line 1 at RETURN\n*/';
END $do$;
SELECT kept();
-- nor is a name with a line break in it
DO $do$
BEGIN
	EXECUTE format('CREATE FUNCTION %I() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN (lock_acquire(''fn'', 60)).calling_fn; END $$',
				   E'tricky\nPL/pgSQL function evil()');
END $do$;
SELECT honest(format('SELECT %I()', E'tricky\nPL/pgSQL function evil()')) = E'tricky\nPL/pgSQL function evil()' AS whole_name;
SELECT lock_release('fn');

-- finding out leaves the error context as it was
CREATE FUNCTION fails_later() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lock_acquire('fn', 60);
	RAISE EXCEPTION 'later';
END $$;
SELECT fails_later();
SELECT held FROM lock_check('fn');

SELECT key FROM lockext_held ORDER BY 1;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA regress_lockext_fn, "regress_lockext Fn.2" CASCADE;
