# Those who wait with lock_acquire_wait() hold up nothing: while they wait, the
# holder of the lock can do whatever has to wait for old snapshots or for locks
# on tables.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => 'deadlock_timeout = 100ms');
$node->safe_psql('postgres', <<'EOC');
CREATE TABLE plain AS SELECT n FROM generate_series(1, 1000) n;
CREATE TABLE emptied AS SELECT n FROM generate_series(1, 1000) n;
EOC

my $watch = new_session($node);
my $holder = new_session($node, "SET statement_timeout = '10s'");

# Without an error, within statement_timeout.
sub holder_can
{
	my ($statement, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$holder->query($statement);
	is($holder->{stderr}, '', $test);
	$holder->{stderr} = '';
}

sub is_index_valid
{
	my $name = shift;
	return $node->safe_psql('postgres',
		"SELECT indisvalid FROM pg_index WHERE indexrelid = '$name'::regclass");
}

sub wait_statement
{
	my ($i) = @_;
	my $scope = $i % 2 ? 'lease' : 'session';
	my $call = "CALL lock_acquire_wait('ddl', scope => '$scope'";

	# one from PL/pgSQL, with a variable for the result
	return "$call)" if $i != 5;
	return "DO \$\$ DECLARE r lock_result; BEGIN $call, result => r); RAISE WARNING 'acquired: %', r.acquired; END \$\$";
}

foreach my $scope (qw(lease session))
{
	my $how = "$scope held";
	my @waiters = map { new_session($node) } 1 .. 10;
	my $pids = join ', ', map { pid_of($_) } @waiters;

	is($holder->query_safe("SELECT acquired FROM lock_acquire('ddl', scope => '$scope')"),
		't', "$how: the holder has the lock");
	queue_up($watch, [ $waiters[$_], wait_statement($_) ]) foreach 0 .. $#waiters;
	is($watch->query_safe("SELECT count(*) FROM lockext_waiters WHERE key = 'ddl' AND form = 'call'"),
		10, "$how: ten wait");
	ok(wait_until($watch, <<EOC), "$how: none has a snapshot, a transaction ID or a lock on a table");
(SELECT count(*) FROM pg_stat_activity
 WHERE pid IN ($pids) AND state = 'active' AND backend_xmin IS NULL AND backend_xid IS NULL) = 10
AND NOT EXISTS (SELECT FROM pg_locks WHERE pid IN ($pids) AND locktype = 'relation')
EOC

	ok(wait_until($watch, <<EOC), "$how: the first one's wait event");
(SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity WHERE pid = @{[ pid_of($waiters[0]) ]}) =
CASE WHEN '$scope' = 'session' THEN 'Lock advisory'
	WHEN current_setting('server_version_num')::int < 170000 THEN 'Extension Extension'
	ELSE 'Extension LockextWaitForRelease' END
EOC

	holder_can("CREATE INDEX CONCURRENTLY plain_idx ON plain (n)", "$how: CREATE INDEX CONCURRENTLY");
	is(is_index_valid('plain_idx'), 't', "$how: the index is valid");
	holder_can('REINDEX INDEX CONCURRENTLY plain_idx', "$how: REINDEX CONCURRENTLY");
	is(is_index_valid('plain_idx'), 't', "$how: the index is valid again");
	holder_can('DROP INDEX CONCURRENTLY plain_idx', "$how: DROP INDEX CONCURRENTLY");

	$holder->query_safe('INSERT INTO emptied SELECT n FROM generate_series(1, 1000) n');
	$holder->query_safe('DELETE FROM emptied');
	holder_can('VACUUM emptied', "$how: VACUUM");
	is($node->safe_psql('postgres', "SELECT pg_relation_size('emptied')"),
		0, "$how: VACUUM removes what was deleted while they waited");
	holder_can('VACUUM FULL lockext_lock', "$how: VACUUM FULL of the lock table");
	holder_can('REINDEX TABLE CONCURRENTLY lockext_lock', "$how: REINDEX CONCURRENTLY of it");
	holder_can('CLUSTER lockext_lock USING lockext_lock_pkey', "$how: CLUSTER of it");

	is( $watch->query_safe("SELECT string_agg(pid::text, ', ' ORDER BY position) FROM lockext_waiters"),
		$pids, "$how: they wait as before");
	is($holder->query_safe("SELECT lock_release('ddl')"), 't', "$how: the holder releases");
	my $first = shift @waiters;
	my ($out, $err) = end_statement($first);
	like($out, qr/\(ddl,"",t,/, "$how: the first of them has the lock");

	my $elapsed = seconds_for(
		sub {
			holder_can('DROP EXTENSION lockext', "$how: DROP EXTENSION");
			my @ends = map { [ end_statement($_) ] } @waiters;
			is(scalar(grep { $_->[1] =~ /ERROR:  42P01: / } @ends),
				9, "$how: the others' waits end with 42P01");
		});
	cmp_ok($elapsed, '<', 8, "$how: promptly");
	is( $watch->query_safe("SELECT count(*) FROM pg_locks WHERE objsubid IN (27755, 27757)"),
		0, "$how: nobody waits or keeps anything");

	$_->quit foreach $first, @waiters;
	$node->safe_psql('postgres', 'CREATE EXTENSION lockext');
}

#
# For comparison: who waits in a statement has a snapshot, which CREATE INDEX
# CONCURRENTLY waits for.  The lock manager sees the circle where it knows of
# both waits.  The others have no deadlock_timeout to speak of, so it is always
# the index that fails.
#
foreach my $what ([ 'pg_advisory_lock()', 'SELECT pg_advisory_lock(1)', 'SELECT pg_advisory_lock(1)' ],
	[ 'lock_acquire()', "SELECT lock_acquire('k', scope => 'session')",
		"SELECT lock_acquire('k', wait_ms => -1, scope => 'session')" ])
{
	my ($name, $take, $wait) = @$what;
	my @waiters = map { new_session($node, "SET deadlock_timeout = '10min'") } 1 .. 10;
	my $pids = join ', ', map { pid_of($_) } @waiters;

	$holder->query_safe($take);
	begin_statement($_, $wait) foreach @waiters;
	must_become($watch,
		"(SELECT count(*) FROM pg_stat_activity WHERE pid IN ($pids) AND wait_event_type = 'Lock') = 10");
	$holder->query("CREATE INDEX CONCURRENTLY invalid_idx ON plain (n)");
	like($holder->{stderr}, qr/ERROR:  40P01: /,
		"ten wait with $name: CREATE INDEX CONCURRENTLY by the holder is a deadlock");
	$holder->{stderr} = '';
	is(is_index_valid('invalid_idx'), 'f', 'and the index is invalid');

	$node->safe_psql('postgres', "SELECT pg_terminate_backend(unnest(ARRAY[$pids]), 10000)");
	end_statement($_) foreach @waiters;
	$_->{run}->finish foreach @waiters;
	$holder->query_safe('DROP INDEX invalid_idx');
}

$_->quit foreach $holder, $watch;
$node->stop;
done_testing();
