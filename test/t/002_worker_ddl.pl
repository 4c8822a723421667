# What administrators do while a worker is at its rows: nothing fails, nothing
# waits for long, and a worker that fails does not come back at once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# DROP DATABASE itself gives up after five seconds.
my $bound = 4.5;

my $node = new_node('main', conf => 'lockext.naptime = 10ms');
my $gone = qr/FATAL:  database (?:".*"|\d+) (?:does not exist|has disappeared)/;

sub is_quick
{
	my ($db, $test, @statements) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $errors = '';
	my $elapsed = seconds_for(
		sub {
			foreach my $statement (@statements)
			{
				my ($ret, $stdout, $stderr) = $node->psql($db, $statement);
				$errors .= $stderr;
			}
		});

	is($errors, '', $test);
	cmp_ok($elapsed, '<', $bound, "$test: at once, more or less");
}

# Rows that are due keep workers busy for a moment.
sub due_in
{
	my ($db) = @_;
	fill_with_due_rows($node, $db, 2000);
}

foreach my $round (1 .. 4)
{
	$node->safe_psql('postgres', 'CREATE DATABASE victim');
	$node->safe_psql('victim', 'CREATE EXTENSION lockext');
	due_in('victim');
	is_quick('postgres', "DROP DATABASE, round $round",
		$round % 2 ? 'DROP DATABASE victim' : 'DROP DATABASE victim WITH (FORCE)');
}

$node->safe_psql('postgres', 'CREATE DATABASE victim');
$node->safe_psql('victim', 'CREATE EXTENSION lockext');
due_in('victim');
is_quick('postgres', 'ALTER DATABASE RENAME', 'ALTER DATABASE victim RENAME TO renamed');
due_in('renamed');
is_quick('postgres', 'CREATE DATABASE TEMPLATE', 'CREATE DATABASE victim TEMPLATE renamed');
rows_are_gone($node, 'renamed', 'the renamed database is looked after');
is_quick('postgres', 'DROP DATABASE of both', 'DROP DATABASE victim', 'DROP DATABASE renamed');

$node->safe_psql('postgres', 'CREATE SCHEMA a; CREATE SCHEMA b');
foreach my $round (1 .. 4)
{
	due_in('postgres');
	is_quick('postgres', "DROP and CREATE EXTENSION, round $round",
		'DROP EXTENSION lockext', 'CREATE EXTENSION lockext');

	due_in('postgres');
	is_quick('postgres', "ALTER EXTENSION SET SCHEMA, round $round",
		'ALTER EXTENSION lockext SET SCHEMA a',
		'ALTER EXTENSION lockext SET SCHEMA b',
		'ALTER EXTENSION lockext SET SCHEMA public');
	rows_are_gone($node, 'postgres', "moved about, round $round: rows are removed in the end");
}

# Under a load that always leaves something due.
my $load = $node->background_psql('postgres');
$node->safe_psql('postgres', <<'EOC');
CREATE TABLE stop ();
CREATE PROCEDURE churn() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..1000000 LOOP
		IF lock_try('churn-' || i % 500) IS NOT NULL THEN
			PERFORM lock_release('churn-' || i % 500);
		END IF;
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM stop);
	END LOOP;
END $$;
EOC
start_in_background($load, 'CALL churn()');
foreach my $round (1 .. 5)
{
	is_quick('postgres', "$_, round $round", $_)
	  foreach ('VACUUM FULL lockext_lock', 'REINDEX TABLE lockext_lock',
		'BEGIN; LOCK TABLE lockext_lock; COMMIT', 'VACUUM lockext_lock',
		'REINDEX TABLE CONCURRENTLY lockext_lock');
}
$node->safe_psql('postgres', 'INSERT INTO stop DEFAULT VALUES');
$load->query_safe('SELECT 1');
$load->quit;
rows_are_gone($node, 'postgres', 'rows are removed after all that');
is_table_sound($node, 'table and index are sound') if has_amcheck($node);

# WITH (FORCE) terminates a worker
is( worker_trouble($node, 0, $gone), '',
	'no worker complains, except of a database that is gone');

#
# A table that somebody has held for long: the worker comes back to it.
#
my $admin = $node->background_psql('postgres');
$node->safe_psql('postgres', "SELECT lock_try('behind', 1)");
$admin->query_safe('BEGIN; LOCK TABLE lockext_lock IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5)');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_locks WHERE NOT granted'),
	0, 'no worker queues for a table that somebody has locked');
$admin->query_safe('COMMIT');
rows_are_gone($node, 'postgres', 'a row that expired while the table was locked is removed');

# The same for a row.
$node->safe_psql('postgres', "SELECT lock_try('row')");
$admin->query_safe("BEGIN; SELECT 1 FROM lockext_lock WHERE key = 'row' FOR UPDATE");
is(sqlstate_of($node, 'postgres', "SELECT lock_release('row')"),
	'55P03', 'a row that a superuser has locked can not be released');
$admin->query_safe('COMMIT');
$node->safe_psql('postgres', "SELECT lock_try('row2', 1)");
$admin->query_safe("BEGIN; SELECT 1 FROM lockext_lock WHERE key = 'row2' FOR UPDATE; SELECT pg_sleep(1.5)");
$node->safe_psql('postgres', "SELECT lock_release('row')");
rows_are_gone($node, 'postgres', 'the worker leaves a locked row alone', 'row2');
$admin->query_safe('COMMIT');
rows_are_gone($node, 'postgres', 'and removes it later');
$admin->quit;
is(worker_trouble($node, 0, $gone), '', 'without a complaint');

#
# A worker that fails is followed by another one later and later.
#
my $log = log_position($node);
$node->safe_psql('postgres', <<'EOC');
SELECT lock_try('broken', 1);
ALTER TABLE lockext_lock ALTER COLUMN pid TYPE bigint;
EOC
my $error = qr/lockext worker: ERROR:  lock table "lockext_lock" was altered/;
$node->wait_for_log(qr/(?:$error.*){3}/s, $log);
my @times = slurp_file($node->logfile, $log) =~
  /^\S+ \d+:(\d+:\d+\.\d+) \S+ \[\d+\] $error/mg;
my @seconds = map { my ($m, $s) = split /:/; $m * 60 + $s } @times;
my @gaps = map { my $gap = $seconds[ $_ + 1 ] - $seconds[$_]; $gap < 0 ? $gap + 3600 : $gap } 0 .. $#seconds - 1;

cmp_ok($gaps[0], '>', 0.9, 'a failed worker is not started again at once');
cmp_ok($gaps[1], '>', 1.8, 'nor, having failed again, after the same time');
is(sqlstate_of($node, 'postgres', "SELECT lock_try('k')"), '42809',
	'the functions fail as well');

# Others are not concerned.
$node->safe_psql('postgres', 'CREATE DATABASE fine');
$node->safe_psql('fine', "CREATE EXTENSION lockext; SELECT lock_try('due'); SELECT lock_release('due')");
rows_are_gone($node, 'fine', 'another database is looked after meanwhile');

$node->safe_psql('postgres', 'ALTER TABLE lockext_lock ALTER COLUMN pid TYPE integer');
rows_are_gone($node, 'postgres', 'repaired, the table is looked after again');
cmp_ok(worker_starts($node, $log), '<', 20, 'there was no restart loop');
$log = log_position($node);
$node->safe_psql('postgres', "SELECT lock_try('again'); SELECT lock_release('again')");
my $elapsed = seconds_for(
	sub { rows_are_gone($node, 'postgres', 'the next row too') });
cmp_ok($elapsed, '<', $bound, 'without delay: the failures are forgotten');
is(worker_trouble($node, $log), '', 'nor does a worker complain any more');

# The extension's table taken away
$log = log_position($node);
$node->safe_psql('postgres', "SELECT lock_try('broken', 1)");
$node->safe_psql('postgres', 'ALTER TABLE lockext_lock RENAME TO hidden');
$node->wait_for_log(qr/lockext worker: ERROR:  lock table "lockext_lock" does not exist/, $log);
is(sqlstate_of($node, 'postgres', "SELECT lock_try('k')"), '42P01', 'no table: the functions fail');
$node->safe_psql('postgres', 'ALTER TABLE hidden RENAME TO lockext_lock');
rows_are_gone($node, 'postgres', 'the table is found again');

$node->stop;
done_testing();
