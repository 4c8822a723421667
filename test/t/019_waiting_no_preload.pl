# Waiting where the library is not preloaded: the first in the queue polls a
# lease; everything else is as ever, but nobody can be shown to wait.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Who waits for a session looks again after a second, so what is quicker was an
# event; and no deadlock detector stirs.
my $node = new_node('main', preload => 0, conf => 'deadlock_timeout = 20s');
my $watch = new_session($node);
my $holder = new_session($node);
my @waiters = map { new_session($node) } 1 .. 6;

my %take = (
	lease => "SELECT lock_acquire('k')",
	session => "SELECT lock_acquire('k', scope => 'session')",
	transaction => "BEGIN; SELECT lock_acquire('k', scope => 'transaction')");
my %give = (
	lease => "SELECT lock_release('k')",
	session => "SELECT lock_release('k')",
	transaction => 'COMMIT');
my @forms = (
	[ 'statement', 'SELECT acquired, reason, holder->>$$pid$$, waited_ms FROM lock_acquire($$k$$, wait_ms => %d)' ],
	[ 'call', 'DO $do$ DECLARE r lock_result; BEGIN CALL lock_acquire_wait($$k$$, wait_ms => %d, result => r); RAISE WARNING $$%%|%%|%%|%%$$, r.acquired, r.reason, r.holder->>$$pid$$, r.waited_ms; END $do$' ]);

sub is_free
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is( $watch->query_safe(<<'EOC'), 'f|0|0', $test);
SELECT held, (SELECT count(*) FROM pg_locks WHERE objsubid IN (27755, 27757, 27759)), (SELECT count(*) FROM lockext_held)
FROM lock_check('k')
EOC
}

#
# Hand-over.
#
foreach my $scope (qw(lease session transaction))
{
	my $waiter = $waiters[0];
	my @ms;

	foreach my $round (1 .. 9)
	{
		my $statement = $round % 2
		  ? "SELECT lock_acquire('k', wait_ms => -1)"
		  : "CALL lock_acquire_wait('k')";

		$holder->query_safe($take{$scope});
		queue_up($watch, [ $waiter, $statement ]);
		if ($round == 1)
		{
			is( $watch->query_safe(
					"SELECT wait_event_type FROM pg_stat_activity WHERE pid = " . pid_of($waiter)),
				$scope eq 'lease' ? 'Extension' : 'Lock', "$scope held: what the first waiter sleeps on");
			is( $watch->query_safe("SELECT " . pid_of($holder) . " = ANY (pg_blocking_pids(" . pid_of($waiter) . "))"),
				$scope eq 'lease' ? 'f' : 't', "$scope held: pg_blocking_pids()");
			is($watch->query_safe('SELECT count(*) FROM lockext_waiters'), 0, "$scope held: lockext_waiters is empty");
			is( $watch->query_safe("SELECT waiters IS NULL FROM lockext_held UNION SELECT waiters IS NULL FROM lock_check('k')"),
				't', "$scope held: the number of waiters is not known")
		}
		my $from = $watch->query_safe('SELECT clock_timestamp()');
		$holder->query_safe($give{$scope});
		end_statement($waiter);
		push @ms, $watch->query_safe(
			"SELECT round(1000 * extract(epoch FROM acquired_at - '$from')) FROM lock_check('k') WHERE pid = " . pid_of($waiter));
		$waiter->query_safe("SELECT lock_release('k')");
	}
	is(scalar(grep { $_ ne '' } @ms), 9, "$scope held: the waiter gets it");
	@ms = sort { $a <=> $b } @ms;

	# with room for a slow machine
	cmp_ok($ms[4], '<', $scope eq 'lease' ? 50 + 100 : 100, "$scope held: soon (ms: @ms)");
	is_free("$scope held: free afterwards");
}

#
# Deadlines, at the head and behind it.
#
foreach my $scope (qw(lease session transaction))
{
	foreach my $form (@forms)
	{
		my ($name, $statement) = @$form;
		my $reason = $scope eq 'transaction' ? 'busy' : 'held';
		my @said;

		$holder->query_safe($take{$scope});
		queue_up($watch, [ $waiters[0], sprintf($statement, 400) ]);
		queue_up($watch, [ $waiters[1], sprintf($statement, 200) ]);
		foreach my $i (1, 0)
		{
			my $said = join '', end_statement($waiters[$i]);
			my ($ms) = $said =~ /\b[ft]\|$reason\|@{[ pid_of($holder) ]}\|(\d+)/;

			cmp_ok($ms // 'no answer', '>=', $i ? 200 : 400, "$scope held, $name: " . ($i ? 'second: ' : 'first: ') . 'waits for so long');
			cmp_ok($ms // 99999, '<', 3000, 'and not much longer');
		}
		$holder->query_safe($give{$scope});
		is_free("$scope held, $name: nothing is left of waits in vain");
	}
}

#
# Order.
#
$node->safe_psql('postgres', 'CREATE TABLE grants (n serial, pid integer DEFAULT pg_backend_pid())');
$holder->query_safe($take{lease});
foreach my $i (0 .. $#waiters)
{
	my $scope = (qw(lease session transaction))[ $i % 3 ];
	my $statement = $i % 2 && $scope ne 'transaction'
	  ? "CALL lock_acquire_wait('k', scope => '$scope')"
	  : "SELECT lock_acquire('k', wait_ms => -1, scope => '$scope')";

	queue_up($watch, [ $waiters[$i], ($scope eq 'transaction' ? 'BEGIN; ' : '')
			. "$statement; INSERT INTO grants SELECT; "
			. ($scope eq 'transaction' ? 'COMMIT' : "SELECT lock_release('k')") ]);
}
is($watch->query_safe('SELECT count(*) FROM grants'), 0, 'six wait');
$holder->query_safe($give{lease});
end_statement($_) foreach @waiters;
is( $watch->query_safe("SELECT string_agg(pid::text, ' ' ORDER BY n) FROM grants"),
	join(' ', map { pid_of($_) } @waiters),
	'they are served in order of arrival');
is_free('free afterwards');

#
# A lease expires.
#
$holder->query_safe("SELECT lock_acquire('k', 1)");
is($waiters[0]->query_safe("SELECT acquired, waited_ms < 3000 FROM lock_acquire('k', wait_ms => 20000)"),
	't|t', 'a lease expires: a waiter gets it');
$waiters[0]->query_safe("SELECT lock_release('k')");

#
# Who polls for a lease in lock_acquire_wait() holds up nothing.
#
$node->safe_psql('postgres', 'CREATE TABLE plain AS SELECT n FROM generate_series(1, 1000) n');
$holder->query_safe("SET statement_timeout = '10s'");
$holder->query_safe($take{lease});

# new ones, which have all to look up in the catalogs still
$_->quit foreach @waiters;
@waiters = map { new_session($node) } 1 .. 4;
queue_up($watch, [ $_, "CALL lock_acquire_wait('k')" ]) foreach @waiters[ 0 .. 2 ];
foreach my $command ('CREATE INDEX CONCURRENTLY plain_idx ON plain (n)', 'VACUUM FULL lockext_lock')
{
	$holder->query($command);
	is($holder->{stderr}, '', "$command by the holder while others wait");
	$holder->{stderr} = '';
}
is($node->safe_psql('postgres', "SELECT indisvalid FROM pg_index WHERE indexrelid = 'plain_idx'::regclass"),
	't', 'the index is valid');

#
# A waiter dies at the head, one behind it; the next is served.
#
kill_client($waiters[0]);
$watch->query_safe('SELECT pg_terminate_backend(' . pid_of($waiters[1]) . ')');
ok(wait_until($watch, 'NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid IN (' . pid_of($waiters[0]) . ', ' . pid_of($waiters[1]) . '))'),
	'two waiters die');
eval { $waiters[1]->{run}->finish };
$holder->query_safe($give{lease});
end_statement($waiters[2]);
is($watch->query_safe("SELECT pid FROM lock_check('k')"), pid_of($waiters[2]), 'the third is served');

# The client is gone just before its turn.
queue_up($watch, [ $waiters[3], "CALL lock_acquire_wait('k')" ]);
kill_client($waiters[3]);
$waiters[2]->query_safe("SELECT lock_release('k')");
ok(wait_until($watch, 'NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ' . pid_of($waiters[3]) . ')'),
	"a waiter's client is killed just before its turn: its session ends");
is_free('and it was not granted the lock');

$_->quit foreach $watch, $holder, $waiters[2];
$node->stop;
done_testing();
