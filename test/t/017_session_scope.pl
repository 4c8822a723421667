# Scope "session": how such a lock ends other than by its release, and what it
# costs.  Scope "transaction": that it costs next to nothing.

use strict;
use warnings;

use FindBin;
use IO::Socket::UNIX;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', allows_streaming => 1, conf => <<'EOC');
max_locks_per_transaction = 10
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
bgwriter_lru_maxpages = 0
checkpoint_timeout = 1h
EOC
my $watch = new_session($node);

# Locks of this server's processes that stand for a session-scoped lock.
my $live = 'SELECT count(*) FROM pg_locks WHERE objsubid = 27759';

sub end_client
{
	my $session = shift;

	$session->{run}->signal('KILL');
	eval { $session->{run}->finish };
}

# The lock has ended: the token of before is good for nothing, and whoever comes
# gets the lock, with a greater token.
sub is_free
{
	my ($key, $token, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is( $watch->query_safe(<<EOC), 'f|f|lost|f|t', "$test: the token is good for nothing; the lock is to be had");
SELECT held, lock_release('$key', $token), (lock_renew('$key', 10, $token)).reason,
	EXISTS (SELECT FROM lockext_held WHERE key = '$key'), lock_try('$key') > $token
FROM lock_check('$key')
EOC
	$watch->query_safe("SELECT lock_release('$key')");
}

#
# The end of the session.
#
my %ends = (
	'exit' => sub { $_[0]->quit },
	'client killed' => sub { end_client($_[0]) },
	'backend terminated' => sub { $watch->query_safe('SELECT pg_terminate_backend(' . pid_of($_[0]) . ')'); end_client($_[0]) });

foreach my $way (sort keys %ends)
{
	my $session = new_session($node);
	my $token = $session->query_safe("SELECT token FROM lock_acquire('k', scope => 'session')");

	is( $watch->query_safe("SELECT held, scope, pid, token FROM lock_check('k')"),
		't|session|' . pid_of($session) . "|$token", "$way: the lock is held");
	is($watch->query_safe("SELECT acquired, reason, holder->>'scope' FROM lock_acquire('k')"),
		'f|held|session', "$way: and refused");
	$ends{$way}->($session);
	must_become($watch, 'NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ' . pid_of($session) . ')');
	is_free('k', $token, $way);
}
rows_are_gone($node, 'postgres', 'the rows are removed');

# without anybody having taken the lock after it
my $session = new_session($node);
$session->query_safe("SELECT lock_acquire('gone-' || i, scope => 'session') FROM generate_series(1, 20) i");
is_row_count($node, 'postgres', 20, 'a session holds locks');
$session->quit;
rows_are_gone($node, 'postgres', 'it has ended: the worker removes their rows');

#
# Commands that end the locks of the session while it goes on.
#
$session = new_session($node);
my $log = log_position($node);
foreach my $case (
	[ 'DISCARD ALL', "SELECT token FROM lock_acquire('k', scope => 'session')", 'DISCARD ALL' ],
	[ 'pg_advisory_unlock_all()', "SELECT token FROM lock_acquire('k', scope => 'session')", 'SELECT pg_advisory_unlock_all()' ],
	[ 'pg_advisory_unlock_all() in a later transaction, rolled back', "SELECT token FROM lock_acquire('k', scope => 'session')",
		'BEGIN; SELECT pg_advisory_unlock_all(); ROLLBACK' ],
	[ 'pg_advisory_unlock_all() in the transaction', "BEGIN; SELECT token FROM lock_acquire('k', scope => 'session')",
		'SELECT pg_advisory_unlock_all(); COMMIT' ],
	[ 'pg_advisory_unlock_all() in a savepoint of the transaction', "BEGIN; SELECT token FROM lock_acquire('k', scope => 'session')",
		'SAVEPOINT s; SELECT pg_advisory_unlock_all(); ROLLBACK TO s; COMMIT' ])
{
	my ($way, $take, $end) = @$case;
	my $token = $session->query_safe($take);

	$session->query_safe($end);
	is($session->query_safe("SELECT held FROM lock_check('k')"),
		'f', "$way: the session does not hold the lock any more");
	is($session->query_safe("SELECT lock_release('k', $token)"), 'f', "$way: it has nothing to release");
	is($session->query_safe("SELECT reason FROM lock_renew('k', 10, $token)"), 'lost', "$way: nor to renew");
	is_free('k', $token, $way);
	is($session->query_safe("SELECT acquired FROM lock_acquire('k', scope => 'session')"),
		't', "$way: it can have the lock again");
	is($watch->query_safe("SELECT lock_try('k') IS NULL"), 't', "$way: which is refused to others");
	is($session->query_safe("SELECT lock_release('k')"), 't', "$way: until released");
	is($watch->query_safe($live), 0, "$way: nothing is left in the lock manager");
}
my @lines = slurp_file($node->logfile, $log) =~ /LOG:  (session-scoped locks of this session were ended by [^\n]*)/g;
is(scalar @lines, 1, 'the log tells of it, once for the session');

# The lock is the transaction's own to the end of that; nobody else gets it before.
my $token = $session->query_safe("BEGIN; SELECT token FROM lock_acquire('k', scope => 'session')");
$session->query_safe('SELECT pg_advisory_unlock_all()');
is($session->query_safe("SELECT lock_release('k', $token)"),
	'f', 'pg_advisory_unlock_all(): nothing to release in the same transaction either');
is($watch->query_safe("SELECT reason FROM lock_acquire('k')"), 'busy', 'others wait for its end');
$session->query_safe('COMMIT');
is_free('k', $token, 'after that');

# leases and transaction-scoped locks stay
$token = $session->query_safe("BEGIN; SELECT lock_acquire('tx', scope => 'transaction'); SELECT pg_advisory_unlock_all(); SELECT held FROM lock_check('tx')");
like($token, qr/\bt$/, 'pg_advisory_unlock_all(): a transaction-scoped lock stays');
is($watch->query_safe("SELECT reason FROM lock_acquire('tx')"), 'busy', 'and is refused to others');
$session->query_safe('COMMIT');
$session->query_safe("SELECT lock_acquire('lease')");
$session->query_safe('DISCARD ALL');
is($watch->query_safe("SELECT held FROM lock_check('lease')"), 't', 'DISCARD ALL: a lease stays');
$watch->query_safe("SELECT lock_break('lease')");

#
# It expires while its session hangs.
#
$session = new_session($node);
$token = $session->query_safe("SELECT token FROM lock_acquire('k', 1, scope => 'session')");
begin_statement($session, 'SELECT pg_advisory_lock(1), pg_sleep(60)');
my $waiter = new_session($node);
my $elapsed = seconds_for(
	sub {
		is($waiter->query_safe("SELECT acquired FROM lock_acquire('k', wait_ms => 20000)"),
			't', 'a lock expires while its session hangs: a waiter gets it');
	});
cmp_ok($elapsed, '<', 4, 'in time');
$watch->query_safe('SELECT pg_cancel_backend(' . pid_of($session) . ')');
end_statement($session);
is($session->query_safe("SELECT lock_release('k', $token), (lock_renew('k', 10, $token)).reason"),
	'f|lost', 'the session has lost it');
is($waiter->query_safe("SELECT lock_release('k')"), 't', "and does not get in the new holder's way");
$_->quit foreach $session, $waiter;

#
# Many locks, one after the other, leave nothing behind.
#
$session = new_session($node, "SET synchronous_commit = off");
foreach my $how ('in transactions of their own', 'in one transaction')
{
	my $n = 100_000;
	my $commit = $how =~ /own/ ? 'COMMIT' : 'NULL';
	my ($out, $err) = $session->query(<<EOC);
DO \$\$
DECLARE
	locks bigint;
BEGIN
	FOR i IN 1..$n LOOP
		PERFORM lock_try('short', scope => 'session');
		$commit;
		IF NOT lock_release('short') THEN
			RAISE WARNING 'nothing to release';
		END IF;
		$commit;
	END LOOP;
	SELECT count(*) INTO locks FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
	IF locks > 2 THEN
		RAISE WARNING '% locks', locks;
	END IF;
END \$\$
EOC
	is($session->{stderr}, '', "many locks, $how: hardly any at a time in the lock manager");
	$session->{stderr} = '';
	is($watch->query_safe($live), 0, "many locks, $how: none is left");
}

# Nor do locks that end without their session's doing.  It hears of that when it
# takes the next ones.
my $other = new_session($node, "SET synchronous_commit = off");
foreach my $end ('lock_release()', 'lock_break()')
{
	my $call = $end eq 'lock_break()' ? "lock_break('taken-away', -1)" : "lock_release('taken-away')";
	my $n = 5_000;

	begin_statement($other, <<EOC);
DO \$\$
DECLARE
	n integer := 0;
BEGIN
	WHILE n < $n LOOP
		IF $call THEN
			n := n + 1;
		END IF;
		COMMIT;
	END LOOP;
END \$\$
EOC
	$session->query(<<EOC);
DO \$\$
DECLARE
	n integer := 0;
	locks bigint;
BEGIN
	WHILE n < $n LOOP
		IF lock_try('taken-away', scope => 'session') IS NOT NULL THEN
			n := n + 1;
		END IF;
		COMMIT;
	END LOOP;
	SELECT count(*) INTO locks FROM pg_locks WHERE pid = pg_backend_pid() AND objsubid = 27759;
	IF locks > 4 THEN
		RAISE WARNING '% locks', locks;
	END IF;
END \$\$
EOC
	is($session->{stderr}, '', "ended by another session's $end, many times: hardly any at a time in the lock manager");
	$session->{stderr} = '';
	my ($out, $err) = end_statement($other);
	is($err, '', "$end of another session's lock");
}
$other->quit;

$session->query_safe("SELECT count(lock_acquire('expires-' || i, 1, scope => 'session')) FROM generate_series(1, 100) i");
cmp_ok($watch->query_safe($live), '>=', 100, 'a session holds many locks');
must_become($watch, "NOT EXISTS (SELECT FROM lockext_held WHERE key LIKE 'expires-%')");
$session->query_safe("DO 'BEGIN FOR i IN 1..60 LOOP PERFORM lock_try(\$\$short\$\$, scope => \$\$session\$\$); COMMIT; PERFORM lock_release(\$\$short\$\$); COMMIT; END LOOP; END'");
cmp_ok($watch->query_safe($live), '<=', 4, 'they expire, and it takes others: nothing is left of them in the lock manager');
$session->quit;

#
# Released while somebody waits, by a statement that is not in a transaction block
# but in a pipeline, where it gets into one afterwards.
#

# A client that can send such a pipeline, which psql cannot.
sub raw_connect
{
	my $socket = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port)
	  or die "could not connect: $!";
	my $startup = pack('N (Z*)*', 196608, user => scalar getpwuid($>), database => 'postgres', '');

	print $socket pack('N', 4 + length $startup) . $startup;
	$socket->flush;
	raw_answer($socket);
	return $socket;
}

# What is said up to ReadyForQuery: values, command tags and SQLSTATEs.
sub raw_answer
{
	my $socket = shift;
	my @said;
	my $type = '';

	local $SIG{ALRM} = sub { die 'no answer' };
	alarm $PostgreSQL::Test::Utils::timeout_default;
	while ($type ne 'Z')
	{
		read($socket, my $head, 5) == 5 or die 'connection lost';
		($type, my $length) = unpack 'a N', $head;
		read($socket, my $body, $length - 4) == $length - 4 or die 'connection lost';
		push @said, unpack 'x2 N/a', $body if $type eq 'D';
		push @said, unpack 'Z*', $body if $type eq 'C';
		push @said, $body =~ /\0C(\w{5})\0/ if $type eq 'E';
	}
	alarm 0;
	return join ' ', @said;
}

# Statements with nothing but one Sync, at the end.
sub pipeline
{
	my ($socket, @statements) = @_;

	foreach my $statement (@statements)
	{
		foreach my $message ([ P => pack('x Z* n', $statement, 0) ], [ B => pack('x2 n3', 0, 0, 0) ], [ E => pack('x N', 0) ])
		{
			print $socket $message->[0] . pack('N', 4 + length $message->[1]) . $message->[1];
		}
	}
	print $socket 'S' . pack('N', 4);
	$socket->flush;
	return raw_answer($socket);
}

my $raw = raw_connect();
$waiter = new_session($node);
is(pipeline($raw, "SELECT acquired FROM lock_acquire('piped', scope => 'session')"), 't SELECT 1', 'a client that sends pipelines has a lock');
queue_up($watch, [ $waiter, "SELECT acquired FROM lock_acquire('piped', wait_ms => -1)" ]);
foreach my $end ([ 'ROLLBACK', 'ROLLBACK' ], [ "PREPARE TRANSACTION 'p'", '0A000' ])
{
	my ($statement, $answer) = @$end;

	is(pipeline($raw, "SELECT lock_release('piped')", 'BEGIN', $statement), "t SELECT 1 BEGIN $answer",
		"release, BEGIN and $statement in one pipeline");
	is(pipeline($raw, "SELECT held AND pid = pg_backend_pid() FROM lock_check('piped')"), 't SELECT 1', 'the client still has the lock');
	is($watch->query_safe("SELECT count(*) FROM lockext_waiters WHERE key = 'piped'"), 1, 'and the other waits');
}
is($watch->query_safe('SELECT count(*) FROM pg_prepared_xacts'), 0, 'nothing is prepared');
is(pipeline($raw, "SELECT lock_release('piped')", 'BEGIN', 'COMMIT'), 't SELECT 1 BEGIN COMMIT', 'release, BEGIN and COMMIT in one pipeline');
is(end_statement($waiter), 't', 'the other gets the lock');
$raw->close;
$waiter->query_safe("SELECT lock_release('piped')");
$waiter->quit;

#
# Commit: nothing but session-scoped locks does not wait for the disk.
#
$node->safe_psql('postgres', 'CREATE TABLE plain (n integer)');
$session = new_session($node);

# How many of so many commits were flushed when they returned.
sub flushed
{
	my ($n, $statements) = @_;
	my $flushed = 0;

	foreach (1 .. $n)
	{
		my $written = $session->query_safe("BEGIN; $statements; SELECT pg_current_wal_insert_lsn()");
		($written) = $written =~ /(\S+)\s*$/;
		$session->query_safe('COMMIT');
		$flushed++ if $session->query_safe("SELECT pg_current_wal_flush_lsn() > '$written'") eq 't';
	}
	return $flushed;
}

my $acquire = "SELECT lock_acquire('async', scope => 'session')";
my $release = "SELECT lock_release('async')";

# the WAL writer may come in between now and then
cmp_ok(flushed(20, "$acquire; $release"), '<', 20, 'session scope: acquire and release do not wait for a flush');
is($session->query_safe('SHOW synchronous_commit'), 'on', 'and leave synchronous_commit alone');
my $flushed = 0;
foreach (1 .. 10)
{
	$flushed += flushed(1, $acquire) + flushed(1, $release);
}
cmp_ok($flushed, '<', 20, 'nor each for itself');
is(flushed(5, "INSERT INTO plain VALUES (1); $acquire; $release"), 5, 'something was written before: they do');
is(flushed(5, "$acquire; INSERT INTO plain VALUES (1); $release"), 5, 'in between: they do');
is(flushed(5, "$acquire; $release; INSERT INTO plain VALUES (1)"), 5, 'after: they do');
is(flushed(5, "SAVEPOINT s; INSERT INTO plain VALUES (1); RELEASE s; $acquire; $release"), 5, 'in a savepoint: they do');
is(flushed(5, "$acquire; $release; SELECT lock_acquire('lease'); SELECT lock_release('lease')"), 5, 'a lease was taken too: they do');
is(flushed(5, "SELECT lock_acquire('lease-' || to_char(clock_timestamp(), 'SSSSUS'), 1)"), 5, 'a lease alone: it does');

# The release of a lease need not wait either if its timeout ends it anyway, should a
# crash undo the release.
sub flushed_releases
{
	my ($n, $acquire, $statements) = @_;
	my $flushed = 0;

	foreach (1 .. $n)
	{
		$session->query_safe($acquire);
		$flushed += flushed(1, $statements);
	}
	return $flushed;
}
my $timed = "SELECT lock_try('released', 60)";
my $untimed = "SELECT lock_try('released')";
$release = "SELECT lock_release('released')";
cmp_ok(flushed_releases(20, $timed, $release), '<', 20, 'release of a lease with timeout: does not wait for a flush');
is(flushed_releases(5, $timed, "$release; INSERT INTO plain VALUES (1)"), 5, 'something was written too: it does');
is(flushed_releases(5, $timed, "INSERT INTO plain VALUES (1); $release"), 5, 'or before: it does');
is(flushed_releases(5, $timed, "$release; SELECT lock_try('other-' || to_char(clock_timestamp(), 'SSSSUS'), 1)"), 5, 'another lease was taken: it does');
is(flushed_releases(5, $untimed, $release), 5, 'release of a lease without timeout: it does');
is(flushed_releases(5, $timed, "SELECT lock_break('released')"), 5, 'break: it does');

# Nor does an acquisition that waits if its first look has tidied up the page,
# which makes WAL too: here many versions of the row, by as many renewals.
my $holder = new_session($node);
my $pruned = 0;
$flushed = 0;
$watch->query_safe('VACUUM lockext_lock');
foreach (1 .. 5)
{
	$holder->query_safe(<<'EOC');
SELECT lock_acquire('pruned', scope => 'session', data => jsonb_build_object('filler', repeat('x', 900)));
DO $$
DECLARE
	row_size integer := (SELECT pg_column_size(l) FROM lockext_lock l WHERE key = 'pruned');
BEGIN
	FOR i IN 1 .. 6600 / row_size LOOP
		PERFORM lock_renew('pruned', NULL);
	END LOOP;
END $$;
EOC
	my $written = $watch->query_safe('SELECT pg_current_wal_insert_lsn()');
	$session->query_safe('BEGIN');
	queue_up($watch, [ $session, "SELECT acquired FROM lock_acquire('pruned', wait_ms => -1, scope => 'session')" ]);
	my $has_pruned = $watch->query_safe("SELECT pg_current_wal_insert_lsn() > '$written'") eq 't';
	$holder->query_safe("SELECT lock_release('pruned')");
	is(end_statement($session), 't', 'waited for a lock whose row has many versions');
	$written = $session->query_safe('SELECT pg_current_wal_insert_lsn()');
	$session->query_safe('COMMIT');
	$pruned++ if $has_pruned;
	$flushed++ if $has_pruned && $session->query_safe("SELECT pg_current_wal_flush_lsn() > '$written'") eq 't';
	$session->query_safe("SELECT lock_release('pruned')");
}
$holder->quit;
cmp_ok($pruned, '>', 0, 'the first look removes them');
cmp_ok($flushed, '<', $pruned, 'and the commit does not wait for a flush');

#
# Scope "transaction".
#
my $take = "SELECT lock_acquire('t', scope => 'transaction'), lock_try('t2', scope => 'transaction'), lock_release('t2')";
foreach my $isolation ('READ COMMITTED READ WRITE', 'READ COMMITTED READ ONLY', 'REPEATABLE READ READ ONLY', 'SERIALIZABLE READ ONLY')
{
	$session->query_safe("BEGIN TRANSACTION ISOLATION LEVEL $isolation");
	is($session->query_safe("SELECT acquired, token IS NOT NULL FROM lock_acquire('t', scope => 'transaction')"),
		't|t', "transaction scope: $isolation");
	is($watch->query_safe("SELECT reason, holder->>'pid', holder->>'scope' FROM lock_acquire('t')"),
		'busy|' . pid_of($session) . '|transaction', 'transaction scope: excludes others');
	is($session->query_safe('SELECT pg_current_xact_id_if_assigned() IS NULL'), 't', 'transaction scope: no transaction ID');
	$session->query_safe('COMMIT');
	is($watch->query_safe("SELECT held FROM lock_check('t')"), 'f', 'transaction scope: free afterwards');
}

# Whatever else writes WAL does so now and then only.
my $quiet = 0;
$session->query_safe($take);
foreach (1 .. 10)
{
	my $from = $session->query_safe('SELECT pg_current_wal_insert_lsn()');

	$session->query_safe("DO 'BEGIN FOR i IN 1..100 LOOP PERFORM lock_try(\$\$t\$\$ || i, scope => \$\$transaction\$\$); COMMIT; END LOOP; END'");
	$quiet++ if $session->query_safe("SELECT pg_current_wal_insert_lsn() = '$from'") eq 't';
}
cmp_ok($quiet, '>=', 8, 'transaction scope: no WAL');

#
# The end of the server; a standby.
#
foreach my $how (qw(immediate fast))
{
	$token = $session->query_safe("SELECT token FROM lock_acquire('k', scope => 'session')");

	# so that a crash does not forget the row
	$session->query_safe("INSERT INTO plain VALUES (1)");
	$node->stop($how);
	end_client($_) foreach $session, $watch;
	$node->start;
	$watch = new_session($node);
	$session = new_session($node);
	is_free('k', $token, "stop -m $how");
}
rows_are_gone($node, 'postgres', 'the rows are removed');

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$session->query_safe("SELECT lock_acquire('unheard-of', 1, scope => 'session')");
$token = $session->query_safe("SELECT token FROM lock_acquire('k', scope => 'session')");
$session->query_safe("INSERT INTO plain VALUES (1)");
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT held, scope, token FROM lock_check('k')"),
	"t|session|$token", 'standby: lock_check() shows the lock');
is($standby->safe_psql('postgres', "SELECT key, scope FROM lockext_held WHERE key = 'k'"),
	'k|session', 'standby: lockext_held too');
ok($standby->poll_query_until('postgres', "SELECT NOT held FROM lock_check('unheard-of')"),
	'standby: until it expires');
is(sqlstate_of($standby, 'postgres', "SELECT lock_acquire('k', scope => '$_')"), '25006', "standby: no lock with scope $_ can be taken")
  foreach qw(session lease);
$node->stop('immediate');
end_client($_) foreach $session, $watch;
$standby->promote;
$watch = new_session($standby);
is_free('k', $token, 'promoted');
rows_are_gone($standby, 'postgres', 'promoted: the rows are removed');

$watch->quit;
$standby->stop;
done_testing();
