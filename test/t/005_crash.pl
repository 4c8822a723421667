# Crashes: a committed lease is there afterwards, an uncommitted one is not.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => <<'EOC');
restart_after_crash = on
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
bgwriter_lru_maxpages = 0
checkpoint_timeout = 1h
lockext.retention = '1h'
EOC
$node->safe_psql('postgres', 'CREATE TABLE control (n integer)');

my $launcher =
  "SELECT pid FROM pg_stat_activity WHERE backend_type = 'lockext launcher'";

# Kill a process so that it takes the server down, and wait until all is back.
sub crash_by_killing
{
	my ($pid) = @_;
	my $log = log_position($node);

	kill 'KILL', $pid or die "could not kill $pid: $!";
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	$node->poll_query_until('postgres', 'SELECT 1', '1')
	  or die 'the server does not come back';
}

#
# The holder is killed.
#
my $before =
  $node->safe_psql('postgres', "SELECT lock_try('open'); SELECT lock_release('open')");
($before) = split /\n/, $before;

my $holder = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $holder->query_safe('SELECT pg_backend_pid()');
my $token = $holder->query_safe("SELECT lock_try('committed')");
$holder->query_safe("SELECT lock_try('limited', 3600)");
$holder->query_safe("SELECT lock_try('ended')");
$holder->query_safe("SELECT lock_release('ended')");
$holder->query_safe("BEGIN; SELECT lock_try('open') IS NULL");
$holder->query_safe("SELECT lock_try('opened-first') IS NULL");
is($node->safe_psql('postgres', "SELECT reason FROM lock_acquire('open')"),
	'busy', 'somebody has an uncommitted lock');
crash_by_killing($pid);
eval { $holder->quit };

is($node->safe_psql('postgres', "SELECT reason FROM lock_acquire('committed')"),
	'held', 'its backend was killed: the committed lease is held');
is($node->safe_psql('postgres', "SELECT token FROM lock_check('committed')"),
	$token, 'with its token');
is($node->safe_psql('postgres', "SELECT reason, acquired FROM lock_acquire('limited', 10)"),
	'held|f', 'one with a timeout too');
my $after = $node->safe_psql('postgres', "SELECT lock_try('open')");
cmp_ok($after, '>', $before, 'the uncommitted one is free, and its token rises');
isnt($node->safe_psql('postgres', "SELECT lock_try('opened-first')"),
	'', 'one that never was there before is free too');
isnt($node->safe_psql('postgres', "SELECT lock_try('ended')"),
	'', 'what was released is free');
is($node->safe_psql('postgres', "SELECT lock_release('committed', $token)"),
	't', 'the lease can be released');
cmp_ok($node->safe_psql('postgres', "SELECT lock_try('committed')"),
	'>', $token, 'and taken again, with a greater token');

#
# The launcher is killed, or told to stop.
#
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($launcher) l");
my $old = $node->safe_psql('postgres', $launcher);
crash_by_killing($old);
ok( $node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM ($launcher) l WHERE pid <> $old"),
	'killed, the launcher comes back');
$old = $node->safe_psql('postgres', $launcher);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($old)");
ok( $node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM ($launcher) l WHERE pid <> $old"),
	'terminated, it comes back as well');

#
# A worker is killed while it removes rows.
#
# so many that several workers are needed, of which one is met at work
fill_with_due_rows($node, 'postgres', 20000);
my $log = log_position($node);
my $killer = $node->background_psql('postgres', on_error_stop => 0);
start_in_background($killer, <<'EOC');
DO $$
DECLARE
	worker integer;
BEGIN
	LOOP
		SELECT pid INTO worker FROM pg_stat_activity
		WHERE backend_type = 'lockext worker' AND datname = 'postgres';
		IF FOUND THEN
			BEGIN
				EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || worker);
			EXCEPTION WHEN OTHERS THEN
				NULL;				-- it has gone
			END;
		END IF;
		PERFORM pg_stat_clear_snapshot();
	END LOOP;
END $$
EOC
$node->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '0'");
$node->reload;
$node->wait_for_log(qr/background worker "lockext worker" \(PID \d+\) was terminated by signal 9/, $log);
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
eval { $killer->quit };
$node->poll_query_until('postgres', 'SELECT 1', '1');
rows_are_gone($node, 'postgres', 'a worker was killed at work: the next one does the rest',
	qw(committed ended limited open opened-first));
is($node->safe_psql('postgres', 'SELECT count(*) FROM lockext_held'),
	5, 'and what is held is held');
is_table_sound($node, 'table and index are sound') if has_amcheck($node);
is(worker_trouble($node, $log), '', 'no worker complains');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET lockext.retention');

#
# A lease is durable although synchronous_commit is off.  What is written after
# it is lost, which shows that the crash came before the WAL was written by
# somebody else; that can't be had for sure, so it is tried a few times.
#
sub lost_in_crash
{
	my ($statement) = @_;

	for my $attempt (1 .. 8)
	{
		$node->safe_psql('postgres', "TRUNCATE control; SELECT lock_break('lazy') WHERE true");
		my $result = $node->safe_psql('postgres', <<EOC);
SELECT lock_try('lazy', 100);
SET synchronous_commit = off;
$statement
INSERT INTO control VALUES (1);
EOC
		$node->stop('immediate');
		$node->start;
		my $lost =
		  $node->safe_psql('postgres', 'SELECT count(*) = 0 FROM control') eq 't';
		return (1, $lost, $result) if $lost || $attempt == 8;

		# what has to be there has to be there each time
		return (0, 0, $result)
		  if $node->safe_psql('postgres', "SELECT held FROM lock_check('lazy')") ne 't';
	}
}

foreach my $preload (1, 0)
{
	my $how = $preload ? 'preloaded' : 'not preloaded';

	$node->append_conf('postgresql.conf', "shared_preload_libraries = '@{[ $preload ? 'lockext' : '' ]}'");
	$node->restart;

	my ($kept, $lost, $result) =
	  lost_in_crash("SELECT lock_release('lazy'); SELECT lock_try('lazy', 200);");
	my ($first, undef, $second) = split /\n/, $result;
	ok($kept && $lost, "$how: what was committed asynchronously is lost in a crash");
	is($node->safe_psql('postgres', "SELECT held, timeout, token FROM lock_check('lazy')"),
		"t|200|$second", "$how: but a lease is not");
	is($node->safe_psql('postgres', "SELECT lock_try('lazy')"),
		'', "$how: and is refused to others");
	is($node->safe_psql('postgres', "SELECT lock_release('lazy', $second)"),
		't', "$how: it is its holder's to release");
	my $lasting = $node->safe_psql('postgres', "SELECT lock_try('lasting')");
	is($node->safe_psql('postgres', "SELECT lock_release('lasting')"), 't', "$how: a lock without timeout is released");
	$node->stop('immediate');
	$node->start;
	is($node->safe_psql('postgres', "SELECT held FROM lock_check('lasting')"),
		'f', "$how: that release stays");
	cmp_ok($node->safe_psql('postgres', "SELECT lock_try('lasting')"),
		'>', $lasting, "$how: tokens rise");
	$node->safe_psql('postgres', "SELECT lock_release('lasting')");

	# the release of a lock with timeout may be undone: then it is as before
	is($node->safe_psql('postgres', "SELECT held FROM lock_check('lazy')"),
		'f', "$how: a release is not lost if something was flushed after it");
	my $third = $node->safe_psql('postgres', "SELECT lock_try('lazy', 200)");
	cmp_ok($third, '>', $second, "$how: tokens rise here too");
	$node->safe_psql('postgres', "SELECT lock_release('lazy')");
	$node->stop('immediate');
	$node->start;
	my $after = $node->safe_psql('postgres', "SELECT held, token, extract(epoch FROM expires_at - acquired_at)::integer FROM lock_check('lazy')");
	like($after, qr/^(t\|$third\|200|f\|\|)$/, "$how: a release with timeout has taken place or has not");
	$node->safe_psql('postgres', "SELECT lock_release('lazy', $third)") if $after =~ /^t/;
	cmp_ok($node->safe_psql('postgres', "SELECT lock_try('lazy')"),
		'>', $third, "$how: and the lock is to be had, with a greater token");

	($kept, $lost) = lost_in_crash("SELECT 1 FROM lock_renew('lazy', 3000);");
	ok($kept && $lost, "$how: again the crash came in time");
	is($node->safe_psql('postgres', "SELECT held, timeout FROM lock_check('lazy')"),
		't|3000', "$how: a renewal is not lost either");

	# a release may be lost, and is then made again
	($kept, $lost, $result) = lost_in_crash("SELECT lock_release('lazy');");
	($first) = split /\n/, $result;
	$node->safe_psql('postgres', "SELECT lock_release('lazy', $first)");
	cmp_ok($node->safe_psql('postgres', "SELECT lock_try('lazy')"),
		'>', $first, "$how: after a release, lost or not, the lock is to be had with a greater token");
}

$node->stop;
done_testing();
