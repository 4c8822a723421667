# Guards in copies of a database: dump and restore, pg_upgrade, CREATE DATABASE ... TEMPLATE,
# logical replication.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $guards = "SELECT kind, schema, relation, key, domain, held FROM lockext_guards ORDER BY 1, 2, 3";
my $triggers = "SELECT evtname, evtevent, evtenabled FROM pg_event_trigger ORDER BY 1";
my $expected = <<'EOC';
schema|Guarded||migrate|Domain_2-b|f
schema|guarded||migrate||f
table|public|accounts|money||f
table|public|parts|parts||f
table|public|parts1|parts||f
table|public|parts2|parts||f
EOC

chomp $expected;

# Are the guards of the database in effect, and is its data there?
sub is_guarded
{
	my ($node, $db, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($node->safe_psql($db, $guards), $expected, "$test: lockext_guards shows what is guarded");
	is($node->safe_psql($db, $triggers), "lockext_ddl_end|ddl_command_end|A\nlockext_ddl_start|ddl_command_start|A",
		"$test: the event triggers are there");
	is($node->safe_psql($db, 'SELECT (SELECT count(*) FROM guarded.t), (SELECT count(*) FROM guarded.refers),
		(SELECT count(*) FROM guarded.m), (SELECT count(*) FROM "Guarded".m),
		(SELECT count(*) FROM accounts), (SELECT count(*) FROM parts)'),
		'100|10|100|100|5|2', "$test: the data is there");
	foreach my $sql (
		'CREATE TABLE guarded.new ()', 'ALTER TABLE guarded.refers ADD new integer',
		'CREATE INDEX CONCURRENTLY ON guarded.t (n)', 'DROP TABLE "Guarded".t',
		'DROP SCHEMA guarded CASCADE', 'ALTER SCHEMA guarded RENAME TO new',
		'INSERT INTO accounts VALUES (6)', 'DELETE FROM accounts', 'TRUNCATE accounts CASCADE',
		'INSERT INTO parts VALUES (1)', 'UPDATE parts1 SET id = 1', 'TRUNCATE parts2',
		'DROP TABLE accounts CASCADE', 'ALTER TABLE accounts DISABLE TRIGGER ALL',
		'DROP EXTENSION lockext CASCADE')
	{
		is(sqlstate_of($node, $db, $sql), 'LK002', "$test: $sql");
	}
	is( sqlstate_of($node, $db, <<'EOC'), '', "$test: with the lock it passes");
BEGIN;
SELECT lock_try('migrate', scope => 'transaction'), lock_try('money', scope => 'transaction');
ALTER TABLE guarded.t ADD new integer;
UPDATE accounts SET id = id;
ROLLBACK;
EOC
	is(sqlstate_of($node, $db, 'REFRESH MATERIALIZED VIEW guarded.m'), '', "$test: data can be refreshed");
}

my $node = new_node('main', allows_streaming => 'logical');
$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', <<'EOC');
CREATE SCHEMA locks;
CREATE EXTENSION lockext;
CREATE ROLE regress_lockext_alice;
CREATE SCHEMA guarded AUTHORIZATION regress_lockext_alice;
CREATE SCHEMA "Guarded";
CREATE TYPE guarded.en AS ENUM ('a', 'b');
CREATE FUNCTION guarded.f(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE TABLE guarded.t (id integer PRIMARY KEY, n serial, e guarded.en DEFAULT 'a', CHECK (guarded.f(id) > 0));
CREATE INDEX ON guarded.t (n);
CREATE INDEX ON guarded.t (guarded.f(n));
CREATE TABLE guarded.refers (id integer REFERENCES guarded.t);
CREATE TABLE "Guarded".t (id integer REFERENCES guarded.t);
CREATE MATERIALIZED VIEW guarded.m AS SELECT id, n FROM guarded.t;
CREATE UNIQUE INDEX ON guarded.m (id);
CREATE MATERIALIZED VIEW "Guarded".m AS SELECT id FROM guarded.m;
CREATE STATISTICS guarded.st ON n, id FROM guarded.t;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_lockext_alice IN SCHEMA guarded GRANT SELECT ON TABLES TO PUBLIC;
GRANT SELECT ON guarded.t TO PUBLIC;
COMMENT ON TABLE guarded.t IS 'guarded';
INSERT INTO guarded.t (id) SELECT generate_series(1, 100);
INSERT INTO guarded.refers SELECT generate_series(1, 10);
REFRESH MATERIALIZED VIEW guarded.m;
REFRESH MATERIALIZED VIEW "Guarded".m;
CREATE TABLE accounts (id integer PRIMARY KEY);
CREATE TABLE entries (id integer REFERENCES accounts);
INSERT INTO accounts SELECT generate_series(1, 5);
INSERT INTO entries VALUES (1);
CREATE TABLE parts (id integer) PARTITION BY LIST (id);
CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts2 PARTITION OF parts FOR VALUES IN (2);
INSERT INTO parts VALUES (1), (2);
SELECT lock_guard_schema('guarded', 'migrate'),
	lock_guard_schema('"Guarded"', 'migrate', 'Domain_2-b'),
	lock_guard_table('accounts', 'money'),
	lock_guard_table('parts', 'parts');
SELECT lock_try('migrate');
EOC
# a lock is not dumped
$node->safe_psql('app', "SELECT lock_release('migrate')");
is_guarded($node, 'app', 'as it was');

#
# Dump and restore, without an option
#
my $dir = $node->basedir;
$node->command_ok([ 'pg_dump', '-f', "$dir/app.sql", 'app' ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE "plain" TEMPLATE template0');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/psql.out", '-d', 'plain', '-f', "$dir/app.sql" ],
	'psql restores it');
is_guarded($node, 'plain', 'pg_dump, psql');

$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/app.dump", 'app' ], 'pg_dump -Fc');
$node->safe_psql('postgres', 'CREATE DATABASE parallel TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-j', '2', '-d', 'parallel', "$dir/app.dump" ], 'pg_restore -j 2');
is_guarded($node, 'parallel', 'pg_dump -Fc, pg_restore -j 2');

$node->safe_psql('postgres', 'CREATE DATABASE single TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--single-transaction', '-d', 'single', "$dir/app.dump" ], 'pg_restore --single-transaction');
is_guarded($node, 'single', 'pg_restore --single-transaction');

# into itself: refused, and nothing is lost
$node->command_fails([ 'pg_restore', '--exit-on-error', '--clean', '-d', 'single', "$dir/app.dump" ], 'pg_restore --clean is refused');
is_guarded($node, 'single', 'pg_restore --clean');

# a restored database dumps the same again
$node->command_ok([ 'pg_dump', '-f', "$dir/again.sql", 'parallel' ], 'pg_dump of what was restored');
my ($first, $again) = map { join '', grep { !/^\\(un)?restrict / } split /^/, slurp_file("$dir/$_.sql") } qw(app again);
is($again, $first, 'it is the same dump');

#
# CREATE DATABASE ... TEMPLATE
#
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE app');
is_guarded($node, 'copy', 'CREATE DATABASE ... TEMPLATE');

#
# Logical replication of all tables: a guard on the publisher does not reach the subscriber,
# nor does it stop replication.
#
my $subscriber = new_node('subscriber');
$node->safe_psql('postgres', 'CREATE SCHEMA guarded; CREATE TABLE guarded.t (id integer PRIMARY KEY);
	CREATE SCHEMA before; SELECT lock_guard_schema(\'before\', \'before\')');
$subscriber->safe_psql('postgres', 'CREATE SCHEMA guarded; CREATE TABLE guarded.t (id integer PRIMARY KEY);
	CREATE SCHEMA mine; SELECT lock_guard_schema(\'mine\', \'mine\'), lock_guard_table(\'guarded.t\', \'table\')');
$node->safe_psql('postgres', 'CREATE PUBLICATION pub FOR ALL TABLES');
my $from = $node->connstr('postgres');
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION sub CONNECTION \$\$$from\$\$ PUBLICATION pub");
$subscriber->wait_for_subscription_sync($node, 'sub');
my $of_subscriber = "schema|mine|\ntable|guarded|t";
my $names = 'SELECT kind, schema, relation FROM lockext_guards ORDER BY 1, 2';
is($subscriber->safe_psql('postgres', $names), $of_subscriber, 'the initial copy brings no guards along');
$node->safe_psql('postgres', "SELECT lock_guard_schema('guarded', 'migrate'); INSERT INTO guarded.t VALUES (1)");
$node->wait_for_catchup('sub');
is($subscriber->safe_psql('postgres', $names), $of_subscriber, 'nor does replication');
is($subscriber->safe_psql('postgres', 'SELECT * FROM guarded.t'), '1', 'which goes on, into a guarded table');
is(sqlstate_of($subscriber, 'postgres', 'CREATE TABLE guarded.new ()'), '', 'DDL passes there');
is(sqlstate_of($subscriber, 'postgres', 'CREATE TABLE mine.new ()'), 'LK002', 'where it is not guarded');
is(sqlstate_of($node, 'postgres', 'CREATE TABLE guarded.new ()'), 'LK002', 'on the publisher it is refused');
$node->safe_psql('postgres', "SELECT lock_try('migrate', scope => 'session');
	ALTER SCHEMA guarded RENAME TO renamed; ALTER SCHEMA renamed RENAME TO guarded;
	SELECT lock_unguard_schema('guarded'); INSERT INTO guarded.t VALUES (2)");
$node->wait_for_catchup('sub');
is($subscriber->safe_psql('postgres', $names), $of_subscriber, 'a rename and the end of a guard do not reach it either');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM guarded.t'), '2', 'replication goes on');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION sub');
$subscriber->stop;

#
# pg_upgrade
#
$node->safe_psql('postgres', "DROP DATABASE $_") foreach qw(plain single);
$node->stop;
my $new = new_node('new', start => 0);
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'-d', $node->data_dir, '-D', $new->data_dir,
		'-b', $node->config_data('--bindir'), '-B', $new->config_data('--bindir'),
		'-s', $new->host, '-p', $node->port, '-P', $new->port
	],
	'pg_upgrade');
$new->start;
foreach my $db ('app', 'parallel', 'copy')
{
	is_guarded($new, $db, "pg_upgrade, $db");
}
is($new->safe_psql('postgres', $names), 'schema|before|', 'pg_upgrade, postgres');

#
# A dump of one table has its triggers, but not the event triggers, without which guards are not
# in effect; to guard it again, by the same lock, makes up for that.
#
$new->safe_psql('postgres', 'CREATE DATABASE single');
$new->safe_psql('single', 'CREATE EXTENSION lockext');
my $single = PostgreSQL::Test::Utils::tempdir() . '/single.sql';
$new->command_ok([ 'pg_dump', '-t', 'accounts', '-f', $single, 'app' ], 'one table is dumped');
$new->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $single, 'single' ], 'and restored');
is(sqlstate_of($new, 'single', 'INSERT INTO accounts VALUES (600)'), '', 'it is not guarded');
is(sqlstate_of($new, 'single', "SELECT lock_guard_table('accounts', 'other')"), '42710',
	'its triggers are another lock\'s');
is(sqlstate_of($new, 'single', "SELECT lock_guard_table('accounts', 'money')"), '', 'it is guarded again');
is(sqlstate_of($new, 'single', 'INSERT INTO accounts VALUES (601)'), 'LK002', 'and then it is');
is(sqlstate_of($new, 'single', "SELECT lock_guard_table('accounts', 'money')"), '42710', 'but once only');

$new->stop;

done_testing();
