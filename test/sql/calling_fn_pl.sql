--
-- The label of a lock taken from PL/Perl and PL/Python
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS lockext;
CREATE EXTENSION plperl;
CREATE EXTENSION plpython3u;
RESET client_min_messages;
SET application_name = 'the application';
\pset null '<NULL>'

CREATE SCHEMA regress_lockext_pl;
SELECT set_config('search_path', 'regress_lockext_pl, ' || extnamespace::regnamespace, false) <> '' AS set
FROM pg_extension WHERE extname = 'lockext';

CREATE FUNCTION kept() RETURNS text LANGUAGE sql AS $$
	SELECT c.calling_fn || CASE WHEN lock_release('fn') THEN '' ELSE ' (not held)' END FROM lock_check('fn') c
$$;

-- PL/Perl
CREATE FUNCTION "perlFn"() RETURNS text LANGUAGE plperl AS $$
	return spi_exec_query("SELECT calling_fn FROM lock_acquire('fn', 60)")->{rows}[0]{calling_fn};
$$;
SELECT "perlFn"();
SELECT kept();
CREATE FUNCTION "perl ""Fn"" 2"() RETURNS text LANGUAGE plperl AS $$
	my $plan = spi_prepare('SELECT calling_fn FROM lock_acquire($1, 60)', 'text');
	return spi_exec_prepared($plan, 'fn')->{rows}[0]{calling_fn};
$$;
SELECT "perl ""Fn"" 2"();
SELECT kept();
CREATE PROCEDURE perl_procedure() LANGUAGE plperl AS $$
	spi_exec_query("SELECT lock_acquire('fn', 60)");
	spi_commit();
$$;
CALL perl_procedure();
SELECT kept();
DO LANGUAGE plperl $$ spi_exec_query("SELECT lock_acquire('fn', 60)"); $$;
SELECT kept();
CREATE FUNCTION perl_honest() RETURNS text LANGUAGE plperl AS $$
	return spi_exec_query("SELECT calling_fn FROM lock_acquire('fn', 60) /*\"\nPL/Perl function \"evil\"\n*/")->{rows}[0]{calling_fn};
$$;
SELECT perl_honest();
SELECT kept();
CREATE FUNCTION perl_trigger() RETURNS trigger LANGUAGE plperl AS $$
	spi_exec_query("SELECT lock_acquire('fn', 60)");
	return;
$$;
CREATE TABLE guarded (a integer);
CREATE TRIGGER t BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION perl_trigger();
INSERT INTO guarded VALUES (1);
SELECT kept();

-- PL/Python
CREATE FUNCTION "pythonFn"() RETURNS text LANGUAGE plpython3u AS $$
return plpy.execute("SELECT calling_fn FROM lock_acquire('fn', 60)")[0]["calling_fn"]
$$;
SELECT "pythonFn"();
SELECT kept();
CREATE FUNCTION "python ""Fn"" 2"() RETURNS text LANGUAGE plpython3u AS $$
plan = plpy.prepare("SELECT calling_fn FROM lock_acquire($1, 60)", ["text"])
with plpy.subtransaction():
    return plan.execute(["fn"])[0]["calling_fn"]
$$;
SELECT "python ""Fn"" 2"();
SELECT kept();
CREATE PROCEDURE python_procedure() LANGUAGE plpython3u AS $$
plpy.execute("SELECT lock_acquire('fn', 60)")
plpy.commit()
$$;
CALL python_procedure();
SELECT kept();
DO LANGUAGE plpython3u $$plpy.execute("SELECT lock_acquire('fn', 60)")$$;
SELECT kept();
CREATE FUNCTION python_honest() RETURNS text LANGUAGE plpython3u AS $$
return plpy.execute("SELECT calling_fn FROM lock_acquire('fn', 60) /*\"\nPL/Python function \"evil\"\n*/")[0]["calling_fn"]
$$;
SELECT python_honest();
SELECT kept();

-- the innermost of several languages
CREATE FUNCTION plpgsql_calls_perl() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN "perlFn"(); END $$;
CREATE FUNCTION perl_calls_python() RETURNS text LANGUAGE plperl AS $$
	return spi_exec_query('SELECT "pythonFn"() AS l')->{rows}[0]{l};
$$;
CREATE FUNCTION plpgsql_fn() RETURNS text LANGUAGE plpgsql
AS $$ BEGIN RETURN (lock_acquire('fn', 60)).calling_fn; END $$;
CREATE FUNCTION python_calls_plpgsql() RETURNS text LANGUAGE plpython3u AS $$
return plpy.execute("SELECT plpgsql_fn() AS l")[0]["l"]
$$;
SELECT plpgsql_calls_perl();
SELECT kept();
SELECT perl_calls_python();
SELECT kept();
SELECT python_calls_plpgsql();
SELECT kept();
-- a block without a name inside a function: the function's
CREATE FUNCTION perl_do() RETURNS void LANGUAGE plperl AS $$
	spi_exec_query(q{DO LANGUAGE plpython3u $do$plpy.execute("SELECT lock_acquire('fn', 60)")$do$});
$$;
SELECT perl_do();
SELECT kept();

SELECT key FROM lockext_held ORDER BY 1;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA regress_lockext_pl CASCADE;
DROP EXTENSION plperl;
DROP EXTENSION plpython3u;
