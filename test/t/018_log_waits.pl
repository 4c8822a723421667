# lockext.log_waits: a wait that lasts longer than deadlock_timeout is logged, in
# one line, whatever it is that is waited for.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => <<'EOC');
deadlock_timeout = 50ms
log_min_messages = warning
log_line_prefix = '[%p] '
lockext.log_waits = on
EOC
$node->safe_psql('postgres', 'CREATE ROLE alice');
my $watch = new_session($node);

# What a process has said since, in single lines: "LOG: ... / DETAIL: ...".
sub said_by
{
	my ($session, $from) = @_;
	my $pid = pid_of($session);
	my $said = '';

	foreach my $line (split /\n/, slurp_file($node->logfile, $from))
	{
		next unless $line =~ s/^\[$pid\] //;
		$said .= ($line =~ /^(?:DETAIL|HINT|CONTEXT|STATEMENT):/ ? ' / ' : $said ne '' ? "\n" : '') . $line;
	}
	$said =~ s/ {2}/ /g;
	return $said;
}

# The one line about a wait for k.
sub line_for
{
	my ($pid, $holder, $queue, $form, $statement) = @_;
	my $hint = $form eq 'statement'
	  ? ' / HINT: A statement that waits keeps its snapshot, which holds up VACUUM and CREATE INDEX CONCURRENTLY; CALL lock_acquire_wait() does not.'
	  : '';

	return qr/\ALOG: process $pid still waiting for lock "k" after \d+\.\d{3} ms \/ DETAIL: Process holding the lock: $holder\. Wait queue: $queue\.\Q$hint\E \/ STATEMENT: \Q$statement\E;?\z/;
}

sub take
{
	my ($form, $scope) = @_;

	return $form eq 'call'
	  ? "CALL lock_acquire_wait('k', scope => '$scope')"
	  : "SELECT lock_acquire('k', wait_ms => -1, scope => '$scope')";
}

#
# Whatever is held, and however it is waited for: at the head and behind it.
#
my @holds = (
	[ 'lease', "SELECT lock_acquire('k')", "SELECT lock_release('k')" ],
	[ 'session', "SELECT lock_acquire('k', scope => 'session')", "SELECT lock_release('k')" ],
	[ 'transaction', "BEGIN; SELECT lock_acquire('k', scope => 'transaction')", 'COMMIT' ],
	[ 'an uncommitted lease', "BEGIN; SELECT lock_acquire('k')", 'ROLLBACK' ]);

foreach my $hold (@holds)
{
	my ($what, $take, $give) = @$hold;

	foreach my $form (qw(statement call))
	{
		my $how = "$what held, $form";
		my $holder = new_session($node);
		my @waiters = map { new_session($node) } 1, 2;
		my $statement = take($form, 'lease');
		my $queue = join ', ', map { pid_of($_) } @waiters;
		my $log = log_position($node);

		$holder->query_safe($take);
		queue_up($watch, [ $_, $statement ]) foreach @waiters;

		# both have had their say, and time to say more
		$node->wait_for_log(qr/^\[@{[ pid_of($_) ]}\] .*still waiting/m, $log) foreach @waiters;
		$watch->query_safe('SELECT pg_sleep(0.2)');
		$holder->query_safe($give);
		end_statement($waiters[0]);
		$waiters[0]->query_safe("SELECT lock_release('k')");
		end_statement($waiters[1]);
		$waiters[1]->query_safe("SELECT lock_release('k')");
		$_->quit foreach $holder, @waiters;

		# the first may have been alone when it said so
		like(said_by($waiters[0], $log),
			line_for(pid_of($waiters[0]), pid_of($holder), qr/@{[ pid_of($waiters[0]) ]}(?:, @{[ pid_of($waiters[1]) ]})?/, $form, $statement),
			"$how: one line of the head's");
		like(said_by($waiters[1], $log),
			line_for(pid_of($waiters[1]), pid_of($holder), $queue, $form, $statement),
			"$how: one line of the second's");
		is(said_by($holder, $log), '', "$how: none of the holder's");
	}
}

#
# When not to log.
#
my $holder = new_session($node);
my $waiter = new_session($node);
my $log;

# Wait for k, held with a scope, and give up; what the log says.
sub log_of_wait
{
	my ($scope, $wait_ms, $setup) = @_;
	my $take = $scope eq 'transaction' ? 'BEGIN;' : '';

	$waiter->query_safe("RESET ALL; SET ROLE NONE; $setup");
	$log = log_position($node);
	$holder->query_safe("$take SELECT lock_acquire('k', scope => '$scope')");
	$waiter->query_safe("SELECT lock_acquire('k', wait_ms => $wait_ms)");
	$holder->query_safe($scope eq 'transaction' ? 'COMMIT' : "SELECT lock_release('k')");
	return said_by($waiter, $log);
}

foreach my $scope (qw(lease session transaction))
{
	is(log_of_wait($scope, 10, "SET deadlock_timeout = '10s'"), '', "$scope: a short wait is not logged");
	is(log_of_wait($scope, 200, 'SET lockext.log_waits = off'), '', "$scope: nor is any with lockext.log_waits off");
	like(log_of_wait($scope, 200, ''), qr/\ALOG: process \d+ still waiting for lock "k" [^\n]*\z/,
		"$scope: in vain: one line");
	like(log_of_wait($scope, 200, 'SET ROLE alice'), qr/\ALOG: process \d+ still waiting for lock "k" [^\n]*\z/,
		"$scope: another role's wait too");
}

#
# log_lock_waits is the user's: lockext neither adds the server's lines nor takes
# them away, and leaves the setting as it was.
#
foreach my $scope (qw(session transaction))
{
	my $said = log_of_wait($scope, 200, 'SET log_lock_waits = on');
	like($said, qr/^LOG: process \d+ still waiting for lock "k" /m, "log_lock_waits on, $scope: lockext's line");
	like($said, qr/^LOG: process \d+ still waiting for \w+ on advisory lock /m, "log_lock_waits on, $scope: and the server's");
	is($waiter->query_safe('SHOW log_lock_waits'), 'on', 'the setting stays on');

	$said = log_of_wait($scope, 200, 'SET log_lock_waits = on; SET lockext.log_waits = off');
	unlike($said, qr/lock "k" after/, "only log_lock_waits on, $scope: no line of lockext's");
	like($said, qr/^LOG: process \d+ still waiting for \w+ on advisory lock /m, "only log_lock_waits on, $scope: the server's");

	log_of_wait($scope, 200, '');
	is($waiter->query_safe('SHOW log_lock_waits'), 'off', 'the setting stays off');
}

# After a wait that ended with an error, another lock wait is not lockext's to log.
$waiter->query_safe("SET lock_timeout = '200ms'");
$holder->query_safe("BEGIN; SELECT lock_acquire('k', scope => 'session')");
$log = log_position($node);
$waiter->query("SELECT lock_acquire('k', wait_ms => -1)");
like($waiter->{stderr}, qr/55P03/, 'a wait ends with an error');
$waiter->{stderr} = '';
is(scalar(() = said_by($waiter, $log) =~ /still waiting/g), 1, 'and was logged once');
$holder->query_safe('SELECT pg_advisory_lock(1)');
$log = log_position($node);
$waiter->query('SELECT pg_advisory_lock(1)');
like($waiter->{stderr}, qr/55P03/, 'an ordinary lock wait after that');
$waiter->{stderr} = '';
unlike(said_by($waiter, $log), qr/still waiting/, 'is not logged');
$holder->query_safe('ROLLBACK; SELECT pg_advisory_unlock_all()');

# A deadlock is an error, which the log tells of anyhow; no more lines than that.
$waiter->query_safe("RESET ALL; SELECT lock_acquire('b', scope => 'session')");
$holder->query_safe("SET deadlock_timeout = '10min'; SELECT lock_acquire('k', scope => 'session')");
queue_up($watch, [ $holder, "SELECT lock_acquire('b', wait_ms => -1)" ]);
$log = log_position($node);
$waiter->query("SELECT lock_acquire('k', wait_ms => -1)");
like($waiter->{stderr}, qr/40P01/, 'a deadlock');
$waiter->{stderr} = '';
unlike(said_by($waiter, $log), qr/LOG: [^\n]* on advisory lock/, "none of the server's lines about it");
$waiter->quit;
end_statement($holder);
$holder->quit;

# Only superusers set it.
is(sqlstate_of($node, 'postgres', 'SET ROLE alice; SET lockext.log_waits = off'), '42501', 'only superusers set it');

$watch->quit;
$node->stop;
done_testing();
