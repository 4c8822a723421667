# Waits that meet something unusual: a lock table that cannot be looked at, a
# lifetime that is renewed again and again, an error after the wait, a
# transaction that must not get a snapshot.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => 'deadlock_timeout = 1s');
my $watch = new_session($node);

sub asleep
{
	my ($session, $event) = @_;

	must_become($watch,
		"(SELECT wait_event LIKE '$event' FROM pg_stat_activity WHERE pid = @{[ pid_of($session) ]})");
}

#
# One's own lock is refused, and not waited for, even if the first look at it has
# to wait for the table; also if somebody else waits for it already.
#
foreach my $scope (qw(lease session))
{
	foreach my $queued (0, 1)
	{
		my ($holder, $ddl, $waiter) = map { new_session($node) } 1 .. 3;

		$holder->query_safe("SELECT lock_acquire('own', scope => '$scope')");
		queue_up($watch, [ $waiter, "SELECT acquired FROM lock_acquire('own', wait_ms => -1)" ])
		  if $queued;
		$ddl->query_safe('BEGIN; LOCK TABLE lockext_lock');
		begin_statement($holder,
			"SELECT acquired, reason FROM lock_acquire('own', wait_ms => -1, scope => '$scope')");
		asleep($holder, 'relation');
		$ddl->query_safe('COMMIT');
		is(end_statement($holder), 'f|held',
			"$scope of one's own behind a locked table is refused" . ($queued ? ', with a queue' : ''));
		$holder->query_safe("SELECT lock_release('own')");
		if ($queued)
		{
			is(end_statement($waiter), 't', "and who queued for it gets it ($scope)");
			$waiter->query_safe("SELECT lock_release('own')");
		}
		$_->quit foreach $holder, $ddl, $waiter;
	}
}

#
# A deadlock is found although each sleep of the waiter is shorter than
# deadlock_timeout, as the holder's lifetime is short and renewed all the time.
#
{
	my ($holder, $waiter, $heart) = map { new_session($node) } 1 .. 3;

	$node->safe_psql('postgres', 'CREATE TABLE t AS SELECT 1 AS a');
	$holder->query_safe("SELECT lock_acquire('beating', 1, scope => 'session')");
	begin_statement($heart, <<'EOC');
DO $$
BEGIN
	LOOP
		PERFORM pg_sleep(0.1);
		COMMIT;
		EXIT WHEN NOT (lock_renew('beating', 1)).acquired;
	END LOOP;
END $$
EOC

	# the holder's check comes too early to see the circle, the waiter's finds it
	$waiter->query_safe("SET deadlock_timeout = '1500ms'; BEGIN; UPDATE t SET a = 2");
	$holder->query_safe("SET deadlock_timeout = '1ms'; SET log_lock_waits = on");
	my $log = log_position($node);
	begin_statement($holder, 'UPDATE t SET a = 3');
	$node->wait_for_log(qr/still waiting for ShareLock on transaction/, $log);
	begin_statement($waiter, "SELECT acquired FROM lock_acquire('beating', wait_ms => -1)");
	my (undef, $error) = end_statement($waiter);
	like($error, qr/ERROR:  40P01: deadlock detected/, 'a deadlock is found in a wait of short sleeps');
	like($error, qr/waiting for lock "beating"/, 'and says which lock was waited for');
	$waiter->query_safe('ROLLBACK');
	end_statement($holder);
	is($holder->query_safe('SELECT a FROM t'), '3', 'the other goes on');
	$holder->query_safe("SELECT lock_release('beating')");
	end_statement($heart);
	$_->quit foreach $holder, $waiter, $heart;
}

#
# An error after a wait in the same statement is an error like any other.
#
{
	my ($holder, $waiter) = map { new_session($node) } 1, 2;

	$holder->query_safe("SELECT lock_acquire('short', 1)");
	begin_statement($waiter,
		"SELECT 1 / (waited_ms - waited_ms) FROM lock_acquire('short', 1, wait_ms => -1)");
	my (undef, $error) = end_statement($waiter);
	like($error, qr/ERROR:  22012: division by zero/, 'an error after a granted wait');
	unlike($error, qr/waiting for lock/, 'is not said to be of the wait');

	$holder->query_safe("SELECT lock_acquire('long', 5, scope => 'session')");
	begin_statement($waiter,
		"SELECT 1 / (length(reason) - length('held')) FROM lock_acquire('long', wait_ms => 100)");
	(undef, $error) = end_statement($waiter);
	like($error, qr/ERROR:  22012: division by zero/, 'an error after a wait in vain');
	is($waiter->query_safe('SELECT 1'), '1', 'the session goes on');
	$_->quit foreach $holder, $waiter;
}

#
# A lock_timeout set for the transaction that CALL ends counts for the wait.
#
{
	my ($holder, $waiter) = map { new_session($node) } 1, 2;

	$holder->query_safe("SELECT lock_acquire('held')");
	begin_statement($waiter, <<'EOC');
DO $$
DECLARE
	r lock_result;
BEGIN
	SET LOCAL lock_timeout = '100ms';
	CALL lock_acquire_wait('held', result => r);
END $$
EOC
	my (undef, $error) = end_statement($waiter);
	like($error, qr/ERROR:  55P03: canceling statement due to lock timeout\nCONTEXT:  waiting for lock "held"/,
		'SET LOCAL lock_timeout before CALL');
	$holder->query_safe("SELECT lock_release('held')");
	$_->quit foreach $holder, $waiter;
}

#
# At REPEATABLE READ, too, CALL waits without a snapshot: also after it woke in
# vain, here as a release that it waited for is rolled back.
#
{
	my ($holder, $waiter) = map { new_session($node) } 1, 2;

	$waiter->query_safe("SET default_transaction_isolation = 'repeatable read'");
	$waiter->query_safe("SELECT lock_acquire('old', 1, scope => 'session')");
	$holder->query_safe("SELECT lock_acquire('rr')");
	$holder->query_safe("BEGIN; SELECT lock_release('rr')");
	rows_are_gone($node, 'postgres', 'a row that the waiter knows of is removed', 'rr');
	begin_statement($waiter, "CALL lock_acquire_wait('rr', scope => 'session')");
	asleep($waiter, 'advisory');
	is(snapshot_of($waiter), '|', 'asleep at REPEATABLE READ, without snapshot');
	$holder->query_safe('ROLLBACK');
	asleep($waiter, '%');
	must_become($watch,
		"(SELECT wait_event <> 'advisory' FROM pg_stat_activity WHERE pid = @{[ pid_of($waiter) ]})");
	is(snapshot_of($waiter), '|', 'nor with one after it woke in vain');
	$holder->query_safe("SELECT lock_release('rr')");
	my ($said, $error) = end_statement($waiter);
	like($said, qr/^\(rr,"",t,/, 'granted');
	is($error, '', 'without a warning, as the snapshot is a new one');
	$_->quit foreach $holder, $waiter;
}

#
# A cancel that strikes together with one of the waiter's own timeouts is not lost:
# here both wait for a process that is stopped until long after.
#
SKIP:
{
	skip 'no SIGSTOP', 1 if $windows_os;
	my ($holder, $waiter) = map { new_session($node) } 1, 2;
	my $pid = pid_of($waiter);

	$holder->query_safe("SELECT lock_acquire('stopped', scope => 'session')");
	begin_statement($waiter, "SELECT lock_acquire('stopped', wait_ms => -1)");
	asleep($waiter, 'advisory');
	kill 'STOP', $pid;
	$watch->query_safe('SELECT pg_sleep(1.2)');    # longer than one sleep of the waiter
	$watch->query_safe("SELECT pg_cancel_backend($pid)");
	kill 'CONT', $pid;
	my (undef, $error) = end_statement($waiter);
	like($error, qr/ERROR:  57014: canceling statement due to user request/,
		'a cancel together with a timeout');
	$holder->query_safe("SELECT lock_release('stopped')");
	$_->quit foreach $holder, $waiter;
}

#
# A waiter whose client is gone is not kept by a client_connection_check_interval
# that is set to a long time; nor does lock_break() break anything then.
#
{
	my ($holder, $waiter, $breaker) = map { new_session($node) } 1 .. 3;

	$holder->query_safe("BEGIN; SELECT lock_acquire('kept', 600)");
	$waiter->query_safe("SET client_connection_check_interval = '10min'");
	queue_up($watch, [ $waiter, "SELECT lock_acquire('kept', wait_ms => -1)" ]);
	begin_statement($breaker, "SELECT lock_break('kept', -1)");
	asleep($breaker, 'advisory');
	kill_client($_) foreach $waiter, $breaker;
	must_become($watch, <<EOC);
NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid IN (@{[ pid_of($waiter) ]}, @{[ pid_of($breaker) ]}))
EOC
	is($watch->query_safe('SELECT count(*) FROM lockext_waiters'), '0', 'both are gone');
	$holder->query_safe('COMMIT');
	is($watch->query_safe("SELECT held FROM lock_check('kept')"), 't', 'and nothing is broken');
	$holder->query_safe("SELECT lock_release('kept')");
	$holder->quit;
}

#
# CALL in every protocol that a driver may use.
#
{
	my $script = $node->basedir . '/call.sql';

	append_to_file($script,
		"CALL lock_acquire_wait('bench', 600);\nSELECT lock_release('bench');\n");
	foreach my $protocol (qw(simple extended prepared))
	{
		$node->command_like(
			[ 'pgbench', '-n', '-c', '3', '-t', '5', '-M', $protocol, '-f', $script, 'postgres' ],
			qr{transactions actually processed: 15/15},
			"CALL, three clients, $protocol protocol");
	}
	is($watch->query_safe("SELECT held FROM lock_check('bench')"), 'f', 'free in the end');
}

#
# The lock table is full when it is the waiter's turn: it fails, and leaves
# nothing that would keep the next one.
#
{
	my $small = new_node('small', conf => <<'EOC');
max_connections = 20
max_locks_per_transaction = 10
max_prepared_transactions = 0
EOC
	my ($waiter, $filler) = map { new_session($small) } 1, 2;

	# a lease takes no room itself, and its waiter none but for the queue
	$filler->query_safe("SELECT lock_acquire('k', 3)");
	queue_up($filler, [ $waiter, "SELECT lock_acquire('k', wait_ms => -1)" ]);
	$filler->query_safe(<<'EOC');
DO $$
BEGIN
	LOOP
		PERFORM pg_advisory_lock(1000000 + (random() * 1000000)::integer);
	END LOOP;
EXCEPTION WHEN out_of_memory THEN
	NULL;
END $$
EOC
	my (undef, $error) = end_statement($waiter);
	like($error, qr/ERROR:  53200: out of shared memory\n.*waiting for lock "k"/s, 'out of lock memory');
	$filler->query_safe('SELECT pg_advisory_unlock_all()');
	is($filler->query_safe("SELECT count(*) FROM pg_locks WHERE objsubid IN (27755, 27757, 27759)"),
		'0', 'leaves no lock');
	is($filler->query_safe('SELECT count(*) FROM lockext_waiters'), '0', 'nor a waiter');
	is($waiter->query_safe("SELECT acquired FROM lock_acquire('k', wait_ms => -1)"), 't', 'and it works again');
	$_->quit foreach $waiter, $filler;
	$small->stop;
}

sub snapshot_of
{
	my $session = shift;

	return $watch->query_safe(
		"SELECT backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = @{[ pid_of($session) ]}");
}

$watch->quit;
$node->stop;
done_testing();
