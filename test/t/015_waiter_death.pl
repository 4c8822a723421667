# However a waiter or a holder dies: a waiter leaves nothing behind and is not
# granted the lock any more, and the next in line is served.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => <<'EOC');
max_connections = 150
deadlock_timeout = 200ms
restart_after_crash = on
lockext.retention = '1h'
EOC
my $watch = new_session($node);

sub take
{
	my ($form, $key, $scope) = @_;

	$scope //= 'lease';
	return $form eq 'call'
	  ? "CALL lock_acquire_wait('$key', scope => '$scope')"
	  : "SELECT lock_acquire('$key', wait_ms => -1, scope => '$scope')";
}

# Nothing is left of those who waited: no locks but LIVE of who holds one.
sub nothing_left
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok(wait_until($watch, <<EOC), $test);
NOT EXISTS (SELECT FROM lockext_waiters) AND NOT EXISTS (
SELECT FROM pg_locks l WHERE objsubid IN (27755, 27757) OR objsubid = 27759 AND
	NOT EXISTS (SELECT FROM lockext_held h WHERE h.scope = 'session' AND h.pid = l.pid))
EOC
}

#
# The death of a waiter, at the head of the queue or behind it, while a lease or
# a session-scoped lock is waited for.  All of them at once, each with a key of
# its own.
#
my %ways = (
	'its client is killed' => {
		do => sub { kill_client($_[0]) },
		ends => 1
	},
	'its backend is terminated' => {
		do => sub { $watch->query_safe('SELECT pg_terminate_backend(' . pid_of($_[0]) . ')') },
		says => qr/FATAL:  57P01: .*CONTEXT:  waiting for lock "/s,
		ends => 1
	},
	'it is cancelled' => {
		do => sub { $watch->query_safe('SELECT pg_cancel_backend(' . pid_of($_[0]) . ')') },
		says => qr/ERROR:  57014: canceling statement due to user request.*CONTEXT:  waiting for lock "/s,
	},
	'statement_timeout' => {
		setup => "SET statement_timeout = '3s'",
		says => qr/ERROR:  57014: canceling statement due to statement timeout.*CONTEXT:  waiting for lock "/s,
	},
	'lock_timeout' => {
		setup => "SET lock_timeout = '3s'",
		says => qr/ERROR:  55P03: canceling statement due to lock timeout.*CONTEXT:  waiting for lock "/s,
	});
my %holder = map { $_ => new_session($node) } qw(lease session);
my @cases;

foreach my $way (sort keys %ways)
{
	foreach my $form (qw(statement call))
	{
		foreach my $place (qw(head second))
		{
			# half of the combinations; each pair of them occurs
			my $scope = ($form eq 'call') == ($place eq 'head') ? 'lease' : 'session';
			my $key = 'k' . scalar @cases;
			my $victim = new_session($node, $ways{$way}{setup});
			my @others = map { new_session($node) } 1 .. ($place eq 'head' ? 1 : 2);

			push @cases,
			  {
				name => "$way ($form, $place, $scope held)",
				way => $ways{$way},
				form => $form,
				key => $key,
				scope => $scope,
				victim => $victim,
				others => \@others,
				queue => $place eq 'head' ? [ $victim, @others ] : [ $others[0], $victim, $others[1] ],
			  };
		}
	}
}

foreach my $case (@cases)
{
	$holder{ $case->{scope} }->query_safe("SELECT lock_acquire('$case->{key}', scope => '$case->{scope}')");
}
foreach my $place (0 .. 2)
{
	queue_up($watch, map { [ $_->{queue}[$place], take($_->{form}, $_->{key}) ] }
		grep { $_->{queue}[$place] } @cases);
}
foreach my $case (@cases)
{
	$case->{way}{do}->($case->{victim}) if $case->{way}{do};
}
foreach my $case (@cases)
{
	my ($name, $key, $victim) = @{$case}{qw(name key victim)};
	my $pid = pid_of($victim);
	my @left = map { pid_of($_) } @{ $case->{others} };

	if ($case->{way}{says})
	{
		my ($out, $err) = end_statement($victim);
		like($err, $case->{way}{says}, "$name: the error says so");
	}
	ok(wait_until($watch, "NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)"),
		"$name: its session ends")
	  if $case->{way}{ends};
	is( $watch->query_safe(<<EOC), join("\n", map { "$left[$_]|" . ($_ + 1) } 0 .. $#left),
SELECT pid, position FROM lockext_waiters WHERE key = '$key' ORDER BY position
EOC
		"$name: the others wait on, nobody else does");
	is($watch->query_safe("SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype = 'advisory'"),
		0, "$name: it leaves no lock");
	$holder{ $case->{scope} }->query_safe("SELECT lock_release('$key')");
	foreach my $next (@{ $case->{others} })
	{
		end_statement($next);
		is($watch->query_safe("SELECT pid FROM lock_check('$key') WHERE held"),
			pid_of($next), "$name: the next in line has the lock");
		$next->query_safe("SELECT lock_release('$key')");
	}
}
nothing_left('nothing is left of those who died or waited');

foreach my $case (@cases)
{
	$case->{way}{ends} ? eval { $case->{victim}{run}->finish } : $case->{victim}->quit;
	$_->quit foreach @{ $case->{others} };
}

#
# The client is gone, but the server has not noticed when the lock becomes free.
#
my @waiters = map { new_session($node) } 1 .. 12;
my @scopes = map { (qw(lease session transaction))[ $_ % 3 ] } 0 .. $#waiters;
foreach my $i (0 .. $#waiters)
{
	$holder{lease}->query_safe("SELECT lock_acquire('late$i')");
}
queue_up($watch, map { [ $waiters[$_], take($_ < 6 && $_ % 3 != 2 ? 'call' : 'statement', "late$_", $scopes[$_]) ] }
	  0 .. $#waiters);
foreach my $i (0 .. $#waiters)
{
	kill_client($waiters[$i]);
	$holder{lease}->query_safe("SELECT lock_release('late$i')");
}
my $dead = join ', ', map { pid_of($_) } @waiters;
ok(wait_until($watch, "NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid IN ($dead))"),
	'clients killed just before their turn: their sessions end');
is($watch->query_safe("SELECT string_agg(key, ' ') FROM lockext_held"),
	'', 'no lock was granted to any of them');
is($watch->query_safe("SELECT count(*) FROM lockext_lock WHERE pid IN ($dead)"),
	0, 'nor was one for a moment');
nothing_left('nothing is left of them');

# With scope "transaction" it shows in what such a waiter would do with the lock; whether
# he looks for its row, or knows from the one before him that none says that it is held.
$watch->query_safe('CREATE TABLE got (pid integer)');
@waiters = map { new_session($node) } 1 .. 3;
my $holds = new_session($node, 'BEGIN');
$holds->query_safe("SELECT lock_try('late', scope => 'transaction')");
queue_up($watch, [ $_, "INSERT INTO got SELECT pg_backend_pid() FROM lock_acquire('late', wait_ms => -1, scope => 'transaction') WHERE acquired" ])
  foreach @waiters;
kill_client($_) foreach @waiters[ 0, 2 ];
$holds->query_safe('COMMIT');
end_statement($waiters[1]);
$dead = join ', ', map { pid_of($_) } @waiters[ 0, 2 ];
ok(wait_until($watch, "NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid IN ($dead))"),
	'scope transaction, clients killed just before their turn: their sessions end');
is($watch->query_safe('SELECT string_agg(pid::text, $$ $$) FROM got'),
	pid_of($waiters[1]), 'and had no turn');
nothing_left('nothing is left of these');
$waiters[1]->quit;
$holds->quit;

#
# The death of a holder.
#
my %deaths = (
	'client killed, session scope' => {
		take => sub { "SELECT lock_acquire('$_[0]', scope => 'session')" },
		die => sub { kill_client($_[0]) },
	},
	'client killed, transaction scope' => {
		take => sub { "BEGIN; SELECT lock_acquire('$_[0]', scope => 'transaction')" },
		die => sub { kill_client($_[0]) },
	},
	'client killed, uncommitted lease' => {
		take => sub { "BEGIN; SELECT lock_acquire('$_[0]')" },
		die => sub { kill_client($_[0]) },
	},
	'terminated, session scope' => {
		take => sub { "SELECT lock_acquire('$_[0]', scope => 'session')" },
		die => sub { $watch->query_safe('SELECT pg_terminate_backend(' . pid_of($_[0]) . ')') },
	},
	'terminated, uncommitted release of a session-scoped lock' => {
		take => sub { "SELECT lock_acquire('$_[0]', scope => 'session'); BEGIN; SELECT lock_release('$_[0]')" },
		die => sub { $watch->query_safe('SELECT pg_terminate_backend(' . pid_of($_[0]) . ')') },
	},
	'idle_in_transaction_session_timeout, session scope' => {
		take => sub { "SELECT lock_acquire('$_[0]', scope => 'session'); BEGIN; SELECT 1" },
		setup => "SET idle_in_transaction_session_timeout = '2s'",
	},
	'idle_in_transaction_session_timeout, transaction scope' => {
		take => sub { "BEGIN; SELECT lock_acquire('$_[0]', scope => 'transaction')" },
		setup => "SET idle_in_transaction_session_timeout = '2s'",
	},
	'idle_in_transaction_session_timeout, uncommitted lease' => {
		take => sub { "BEGIN; SELECT lock_acquire('$_[0]')" },
		setup => "SET idle_in_transaction_session_timeout = '2s'",
	});
@cases = ();
foreach my $death (sort keys %deaths)
{
	foreach my $form (qw(statement call))
	{
		# a waiter is not idle
		push @cases,
		  {
			name => "$death ($form)",
			death => $deaths{$death},
			form => $form,
			key => 'd' . scalar @cases,
			holder => new_session($node, $deaths{$death}{setup}),
			waiter => new_session($node, "SET idle_in_transaction_session_timeout = '500ms'"),
		  };
	}
}
# the timeouts begin to count here
begin_statement($_->{holder}, $_->{death}{take}->($_->{key})) foreach @cases;
end_statement($_->{holder}) foreach @cases;
queue_up($watch, map { [ $_->{waiter}, take($_->{form}, $_->{key}) ] } @cases);
foreach my $case (@cases)
{
	$case->{death}{die}->($case->{holder}) if $case->{death}{die};
}
foreach my $case (@cases)
{
	my $elapsed = seconds_for(sub { end_statement($case->{waiter}) });

	is($watch->query_safe("SELECT pid FROM lock_check('$case->{key}') WHERE held"),
		pid_of($case->{waiter}), "holder: $case->{name}: the waiter has the lock");
	cmp_ok($elapsed, '<', 5, "holder: $case->{name}: soon");
	$case->{waiter}->query_safe("SELECT lock_release('$case->{key}')");
	$case->{waiter}->quit;
	$case->{holder}->{run}->signal('KILL');
	eval { $case->{holder}->{run}->finish };
}
nothing_left('nothing is left of them');

#
# The server goes down: crash, fast shutdown, restart.
#
foreach my $how (qw(crash fast restart))
{
	my $leaser = new_session($node);
	my $scoped = new_session($node);
	my @queue = map { new_session($node) } 1 .. 4;
	my $token = $leaser->query_safe("SELECT token FROM lock_acquire('lease-$how')");

	$scoped->query_safe("SELECT lock_acquire('session-$how', scope => 'session')");
	$scoped->query_safe("BEGIN; SELECT lock_acquire('transaction-$how', scope => 'transaction')");
	queue_up($watch, [ $queue[0], take('call', "lease-$how") ], [ $queue[1], take('statement', "session-$how") ],
		[ $queue[2], take('statement', "transaction-$how") ]);
	queue_up($watch, [ $queue[3], take('call', "lease-$how") ]);

	if ($how eq 'crash')
	{
		my $log = log_position($node);

		kill 'KILL', pid_of($queue[0]);
		$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
		$node->poll_query_until('postgres', 'SELECT 1', '1') or die 'the server does not come back';
	}
	elsif ($how eq 'fast')
	{
		my $elapsed = seconds_for(sub { $node->stop('fast') });
		cmp_ok($elapsed, '<', 10, 'fast shutdown does not wait for waiters');
		$node->start;
	}
	else
	{
		$node->restart;
	}
	foreach my $session ($watch, $leaser, $scoped, @queue, values %holder)
	{
		$session->{run}->signal('KILL');
		eval { $session->{run}->finish };
	}

	$watch = new_session($node);
	%holder = ();
	nothing_left("$how: no waiter is left, nor a lock of one");
	is($watch->query_safe("SELECT held, token, waiters FROM lock_check('lease-$how')"),
		"t|$token|0", "$how: the lease is held, and nobody waits for it");
	is($watch->query_safe("SELECT held FROM lock_check('$_-$how')"), 'f', "$how: scope $_: free")
	  foreach qw(session transaction);
	is($watch->query_safe("SELECT acquired FROM lock_acquire('$_-$how')"), 't', "$how: scope $_: to be had")
	  foreach qw(session transaction);

	# waiting works as before
	my $waiter = new_session($node);
	queue_up($watch, [ $waiter, take('call', "lease-$how") ]);
	is($watch->query_safe("SELECT lock_release('lease-$how', $token)"), 't', "$how: the lease is released");
	end_statement($waiter);
	is($watch->query_safe("SELECT pid FROM lock_check('lease-$how')"),
		pid_of($waiter), "$how: and goes to a waiter");
	$waiter->quit;
}

$watch->quit;
$node->stop;
done_testing();
