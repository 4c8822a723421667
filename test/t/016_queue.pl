# The queue: a hundred waiters are served in order of arrival, whatever they
# want the lock for, and those who only try do not overtake them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $n = 100;
my $node = new_node('main', conf => 'max_connections = 130');
$node->safe_psql('postgres', <<'EOC');
CREATE TABLE grants (n serial, pid integer DEFAULT pg_backend_pid(), token bigint);
CREATE ROLE alice;
GRANT ALL ON grants, grants_n_seq TO alice;
EOC

my $watch = new_session($node);
my $holder = new_session($node);
my @scopes = qw(lease session transaction);
my @waiters;

#
# Each takes the lock, writes that down and releases it.
#
sub wait_and_release
{
	my ($i) = @_;
	my $scope = $scopes[ $i % 3 ];

	return <<EOC if $scope eq 'transaction';
BEGIN;
INSERT INTO grants (token) SELECT token FROM lock_acquire('q', wait_ms => -1, scope => 'transaction', domain => 'd') WHERE acquired;
COMMIT
EOC
	my $take = $i % 2
	  ? "CALL lock_acquire_wait('q', scope => '$scope', domain => 'd')"
	  : "SELECT lock_acquire('q', wait_ms => -1, scope => '$scope', domain => 'd')";
	return <<EOC;
$take;
INSERT INTO grants (token) SELECT token FROM lock_check('q', 'd') WHERE held AND pid = pg_backend_pid();
SELECT lock_release('q', domain => 'd')
EOC
}

$holder->query_safe("SELECT lock_acquire('q', domain => 'd')");
$holder->query_safe("SELECT lock_acquire('', master => true, domain => 'd')");
my $before = $watch->query_safe('SELECT clock_timestamp()');
foreach my $i (0 .. $n - 1)
{
	push @waiters, new_session($node, $i == 1 ? 'SET ROLE alice' : undef);
	queue_up($watch, [ $waiters[$i], wait_and_release($i) ]);
}

# some who wait for something else meanwhile
my $master = new_session($node);
my $elsewhere = new_session($node);
$holder->query_safe("SELECT lock_acquire('q')");
queue_up($watch,
	[ $master, "CALL lock_acquire_wait('', master => true, domain => 'd')" ],
	[ $elsewhere, "SELECT lock_acquire('q', wait_ms => -1)" ]);

is( $watch->query_safe("SELECT string_agg(pid::text, ' ' ORDER BY position) FROM lockext_waiters WHERE key = 'q' AND domain = 'd'"),
	join(' ', map { pid_of($_) } @waiters),
	'lockext_waiters: in order of arrival');
is( $watch->query_safe("SELECT string_agg(position::text, ' ' ORDER BY since) FROM lockext_waiters WHERE key = 'q' AND domain = 'd'"),
	join(' ', 1 .. $n),
	'lockext_waiters: position, since');
is( $watch->query_safe("SELECT count(*) FROM lockext_waiters WHERE since < '$before' OR since > clock_timestamp()"),
	0, 'lockext_waiters: since');
is($watch->query_safe(<<'EOC'),
SELECT owner = current_user, key, domain, master, scope, form
FROM lockext_waiters WHERE key = 'q' AND domain = 'd' ORDER BY position LIMIT 4
EOC
	"t|q|d|f|lease|statement\nf|q|d|f|session|call\nt|q|d|f|transaction|statement\nt|q|d|f|lease|call",
	'lockext_waiters: what for, and how');
is($watch->query_safe("SELECT owner FROM lockext_waiters WHERE pid = " . pid_of($waiters[1])),
	'alice', 'lockext_waiters: owner');
is( $watch->query_safe("SELECT pid, key IS NULL, domain, master, position, scope, form FROM lockext_waiters WHERE master"),
	pid_of($master) . '|t|d|t|1|lease|call',
	'lockext_waiters: a master lock');
is( $watch->query_safe("SELECT pid, key, domain, master, position, scope, form FROM lockext_waiters WHERE domain = ''"),
	pid_of($elsewhere) . '|q||f|1|lease|statement',
	'lockext_waiters: a key of the same name in another domain');
is( $watch->query_safe("SELECT domain, master, waiters FROM lockext_held ORDER BY domain, master"),
	"|f|1\nd|f|$n\nd|t|1",
	'lockext_held: how many wait');
is( $watch->query_safe("SELECT (lock_check('q', 'd')).waiters, (lock_check('', 'd', true)).waiters, (lock_check('q')).waiters, (lock_check('other')).waiters"),
	"$n|1|1|0", 'lock_check(): how many wait');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION lockext');
is($node->safe_psql('other', "SELECT (SELECT count(*) FROM lockext_waiters), (lock_check('q')).waiters"),
	'0|0', 'nobody waits in another database');

$holder->query_safe("SELECT lock_release('q', domain => 'd')");
my @errors = grep { $_ ne '' } map { (end_statement($_))[1] } @waiters;
is("@errors", '', 'all of them are served');
is( $watch->query_safe("SELECT string_agg(pid::text, ' ' ORDER BY n) FROM grants"),
	join(' ', map { pid_of($_) } @waiters),
	'in order of arrival');
is($watch->query_safe('SELECT count(*) FROM (SELECT token > lag(token) OVER (ORDER BY n) AS rises FROM grants) t WHERE NOT rises'),
	0, 'with rising tokens');
is($watch->query_safe("SELECT count(*), min(domain || master) FROM lockext_waiters WHERE domain = 'd'"),
	'1|dtrue', 'the others wait on');
$holder->query_safe("SELECT lock_release('', master => true, domain => 'd'), lock_release('q')");
end_statement($_) foreach $master, $elsewhere;
is($watch->query_safe('SELECT count(*) FROM lockext_waiters'), 0, 'nobody waits any more');
$watch->query_safe("SELECT lock_break('q'), lock_break('', master => true, domain => 'd')");
$_->quit foreach $master, $elsewhere, @waiters[ 9 .. $#waiters ];
splice @waiters, 9;
my $waiter = pop @waiters;

#
# Eight sessions try, and release at once.  Each time, they note whether somebody
# waited at that moment: whether the queue's turnstile was taken.  The waiter
# comes again and again.
#
$node->safe_psql('postgres', <<'EOC');
CREATE TABLE overtaken (token bigint);
CREATE SEQUENCE handovers;
GRANT ALL ON overtaken, handovers TO alice;
CREATE PROCEDURE try_and_release(which text) LANGUAGE plpgsql AS $$
DECLARE
	t bigint;
	somebody_waits boolean;
BEGIN
	WHILE pg_try_advisory_xact_lock_shared(4711) LOOP
		t := lock_try('tight', scope => which);
		COMMIT;
		CONTINUE WHEN t IS NULL;
		PERFORM nextval('handovers');
		somebody_waits := EXISTS (SELECT FROM pg_locks
			WHERE objsubid = 27757 AND mode = 'ExclusiveLock' AND granted);
		IF somebody_waits THEN
			INSERT INTO overtaken VALUES (t);
		END IF;
		PERFORM lock_release('tight', t);
		COMMIT;
	END LOOP;
END $$;
EOC
begin_statement($waiters[$_], "CALL try_and_release('" . ($_ % 2 ? 'lease' : 'session') . "')") foreach 0 .. 7;

my $worst = 0;
my $rounds = 20;
my $served = 0;
foreach my $round (1 .. $rounds)
{
	my $from = $watch->query_safe('SELECT last_value FROM handovers');
	must_become($watch, "(SELECT last_value FROM handovers) > $from + 100");

	my $scope = $round % 2 ? 'lease' : 'session';
	my $token = $waiter->query_safe($round % 4 < 2
		? "SELECT token FROM lock_acquire('tight', wait_ms => 20000, scope => '$scope')"
		: "CALL lock_acquire_wait('tight', wait_ms => 20000, scope => '$scope'); SELECT token FROM lock_check('tight') WHERE pid = pg_backend_pid()");
	my $released = $waiter->query_safe("SELECT lock_release('tight')");
	my $passed = $watch->query_safe('WITH d AS (DELETE FROM overtaken RETURNING 1) SELECT count(*) FROM d');

	$served++ if $released eq 't';
	$worst = $passed if $passed > $worst;
}
is($served, $rounds, 'eight try and release: a waiter gets the lock each time');
cmp_ok($worst, '<=', 10, 'at the latest after ten others');

$holder->query_safe('SELECT pg_advisory_lock(4711)');
end_statement($_) foreach @waiters;
$_->quit foreach $watch, $holder, $waiter, @waiters;
$node->stop;
done_testing();
