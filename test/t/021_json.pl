# lock_request() and lock_event() where other sessions are needed: waits that end
# well or otherwise, the extension dropped meanwhile, lockext.domains against a
# client's own settings.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# nothing but a commit writes WAL out
my $node = new_node('main', conf => <<'EOC');
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
bgwriter_lru_maxpages = 0
checkpoint_timeout = 1h
EOC
my $holder = new_session($node);
my $waiter = new_session($node);
my $watch = new_session($node);
my $wait_for = q(SELECT r->>'acquired', r ? 'token' FROM lock_request('{"operation": "acquire", "key": "k", "waitMs": -1}') r);
my $try_lock = q(SELECT lock_event('TryLock', '{"id": "k"}', '{"parameters": {"timeout": -1}}')->>'locked');
my $none_left = "NOT EXISTS (SELECT FROM pg_locks WHERE objsubid IN (27755, 27757) AND pid = " . pid_of($waiter) . ")";

#
# A wait ends with the lock.
#
foreach my $scope (qw(lease session))
{
	foreach my $case ([ $wait_for, 'true|t' ], [ $try_lock, 'true' ])
	{
		my ($statement, $expected) = @$case;

		$holder->query_safe("SELECT lock_acquire('k', 600, scope => '$scope')");
		queue_up($watch, [ $waiter, $statement ]);
		is($holder->query_safe("SELECT lock_release('k')"), 't', "$scope: released");
		is(end_statement($waiter), $expected, "$scope: the waiter has it");
		is($waiter->query_safe("SELECT lock_release('k')"), 't', "$scope: and can release it");
	}
}

#
# Or by an error: what ends the statement is raised, the rest is a reply.
#
$holder->query_safe("SELECT lock_acquire('k', 600)");
foreach my $case (
	[ 'statement_timeout', "SET statement_timeout = '200ms'", '57014' ],
	[ 'cancel', "SET statement_timeout = 0", '57014' ])
{
	my ($name, $setting, $sqlstate) = @$case;

	foreach my $statement ($wait_for, $try_lock)
	{
		$waiter->query_safe("$setting; BEGIN; SAVEPOINT s");
		$name eq 'cancel' ? queue_up($watch, [ $waiter, $statement ]) : begin_statement($waiter, $statement);
		$watch->query_safe('SELECT pg_cancel_backend(' . pid_of($waiter) . ')') if $name eq 'cancel';
		my (undef, $err) = end_statement($waiter);
		like($err, qr/ERROR:\s+$sqlstate/, "$name: raised");
		is($waiter->query_safe('ROLLBACK TO s; SELECT 1; COMMIT'), '1', "$name: the transaction goes on from the savepoint");
		ok(wait_until($watch, $none_left), "$name: nothing is left of the wait");
	}
}
$waiter->query_safe("SET lock_timeout = '100ms'; BEGIN");
begin_statement($waiter, q(SELECT r->>'code' FROM lock_request('{"operation": "acquire", "key": "k", "waitMs": -1}') r));
my ($reply, $warning) = end_statement($waiter);
is($reply, 'LOCK_ACQUISITION_ERROR', 'lock_timeout: a reply');
like($warning, qr/WARNING:\s+55P03: +Failed to acquire lock: canceling statement due to lock timeout \(SQLSTATE 55P03\)/, 'lock_timeout: and its cause');
is($waiter->query_safe("SELECT 1; COMMIT; RESET lock_timeout"), '1', 'lock_timeout: the transaction goes on');
ok(wait_until($watch, $none_left), 'lock_timeout: nothing is left of the wait');

queue_up($watch, [ $waiter, $wait_for ]);
$watch->query_safe('SELECT pg_terminate_backend(' . pid_of($waiter) . ')');
my (undef, $terminated) = end_statement($waiter);
like($terminated, qr/FATAL:\s+57P01/, 'termination ends the session');
$holder->query_safe("SELECT lock_release('k')");

#
# A race of ten, round after round: one of them has it, while its transaction is
# open and after.  They set out from a lock, all at once.
#
my @racers = map { new_session($node) } 1 .. 10;
my $pids = join ', ', map { pid_of($_) } @racers;

foreach my $round (1 .. 20)
{
	my @open = $round % 2 ? @racers : ();

	$holder->query_safe('SELECT pg_advisory_lock(1)');
	$_->query_safe('BEGIN') foreach @open;
	begin_statement($_, <<EOC) foreach @racers;
SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1),
	lock_request('{"operation": "acquire", "key": "race-$round", "timeout": 60}')->>'acquired'
EOC
	must_become($watch, "(SELECT count(*) FROM pg_locks WHERE NOT granted AND objid = 1 AND pid IN ($pids)) = 10");
	$holder->query_safe('SELECT pg_advisory_unlock(1)');
	is(join(' ', sort map { scalar end_statement($_) } @racers), join(' ', ('|t|false') x 9, '|t|true'),
		"a race, round $round" . (@open ? ', in open transactions' : ''));
	$_->query_safe('COMMIT') foreach @open;
	is($watch->query_safe("SELECT count(*) FROM lockext_held WHERE key = 'race-$round'"), '1', 'there is one lock');
}
$_->quit foreach @racers;

#
# A lock with a timeout outlives a restart, be it a crash, although the session
# does not wait for WAL, and its process has ended.
#
foreach my $how (qw(immediate fast))
{
	$holder->query_safe('SET synchronous_commit = off');
	my $token = $holder->query_safe(qq(SELECT lock_request('{"operation": "acquire", "key": "restart-$how", "timeout": 600}')->>'token'));
	foreach my $session ($holder, $watch)
	{
		kill_client($session);
	}
	$node->stop($how);
	$node->start;
	$holder = new_session($node);
	$watch = new_session($node);
	is($holder->query_safe(qq(SELECT lock_request('{"operation": "check", "key": "restart-$how"}')->'exists', lock_request('{"operation": "acquire", "key": "restart-$how"}')->'acquired')),
		'true|false', "restart ($how): it is held");
	is($holder->query_safe(qq(SELECT lock_request('{"operation": "release", "key": "restart-$how", "token": $token}')->'released')),
		'true', "restart ($how): and released with its token");
}

#
# The extension is dropped while a statement calls the function again and again.
# What matters is that it has let go of its locks in between, and looks anew: for
# the function that stands for the privilege, which a superuser needs not, too.
#
$node->safe_psql('postgres', 'CREATE ROLE regress_app LOGIN');
foreach my $case (map { [ $_, q(lock_event('CheckLock', '{"id": 1}')) ], [ $_, q(lock_request('{"operation": "check", "key": "k"}')) ] } qw(none regress_app))
{
	my ($role, $call) = @$case;
	my $caller = new_session($node, "SET ROLE $role");

	$holder->query_safe('SELECT pg_advisory_lock(2)');
	begin_statement($caller, <<EOC);
SELECT pg_advisory_lock_shared(n), pg_advisory_unlock_shared(n), pg_relation_size('pg_class'::regclass), $call
FROM (VALUES (1), (2)) v(n)
EOC
	must_become($watch, 'EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = ' . pid_of($caller) . ')');
	$node->safe_psql('postgres', "SET lock_timeout = '$PostgreSQL::Test::Utils::timeout_default s'; DROP EXTENSION lockext");
	$holder->query_safe('SELECT pg_advisory_unlock(2)');
	my ($out, $err) = end_statement($caller);
	like($err, qr/(ERROR|WARNING):\s+42P01/, "$role, $call: the extension is gone");
	is($caller->query_safe('SELECT 1'), '1', "$role, $call: the session is not");
	$caller->quit;
	$node->safe_psql('postgres', 'CREATE EXTENSION lockext');
}
$_->quit foreach $holder, $watch;

#
# lockext.domains: what a superuser has set for a role is not the client's to
# change, neither with the library preloaded nor without.
#
sub try_as
{
	my ($where, $options, $domain) = @_;
	local $ENV{PGOPTIONS} = $options;
	my ($ret, $out, $err) = $where->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT lock_try('k', domain => '$domain') IS NOT NULL", connstr => $where->connstr('postgres') . ' user=regress_app');
	return $ret == 0 && $err !~ /ERROR/ ? $out : $err =~ /ERROR:\s+(\w{5})/ ? $1 : $err =~ /FATAL/ ? 'FATAL' : $err;
}

my $late = new_node('late', preload => 0);
foreach my $case ([ $node, 'preloaded', 'FATAL' ], [ $late, 'not preloaded', '42501' ])
{
	my ($where, $name, $refusal) = @$case;

	$where->safe_psql('postgres', 'CREATE ROLE regress_app LOGIN') if $where == $late;
	$where->safe_psql('postgres', "ALTER ROLE regress_app SET lockext.domains = 'mine'");
	is(try_as($where, '', 'mine'), 't', "$name: its domain");
	is(try_as($where, '', 'other'), '42501', "$name: another domain");
	foreach my $value ('*', 'other', 'x,,y')
	{
		is(try_as($where, "-c lockext.domains=$value", 'other'), $refusal, "$name: another domain, the client says $value");
	}
	is(try_as($where, '-c role=regress_app', 'other'), '42501', "$name: another domain, under SET ROLE");
}

done_testing();
