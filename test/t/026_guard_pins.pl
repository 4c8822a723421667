# How long a guarded schema's lock is pinned, where that is not the length of a transaction;
# that an error on the way neither leaves a pin nor puts guards out of effect; and that what is
# done as the extension's owner is done under no setting of the caller's.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('pins');
$node->safe_psql('postgres', <<'EOC');
CREATE SCHEMA app;
CREATE TABLE app.t (i integer);
CREATE TABLE app.counter (n integer);
CREATE TABLE public.u (i integer PRIMARY KEY);
SELECT lock_guard_table('app.counter', 'k');
SELECT lock_guard_schema('app', 'k');
EOC

my ($one, $two, $watch) = map { new_session($node) } 1 .. 3;
my $keys = "SELECT count(*) FROM pg_locks WHERE objsubid = 27755 AND granted";

# what a session of new_session() says of a statement that fails
sub fails
{
	my ($session, $sql) = @_;

	begin_statement($session, $sql);
	my ($out, $err) = end_statement($session);
	return $err;
}

#
# A command that fails in a savepoint
#
$one->query_safe("SELECT lock_try('k', scope => 'session')");
$one->query_safe('BEGIN; SAVEPOINT s');
like(fails($one, 'CREATE INDEX CONCURRENTLY ON app.t (i)'), qr/25001/, 'CREATE INDEX CONCURRENTLY in a transaction block');
$one->query_safe('ROLLBACK TO s; COMMIT');
$one->query_safe(<<'EOC');
DO $$ BEGIN EXECUTE 'REINDEX TABLE CONCURRENTLY app.t'; EXCEPTION WHEN OTHERS THEN END $$
EOC
is($watch->query_safe($keys), 0, 'what failed in a savepoint has left no pin');
is($one->query_safe("SELECT lock_release('k')"), 't', 'released');
like(fails($one, 'CREATE TABLE app.x ()'), qr/LK002/, 'then DDL is refused');
is($two->query_safe("SELECT lock_try('k') IS NOT NULL"), 't', 'and another session can take the lock');
$two->query_safe("SELECT lock_release('k')");

#
# To the end of the command's last transaction, in which an event trigger comes after ours; also
# where the command is the one that loads the library, and ours is all there is.
#
sub pins_to_the_end
{
	my ($server, $name) = @_;
	my ($worker, $other, $look) = map { new_session($server) } 1 .. 3;

	$server->safe_psql('postgres', <<'EOC');
CREATE FUNCTION pause() RETURNS event_trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock(1); END $$;
CREATE EVENT TRIGGER z_pause ON ddl_command_end EXECUTE FUNCTION pause();
EOC
	my $t = $look->query_safe("SELECT lock_try('k', 5)");
	$other->query_safe('SELECT pg_advisory_lock(1)');
	$worker->query_safe("SET lockext.token = 'k=$t'");
	begin_statement($worker, 'CREATE INDEX CONCURRENTLY t_i ON app.t (i)');
	# in statements of their own: the command waits for older snapshots
	$server->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND NOT granted)")
		or die 'the command does not come to its end';
	must_become($look, "NOT (lock_check('k')).held");
	is($look->query_safe("SELECT lock_try('k', 1) IS NULL"), 't', "$name: pinned until the last transaction commits");
	$other->query_safe('SELECT pg_advisory_unlock(1)');
	my ($out, $err) = end_statement($worker);
	is($err, '', "$name: which it does");
	is($look->query_safe($keys), 0, "$name: then it is not");
	$look->query_safe('DROP EVENT TRIGGER z_pause');
	$_->quit foreach $worker, $other, $look;
}

my $late = new_node('late', preload => 0);
$late->safe_psql('postgres', "CREATE SCHEMA app; CREATE TABLE app.t (i integer); SELECT lock_guard_schema('app', 'k')");
pins_to_the_end($node, 'preloaded');
pins_to_the_end($late, 'not preloaded');
my ($token, $out, $err);

#
# A command in a command: its end is not the end of the outer one's pin
#
$node->safe_psql('postgres', <<'EOC');
CREATE FUNCTION inner_command() RETURNS event_trigger LANGUAGE plpgsql AS
$$ BEGIN
	IF tg_tag = 'CREATE INDEX' THEN
		EXECUTE 'REINDEX TABLE u';
	END IF;
END $$;
CREATE EVENT TRIGGER z_inner ON ddl_command_start EXECUTE FUNCTION inner_command();
EOC
$token = $watch->query_safe("SELECT lock_try('k', 5)");
$one->query_safe("SET lockext.token = 'k=$token'");
$two->query_safe('BEGIN; INSERT INTO u VALUES (1); DELETE FROM u');
$two->query_safe("SELECT FROM app.t; LOCK TABLE app.t IN ROW EXCLUSIVE MODE");
begin_statement($one, 'CREATE INDEX CONCURRENTLY t_i2 ON app.t (i)');
must_become($watch, "NOT (lock_check('k')).held");
$two->query_safe('COMMIT');
($out, $err) = end_statement($one);
is($err, '', 'a command in a command does not end the pin of the outer one');
is($watch->query_safe("SELECT indisvalid FROM pg_index WHERE indexrelid = 'app.t_i2'::regclass"), 't', 'its index is valid');
is($watch->query_safe($keys), 0, 'nothing is pinned any more');
$watch->query_safe('DROP EVENT TRIGGER z_inner');

#
# An error while a session looks for the first time whether anything is guarded
#
my $first = new_session($node);
$two->query_safe('BEGIN; LOCK TABLE pg_event_trigger IN ACCESS EXCLUSIVE MODE');
$first->query_safe("SET lock_timeout = '50ms'");
like(fails($first, 'TRUNCATE app.t'), qr/55P03/, 'the first look fails');
$two->query_safe('ROLLBACK');
$first->query_safe('RESET lock_timeout');
like(fails($first, 'TRUNCATE app.t'), qr/LK002/, 'the next one finds that the schema is guarded');
like(fails($first, 'DROP TRIGGER lockext_guard ON app.counter'), qr/LK002/, 'and so is the table');

#
# Bypassed guards do not look at the lock, which may be what is the matter, and pin nothing
#
$token = $watch->query_safe("SELECT lock_try('k', 600)");
$two->query_safe("BEGIN; SELECT lock_release('k'); LOCK TABLE lockext_lock IN ACCESS EXCLUSIVE MODE");
$first->query_safe("SET lockext.token = 'k=$token'; SET lockext.bypass_guards = 'test'; SET lock_timeout = '10s'; BEGIN");
begin_statement($first, 'INSERT INTO app.counter VALUES (1)');
($out, $err) = end_statement($first);
is($err, '', 'a bypassed guard waits for nobody');
$two->query_safe('COMMIT');
is($watch->query_safe($keys), 0, 'and pins nothing');
$first->query_safe("SET lockext.bypass_guards = ''");
like(fails($first, 'INSERT INTO app.counter VALUES (2)'), qr/LK002/, 'and is not remembered');
$first->query_safe('ROLLBACK');

#
# Triggers are made as the owner of the extension, a superuser; an event trigger that this
# fires does not run what the caller has put into its way.
#
$node->safe_psql('postgres', <<'EOC');
CREATE ROLE mallory LOGIN;
CREATE SCHEMA evil AUTHORIZATION mallory;
CREATE FUNCTION audit() RETURNS event_trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM lower(tg_tag); END $$;
CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION audit();
SET ROLE mallory;
CREATE TABLE evil.log (who text);
GRANT INSERT ON evil.log TO PUBLIC;
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS
$$ INSERT INTO evil.log VALUES (current_user); SELECT $1 $$;
CREATE TABLE evil.tree (i integer) PARTITION BY LIST (i);
SET search_path = evil, pg_catalog, public;
SELECT lock_guard_table('tree', 'mine');
CREATE TABLE part PARTITION OF tree FOR VALUES IN (1);
EOC
is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT who, $$ $$) FROM evil.log'),
	'mallory', 'what is made for a role does not run its functions as another');
$node->safe_psql('postgres', 'DROP EVENT TRIGGER audit');

$_->quit foreach $one, $two, $watch, $first;
done_testing();
