# Guards: what needs a worker, a standby, or a waiter asleep where no lock is
# waited for.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', allows_streaming => 1);
my ($watch, $holder, $heart, $waiter) = map { new_session($node) } 1 .. 4;

#
# The worker does not remove the row of a guarded lock, and does so when the guard's
# transaction is over.
#
{
	$holder->query_safe("SELECT lock_acquire('kept', 1)");
	$holder->query_safe("BEGIN; SELECT lock_guard('kept')");
	$heart->query_safe("SELECT lock_acquire('other', 1)");
	must_become($watch, "NOT (lock_check('kept')).held");
	rows_are_gone($node, 'postgres', 'the worker leaves the row of a guarded lock', 'kept');
	is($holder->query_safe("SELECT lock_guard('kept')"), '', 'which is still guarded');
	is($holder->query_safe("SELECT acquired FROM lock_renew('kept', 1)"), 't', 'and can be brought back');
	$holder->query_safe('COMMIT');
	rows_are_gone($node, 'postgres', 'expired, its row is removed');

	$holder->query_safe("SELECT lock_acquire('kept', 1)");
	$holder->query_safe("BEGIN; SELECT lock_guard('kept')");
	must_become($watch, "NOT (lock_check('kept')).held");
	$holder->query_safe("PREPARE TRANSACTION 'guard'");
	$heart->query_safe("SELECT lock_try('other'), lock_release('other')");
	rows_are_gone($node, 'postgres', 'nor does it remove one that a prepared transaction guards', 'kept');
	$watch->query_safe("ROLLBACK PREPARED 'guard'");
	rows_are_gone($node, 'postgres', 'until that is over');
}

#
# Whoever waits for a live lease sleeps on no lock: the heartbeat and other guards pass,
# the release waits for the guard, and then the waiter has the lock.
#
{
	$holder->query_safe("SELECT lock_acquire('k', 100)");
	$holder->query_safe("BEGIN; SELECT lock_guard('k')");
	queue_up($watch, [ $waiter, "SELECT acquired FROM lock_acquire('k', wait_ms => -1)" ]);
	foreach my $n (1 .. 3)
	{
		is($heart->query_safe("SELECT acquired FROM lock_renew('k', 10$n)"), 't',
			"a renewal passes guard and waiter ($n)");
		is($heart->query_safe("SELECT lock_guard('k')"), '', "so does a guard ($n)");
	}
	begin_statement($heart, "SELECT lock_release('k')");
	must_become($watch, "(SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = @{[ pid_of($heart) ]})");
	ok($watch->query_safe("SELECT timeout = 103 FROM lock_check('k')"), 'a release waits for the guard');
	$holder->query_safe('COMMIT');
	is(end_statement($heart), 't', 'until its transaction is over');
	is(end_statement($waiter), 't', 'and then the waiter has the lock');
	$waiter->query_safe("SELECT lock_release('k')");
}

#
# A lease whose time is over is brought back by the guarding transaction while somebody
# waits for it; the waiter goes on waiting, now for the lease, and is in no heartbeat's way.
#
{
	$holder->query_safe("SELECT lock_acquire('k', 1)");
	$holder->query_safe("BEGIN; SELECT lock_guard('k')");
	must_become($watch, "NOT (lock_check('k')).held");
	queue_up($watch, [ $waiter, "SELECT acquired FROM lock_acquire('k', wait_ms => -1)" ]);
	is($heart->query_safe("SELECT reason FROM lock_renew('k', 100)"), 'lost', 'for the heartbeat it is lost');
	is($holder->query_safe("SELECT acquired FROM lock_renew('k', 100)"), 't', 'for the guarding transaction it is not');
	$holder->query_safe('COMMIT');
	must_become($watch, "(SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = @{[ pid_of($waiter) ]})");
	is($heart->query_safe("SELECT acquired FROM lock_renew('k', 200)"), 't', 'it is live again');
	is($holder->query_safe("SELECT lock_guard('k')"), '', 'and can be guarded');
	$holder->query_safe("SELECT lock_release('k')");
	is(end_statement($waiter), 't', 'and handed over');
	$waiter->query_safe("SELECT lock_release('k')");
}

#
# A guard's transaction is prepared while somebody waits for it: the wait goes on until
# that is committed or rolled back.
#
foreach my $end ('COMMIT', 'ROLLBACK')
{
	$holder->query_safe("SELECT lock_acquire('k', 1)");
	$holder->query_safe("BEGIN; SELECT lock_guard('k')");
	must_become($watch, "NOT (lock_check('k')).held");
	queue_up($watch, [ $waiter, "SELECT acquired FROM lock_acquire('k', wait_ms => -1)" ]);
	$holder->query_safe("PREPARE TRANSACTION 'guard'");
	must_become($watch, "(SELECT wait_event = 'transactionid' FROM pg_stat_activity WHERE pid = @{[ pid_of($waiter) ]})");
	is($watch->query_safe("SELECT reason FROM lock_acquire('k')"), 'busy', "$end PREPARED: not yet free");
	is($watch->query_safe("SELECT held FROM lock_check('k')"), 'f', "$end PREPARED: nor taken");
	$watch->query_safe("$end PREPARED 'guard'");
	is(end_statement($waiter), 't', "$end PREPARED: the waiter has the lock");
	$waiter->query_safe("SELECT lock_release('k')");
}

# A prepared guard outlives a crash.
$holder->query_safe("SELECT lock_acquire('k', 1)");
$holder->query_safe("BEGIN; SELECT lock_guard('k')");
$holder->query_safe("PREPARE TRANSACTION 'guard'");
$node->stop('immediate');
$node->start;
ok($node->poll_query_until('postgres', "SELECT NOT held FROM lock_check('k')"), 'expired after a crash');
is($node->safe_psql('postgres', "SELECT reason FROM lock_acquire('k')"), 'busy', 'a prepared guard pins it still');
$node->safe_psql('postgres', "COMMIT PREPARED 'guard'");
is($node->safe_psql('postgres', "SELECT acquired FROM lock_acquire('k')"), 't', 'until it is committed');

#
# On a standby nothing can be pinned.
#
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
foreach my $key ('k', 'none')
{
	is(sqlstate_of($standby, 'postgres', "SELECT lock_guard('$key')"), '25006', "standby: lock_guard('$key') is refused");
}
is(worker_trouble($node, 0), '', 'the worker does not complain');

done_testing();
