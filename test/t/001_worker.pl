# The launcher and its workers: what they remove and when, and that they do
# nothing where there is nothing to do.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# Far more than anything here takes.
my $slack = 20;

my $node = new_node('main', create => 0, conf => 'max_locks_per_transaction = 10');
my ($ret, $stdout, $stderr) =
  $node->psql('postgres', 'CREATE EXTENSION lockext');
is("$ret$stderr", '0', 'CREATE EXTENSION says nothing where the library is preloaded');

my $launchers =
  "FROM pg_stat_activity WHERE backend_type = 'lockext launcher'";
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $launchers"),
	'the launcher is in pg_stat_activity');
ok( $node->poll_query_until('postgres', <<EOC), 'with its wait event');
SELECT wait_event_type = 'Extension' AND wait_event =
	CASE WHEN current_setting('server_version_num')::int < 170000
		THEN 'Extension' ELSE 'LockextLauncherMain' END
$launchers
EOC

#
# Released and expired rows go, held ones stay.
#
my $elapsed = seconds_for(
	sub {
		$node->safe_psql('postgres', <<'EOC');
SELECT lock_try('held'), lock_try('held-long', 3600), lock_try('expired', 1), lock_try('released');
SELECT lock_release('released');
EOC
		rows_are_gone($node, 'postgres', 'released and expired rows are removed',
			'held', 'held-long');
	});
cmp_ok($elapsed, '<', 1 + $slack, 'within timeout, retention, naptime and some slack');
is( $node->safe_psql('postgres',
		"SELECT string_agg(key, ' ' ORDER BY key) FROM lockext_held"),
	'held held-long',
	'held locks are held as before');

#
# An idle server: the launcher sleeps.  Twenty naptimes long, or more.
#
sub voluntary_switches
{
	my $pid = shift;
	my ($n) =
	  slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	return $n;
}

my $pid = $node->safe_psql('postgres', "SELECT pid $launchers");
$node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'lockext worker'");
SKIP:
{
	skip 'no /proc', 2 unless -r "/proc/$pid/status";

	usleep(300_000);
	my $switches = voluntary_switches($pid);
	my $log = log_position($node);
	usleep(1_500_000);
	is(voluntary_switches($pid), $switches,
		'idle server, locks held: the launcher does not wake up');
	is(worker_starts($node, $log), 0, 'and starts no worker');
}

#
# Settings are reloaded.
#
sub reload_with
{
	my ($name, $value) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	$node->poll_query_until('postgres',
		"SELECT setting <> '' AND current_setting('$name') = '$value' FROM pg_settings WHERE name = '$name'");
}

reload_with('lockext.retention', '1h');
$node->safe_psql('postgres', "SELECT lock_try('kept'); SELECT lock_release('kept')");
my $log = log_position($node);
usleep(1_000_000);
is_row_count($node, 'postgres', 3, 'a released row is kept for lockext.retention');
is(worker_starts($node, $log), 0, 'and no worker is started meanwhile');
reload_with('lockext.retention', '0');
rows_are_gone($node, 'postgres', 'and removed when the retention is lowered',
	'held', 'held-long');

reload_with('lockext.naptime', '1h');
$node->safe_psql('postgres', "SELECT lock_try('kept'); SELECT lock_release('kept')");
$log = log_position($node);
usleep(1_000_000);
is_row_count($node, 'postgres', 3, 'or for lockext.naptime');
is(worker_starts($node, $log), 0, 'without a worker');
reload_with('lockext.naptime', '50ms');
rows_are_gone($node, 'postgres', 'and removed when that is lowered',
	'held', 'held-long');

#
# Several databases; one without the extension, one that is closed.
#
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(one two none closed);
$node->safe_psql($_, 'CREATE EXTENSION lockext') foreach qw(one two closed);
$node->safe_psql($_, "SELECT lock_try('held'), lock_try('expired', 1), lock_try('released'); SELECT lock_release('released')")
  foreach qw(one two);
rows_are_gone($node, $_, "rows of database $_ are removed", 'held')
  foreach qw(one two);

reload_with('lockext.retention', '1h');
$node->safe_psql($_, "SELECT lock_try('before'); SELECT lock_release('before')")
  foreach qw(one two closed);
$node->safe_psql('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS false');
$node->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '0'");
$log = log_position($node);
$node->restart;
rows_are_gone($node, $_, "after a restart every database is looked at: $_", 'held')
  foreach qw(one two);
rows_are_gone($node, 'postgres', 'the first one too', 'held', 'held-long');
$node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'lockext worker'");
is(worker_trouble($node, $log), '',
	'no worker stumbles over a closed database or one without the extension');

# closed while the launcher has it down for a visit
$node->safe_psql('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS true');
$node->safe_psql('closed', "SELECT lock_try('soon', 1)");
$node->safe_psql('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS false');
$node->safe_psql('one', "SELECT lock_try('later', 2)");
rows_are_gone($node, 'one', 'a closed database does not hold up another one', 'held');
is(worker_trouble($node, $log), '', 'nor is it tried in vain');
$node->safe_psql('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS true');
$node->safe_psql('closed', "SELECT lock_try('more'); SELECT lock_release('more')");
rows_are_gone($node, 'closed', 'open again, it is looked after again');

#
# Many rows, with a small lock table, and with few keys allowed per transaction.
#
$log = log_position($node);
$node->safe_psql('postgres', <<'EOC');
DO $$
BEGIN
	FOR i IN 1..10000 LOOP
		PERFORM lock_try('many-' || i, 1);
		IF i % 100 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END $$
EOC
$elapsed = seconds_for(
	sub {
		rows_are_gone($node, 'postgres', '10,000 expired rows are removed',
			'held', 'held-long');
	});
cmp_ok($elapsed, '<', 1 + $slack, 'in time');
is(worker_trouble($node, $log), '', 'without trouble');

reload_with('lockext.max_keys_per_transaction', '1');
$log = log_position($node);
$node->safe_psql('postgres', <<'EOC');
DO $$
BEGIN
	FOR i IN 1..50 LOOP
		PERFORM lock_try('few-' || i, 1);
		COMMIT;
	END LOOP;
END $$
EOC
rows_are_gone($node, 'postgres',
	'lockext.max_keys_per_transaction does not bind the worker',
	'held', 'held-long');
is(worker_trouble($node, $log), '', 'nor trouble it');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET lockext.max_keys_per_transaction');
$node->reload;

#
# Settings of a database that are not meant for a worker.
#
$log = log_position($node);
$node->safe_psql('one', "SELECT lock_try('due', 1)");
$node->safe_psql('postgres', "ALTER DATABASE one SET $_") foreach (
	"search_path = 'nowhere'", "default_transaction_isolation = 'serializable'",
	'default_transaction_read_only = on', 'default_transaction_deferrable = on',
	"statement_timeout = '1ms'", "lock_timeout = '1ms'");
{
	local $ENV{PGOPTIONS} = '-c statement_timeout=0 -c search_path=public';
	rows_are_gone($node, 'one', 'settings of a database do not disturb the worker', 'held');
}
is(worker_trouble($node, $log), '', 'without a complaint');
$node->safe_psql('postgres', 'ALTER DATABASE one RESET ALL');

#
# No worker to be had.
#
$node->safe_psql('postgres', "ALTER SYSTEM SET max_worker_processes = 1");
$node->safe_psql('postgres', "ALTER SYSTEM SET max_logical_replication_workers = 0");
$node->restart;
$log = log_position($node);
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $launchers"),
	'the launcher alone');
$node->safe_psql('postgres', "SELECT lock_try('waits', 1)");
$node->safe_psql('postgres', 'SELECT pg_sleep(1.5)');
is_row_count($node, 'postgres', 3, 'all worker processes in use: the row has to wait');
is($node->safe_psql('postgres', "SELECT held FROM lock_check('waits')"),
	'f', 'which is of no consequence');
$node->safe_psql('postgres', "ALTER SYSTEM RESET max_worker_processes");
$node->restart;
rows_are_gone($node, 'postgres', 'and goes when there is one', 'held', 'held-long');
is(worker_trouble($node, $log), '', 'nobody complained');

#
# A damaged row.
#
$log = log_position($node);
$node->safe_psql('postgres', <<'EOC');
SELECT lock_try('damaged'), lock_try('damaged2');
ALTER TABLE lockext_lock DISABLE TRIGGER lockext_refuse_write;
UPDATE lockext_lock SET scope = '?' WHERE key = 'damaged';
UPDATE lockext_lock SET token = -1 WHERE key = 'damaged2';
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
SELECT lock_try('sound');
SELECT lock_release('sound');
EOC
rows_are_gone($node, 'postgres', 'the worker passes over damaged rows',
	qw(damaged damaged2 held held-long));
$node->wait_for_log(qr/lockext worker: LOG:  passed over 2 damaged rows of the lock table/, $log);
is(worker_trouble($node, $log), '', 'and does not fail');
is(sqlstate_of($node, 'postgres', "SELECT lock_try('damaged')"), 'XX001',
	'a damaged row is neither free nor held');
is($node->safe_psql('postgres', "SELECT lock_break('damaged'), lock_break('damaged2')"),
	't|t', 'lock_break() repairs it');
rows_are_gone($node, 'postgres', 'and then it is removed', 'held', 'held-long');

#
# A row that was passed over because an open transaction had changed it: it is
# as due as before when that rolls back, though nothing else happens.
#
my $passed_from = log_position($node);
my $passed = "FROM lockext_lock WHERE key = 'passed'";
my $open = $node->background_psql('postgres');
$node->safe_psql('postgres', 'ALTER SYSTEM SET lockext.retention = 1');
$node->reload;
$node->safe_psql('postgres', "SELECT lock_try('passed'); SELECT lock_release('passed')");
$open->query_safe("BEGIN; SELECT lock_acquire('passed')");
ok($node->poll_query_until('postgres',
		"SELECT released_at < clock_timestamp() - interval '2 s' $passed"),
	'a due row is left alone while a transaction has changed it');
$open->query_safe('ROLLBACK');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 $passed"),
	'and goes when that has rolled back');
$open->quit;
$node->safe_psql('postgres', 'ALTER SYSTEM RESET lockext.retention');
$node->reload;
is(worker_trouble($node, $passed_from), '', 'no trouble with it');

#
# Tokens rise although the row is gone.  The clock can't help here: the floor
# lies far in the future.
#
my $high = 4503599627370496;	# 2^52
my $token = $node->safe_psql('postgres', "SELECT lock_try('t'); SELECT lock_release('t')");
($token) = split /\n/, $token;
rows_are_gone($node, 'postgres', 'a row with a token', 'held', 'held-long');
$node->restart;
cmp_ok($node->safe_psql('postgres', "SELECT lock_try('t')"), '>', $token,
	'the token of a removed row does not come back');
$node->safe_psql('postgres', <<EOC);
ALTER TABLE lockext_lock DISABLE TRIGGER lockext_refuse_write;
UPDATE lockext_lock SET token = $high WHERE length(key) = 256;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
EOC
is($node->safe_psql('postgres', "SELECT lock_try('new')"), $high + 1,
	'a new key starts above the floor');
is($node->safe_psql('postgres', "SELECT lock_release('new', @{[ $high + 1 ]})"),
	't', 'that token is good');
rows_are_gone($node, 'postgres', 'its row is removed', qw(held held-long t));
$node->restart;
is($node->safe_psql('postgres', "SELECT lock_try('newer')"), $high + 2,
	'and has raised the floor, for a key never used as well');
$node->safe_psql('postgres', "SELECT lock_release('newer')");
rows_are_gone($node, 'postgres', 'removed again', qw(held held-long t));

# a removal does not wait for the disk; this commit does, and comes after it
$node->safe_psql('postgres', 'CREATE TABLE flushed ()');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', "SELECT lock_try('newest')"), $high + 3,
	'and the floor stands after a crash');

# A session that knows the floor already learns of its rise.
my $session = new_session($node);
$session->query_safe("SELECT lock_try('known', 60)");
$node->safe_psql('postgres', <<EOC);
SELECT lock_release('newest');
ALTER TABLE lockext_lock DISABLE TRIGGER lockext_refuse_write;
UPDATE lockext_lock SET token = $high + 1000 WHERE key = 'newest';
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
EOC
rows_are_gone($node, 'postgres', 'the row with the greatest token is removed', qw(held held-long known t));
is($session->query_safe("SELECT lock_try('unknown', 60)"), $high + 1001, 'the next token of a new key is greater');
$session->quit;

$node->stop;
done_testing();
