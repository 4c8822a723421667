# Guarded schemas: commands that fire no event trigger, and commands that commit before they
# end; with the library preloaded and without.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %node = map { $_ => new_node($_, preload => $_ eq 'preloaded') } qw(preloaded not_preloaded);
my $version = $node{preloaded}->pg_version->major;

my $schema = <<'EOC';
CREATE SCHEMA guarded;
CREATE SCHEMA other;
CREATE TABLE guarded.t (id integer PRIMARY KEY, n integer);
CREATE INDEX t_n ON guarded.t (n);
ALTER TABLE guarded.t CLUSTER ON t_pkey;
INSERT INTO guarded.t VALUES (1, 1);
CREATE TABLE other_t (id integer PRIMARY KEY);
CREATE TABLE guarded.refers (id integer REFERENCES other_t);
CREATE TABLE other.parts (id integer) PARTITION BY LIST (id);
CREATE MATERIALIZED VIEW guarded.m AS SELECT 1 AS a;
CREATE TABLE guarded.part PARTITION OF other.parts FOR VALUES IN (1);
CREATE INDEX ON other.parts (id);
CREATE TABLE guarded.parts (id integer) PARTITION BY LIST (id);
CREATE TABLE guarded.part1 PARTITION OF guarded.parts FOR VALUES IN (1);
CREATE TABLE guarded.theirs (id integer);
ALTER TABLE guarded.theirs OWNER TO regress_lockext_bob;
SELECT lock_guard_schema('guarded', 'migrate');
EOC

# What a command may not change: the files and catalog rows of the guarded schema, its data.
my $state = <<'EOC';
SELECT md5(string_agg(concat(c.relname, c.relfilenode, c.relowner, c.relpersistence,
	i.indisvalid, i.indisready, i.indislive, h.inhdetachpending), ',' ORDER BY c.oid)),
	(SELECT string_agg(concat(id, n), ',') FROM guarded.t),
	(SELECT count(*) FROM pg_collation WHERE collnamespace = 'guarded'::regnamespace)
FROM pg_class c
	LEFT JOIN pg_index i ON i.indexrelid = c.oid
	LEFT JOIN pg_inherits h ON h.inhrelid = c.oid
WHERE c.relnamespace = 'guarded'::regnamespace
EOC

# Which commands no layer sees before the library is in the session, and so pass there where it
# is not preloaded: [command, first version that fires an event trigger for it].
my @no_event_trigger = (
	[ 'TRUNCATE guarded.t' ],
	[ 'TRUNCATE other_t CASCADE' ],
	[ 'VACUUM FULL guarded.t' ],
	[ 'VACUUM (FULL, ANALYZE) other_t, guarded.t' ],
	[ 'VACUUM (FULL true) other.parts' ],
	[ 'VACUUM FULL' ],
	[ 'CLUSTER guarded.t' ],
	[ 'CLUSTER guarded.t USING t_n' ],
	[ 'CLUSTER' ],
	[ 'REINDEX TABLE guarded.t', 17 ],
	[ 'REINDEX INDEX guarded.t_n', 17 ],
	[ 'REINDEX TABLE other.parts', 17 ],
	[ 'REINDEX INDEX other.parts_id_idx', 17 ],
	[ 'REINDEX SCHEMA guarded', 17 ],
	[ 'REINDEX DATABASE postgres', 17 ],
	[ 'REINDEX TABLE CONCURRENTLY guarded.t', 17 ],
	[ 'REINDEX INDEX CONCURRENTLY guarded.t_n', 17 ],
	[ 'REINDEX SCHEMA CONCURRENTLY guarded', 17 ],
	[ 'REINDEX DATABASE CONCURRENTLY postgres', 17 ],
	[ 'REASSIGN OWNED BY regress_lockext_bob TO postgres' ],
	[ 'EXPLAIN ANALYZE CREATE TABLE guarded.new AS SELECT 1 AS a' ],
	[ 'EXPLAIN (ANALYZE) SELECT 1 AS a INTO guarded.new' ],
	[ 'EXPLAIN ANALYZE CREATE MATERIALIZED VIEW guarded.new AS SELECT 1 AS a' ],
	[ "SELECT pg_import_system_collations('guarded')" ],
);

# Those that fire one, but commit before they end.
my @commit_inside = (
	'CREATE INDEX CONCURRENTLY new ON guarded.t (n)',
	'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS new ON guarded.t (n)',
	'DROP INDEX CONCURRENTLY guarded.t_n',
	'ALTER TABLE guarded.parts DETACH PARTITION guarded.part1 CONCURRENTLY',
	'ALTER TABLE other.parts DETACH PARTITION guarded.part CONCURRENTLY',
);

sub refuses
{
	my ($node, $command, $setup, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = $node->safe_psql('postgres', $state);

	is(sqlstate_of($node, 'postgres', "$setup$command"), 'LK002', "$test: $command");
	is($node->safe_psql('postgres', $state), $before, "$test: and nothing is left of it");
}

# Each in a session of its own, of which it is the first command.
foreach my $node (values %node)
{
	$node->safe_psql('postgres', "CREATE ROLE regress_lockext_bob; $schema");
}
my $load = "LOAD 'lockext';\n";

foreach my $command (@no_event_trigger)
{
	my ($sql, $since) = @$command;

	refuses($node{preloaded}, $sql, '', 'preloaded');
	refuses($node{not_preloaded}, $sql, $load, 'library in the session');
	refuses($node{not_preloaded}, $sql, '', 'not preloaded')
	  if defined $since && $version >= $since;
	is(sqlstate_of($node{preloaded}, 'postgres', "SET lockext.bypass_guards = 'test'; $sql"), '',
		"bypassed: $sql")
	  if $sql =~ /^(CLUSTER|REINDEX) / || $sql eq 'VACUUM FULL guarded.t';
}
foreach my $sql (@commit_inside)
{
	refuses($node{preloaded}, $sql, '', 'preloaded');
	refuses($node{not_preloaded}, $sql, '', 'not preloaded');
	refuses($node{preloaded}, $sql, "SET session_replication_role = replica;\n", 'preloaded, replica');
	refuses($node{not_preloaded}, $sql, "SET session_replication_role = replica;\n", 'not preloaded, replica');
}
foreach my $sql ('TRUNCATE guarded.t', 'VACUUM FULL guarded.t', 'REINDEX TABLE guarded.t')
{
	refuses($node{preloaded}, $sql, "SET session_replication_role = replica;\n", 'preloaded, replica');
}

# Ordinary DDL is refused in a new session too.
foreach my $name (sort keys %node)
{
	foreach my $sql (
		'CREATE TABLE guarded.new ()', 'ALTER TABLE guarded.t ADD new integer',
		'DROP TABLE guarded.t', 'DROP SCHEMA guarded CASCADE', 'DROP OWNED BY regress_lockext_bob',
		'DROP TABLE other.parts', 'ALTER TABLE other.parts ADD new integer',
		'GRANT SELECT ON guarded.t TO PUBLIC', "COMMENT ON TABLE guarded.t IS 'x'",
		'ALTER TABLE other_t ADD FOREIGN KEY (id) REFERENCES guarded.t',
		'CREATE TABLE other.new PARTITION OF guarded.parts FOR VALUES IN (2)')
	{
		refuses($node{$name}, $sql, '', $name);
		refuses($node{$name}, $sql, "SET session_replication_role = replica;\n", "$name, replica");
	}
}

# event_triggers = off leaves the hooks: a table of what they see is in the README.
if ($version >= 17)
{
	foreach my $sql ('CREATE TABLE guarded.new ()', 'ALTER TABLE guarded.t ADD new integer',
		'DROP TABLE guarded.t', @commit_inside)
	{
		refuses($node{preloaded}, $sql, "SET event_triggers = off;\n", 'event_triggers = off');
	}
}

#
# With the lock all of them work, as the first command of a session and with a token that comes
# with the connection.
#
foreach my $name (sort keys %node)
{
	my $node = $node{$name};
	my $token = $node->safe_psql('postgres', "SELECT lock_try('migrate', 600)");

	local $ENV{PGOPTIONS} = "-c lockext.token=migrate=$token";
	foreach my $sql ((map { $_->[0] } @no_event_trigger), @commit_inside)
	{
		my $undo = '';
		$undo = 'DROP TABLE guarded.new' if $sql =~ /TABLE guarded.new|INTO/;
		$undo = 'DROP MATERIALIZED VIEW guarded.new' if $sql =~ /MATERIALIZED/;
		$undo = 'DROP INDEX guarded.new' if $sql =~ /CREATE.*INDEX/;
		$undo = 'CREATE INDEX t_n ON guarded.t (n)' if $sql =~ /^DROP INDEX/;
		$undo = 'ALTER TABLE guarded.parts ATTACH PARTITION guarded.part1 FOR VALUES IN (1)'
		  if $sql =~ /DETACH PARTITION guarded.part1/;
		is(sqlstate_of($node, 'postgres', $sql), '', "$name, with the lock: $sql");
		$node->safe_psql('postgres', $undo);
	}
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE objsubid = 27755"),
		0, "$name: nothing is pinned any more");
	$node->safe_psql('postgres', "SELECT lock_release('migrate')");
}

#
# While such a command waits, the lock is pinned by its process, through its commits and after
# the lock's time is over; when it has ended, however that may be, it is not.
#
sub pins
{
	my ($node, $test) = @_;
	my ($watch, $old, $worker) = map { new_session($node) } 1 .. 3;
	my $pid = pid_of($worker);
	my @ways = (
		[ 'CREATE INDEX CONCURRENTLY new ON guarded.t (n)', 'DROP INDEX IF EXISTS guarded.new' ],
		[ 'REINDEX INDEX CONCURRENTLY guarded.t_n', 'DROP INDEX IF EXISTS guarded.t_n_ccnew, guarded.t_n_ccold' ],
		[ 'REINDEX TABLE CONCURRENTLY guarded.refers_2', 'SELECT 1' ],
		[ 'DROP INDEX CONCURRENTLY guarded.t_n', 'DROP INDEX IF EXISTS guarded.t_n; CREATE INDEX t_n ON guarded.t (n)' ],
		[ 'ALTER TABLE guarded.parts DETACH PARTITION guarded.part1 CONCURRENTLY',
			'ALTER TABLE guarded.parts ATTACH PARTITION guarded.part1 FOR VALUES IN (1)' ],
	);

	$watch->query_safe("SET client_min_messages = warning; SET lockext.bypass_guards = 'set up'");
	$watch->query_safe('CREATE TABLE IF NOT EXISTS guarded.refers_2 (id integer PRIMARY KEY)');
	foreach my $way (@ways)
	{
		my ($sql, $undo) = @$way;

		foreach my $end ('committed', 'cancelled', $sql =~ /^CREATE/ ? 'terminated' : ())
		{
			my $label = "$test, $end: $sql";
			my $token = $watch->query_safe("SELECT lock_try('migrate', 1)");

			# holds up each of them: a lock on the table, and a snapshot
			$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
			$old->query_safe($sql =~ /refers_2/ ? 'INSERT INTO guarded.refers_2 VALUES (1)'
				: $sql =~ /DETACH/ ? 'SELECT FROM guarded.parts' : 'INSERT INTO guarded.t VALUES (2)');
			# of these commands PostgreSQL tells only a library that is there
			$worker->query_safe("LOAD 'lockext'") if $sql =~ /^REINDEX/ && $version < 17;
			$worker->query_safe("SET lockext.token = 'migrate=$token'");
			begin_statement($worker, $sql);
			must_become($watch, "EXISTS (SELECT FROM pg_locks WHERE pid = $pid AND NOT granted AND locktype = 'virtualxid')");
			must_become($watch, "NOT (lock_check('migrate')).held");
			is($watch->query_safe("SELECT locktype, mode, count(*) FROM pg_locks WHERE objsubid = 27755 AND granted AND pid = $pid GROUP BY 1, 2"), 'advisory|RowShareLock|1', "$label: pinned while it waits");
			is($watch->query_safe("SELECT lock_try('migrate', 1) IS NULL"), 't', "$label: nobody can take it");
			if ($end eq 'committed')
			{
				$old->query_safe('ROLLBACK');
				my ($out, $err) = end_statement($worker);
				is($err, '', "$label: it ends well");
			}
			else
			{
				my $how = $end eq 'cancelled' ? 'pg_cancel_backend' : 'pg_terminate_backend';
				$watch->query_safe("SELECT $how($pid)");
				my ($out, $err) = end_statement($worker);
				like($err, $end eq 'cancelled' ? qr/57014/ : qr/57P01/, "$label: it fails");
				$old->query_safe('ROLLBACK');
			}
			must_become($watch, "NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid AND state = 'active')");
			is($watch->query_safe("SELECT count(*) FROM pg_locks WHERE objsubid = 27755"),
				0, "$label: then nothing is pinned");
			is($watch->query_safe("SELECT lock_try('migrate') IS NOT NULL"), 't', "$label: and it can be taken");
			$watch->query_safe("SELECT lock_release('migrate')");
			if ($end eq 'terminated')
			{
				kill_client($worker);
				$worker = new_session($node);
				$pid = pid_of($worker);
			}
			else
			{
				$worker->query_safe('RESET lockext.token');
			}
			if ($sql =~ /DETACH/ && $end ne 'committed')
			{
				$watch->query_safe('ALTER TABLE guarded.parts DETACH PARTITION guarded.part1 FINALIZE');
			}
			$watch->query_safe($undo);
		}
	}
	$_->quit foreach $watch, $old, $worker;
}

pins($node{preloaded}, 'preloaded');
pins($node{not_preloaded}, 'not preloaded');

done_testing();
