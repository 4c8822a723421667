# Replication: a physical standby shows the locks and takes over with them; a
# logical subscriber has locks of its own and gets nobody else's.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = $LockextTest::ROWS;
my $held = "SELECT string_agg(key || ' ' || token, ',' ORDER BY key) FROM lockext_held";

#
# A physical standby.
#
my $primary = new_node('primary', allows_streaming => 1);
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', <<'EOC');
SELECT lock_try('held'), lock_try('limited', 3600), lock_try('short', 1), lock_try('ended');
SELECT lock_release('ended');
EOC
my $token = $primary->safe_psql('postgres', "SELECT token FROM lock_check('held')");
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', "SELECT held, token, timeout FROM lock_check('limited')"),
	$primary->safe_psql('postgres', "SELECT held, token, timeout FROM lock_check('limited')"),
	'standby: lock_check() shows a held lock');
is($standby->safe_psql('postgres', "SELECT held FROM lock_check('ended')"),
	'f', 'standby: and a released one');
is($standby->safe_psql('postgres', "SELECT held FROM lock_check('never')"),
	'f', 'standby: and one that is not there');
ok($standby->poll_query_until('postgres', "SELECT NOT held FROM lock_check('short')"),
	'standby: a lock expires there by itself');
is($standby->safe_psql('postgres', $held), $primary->safe_psql('postgres', $held),
	'standby: lockext_held shows the same locks');

foreach my $key (qw(held limited ended never))
{
	foreach my $check (qq(lock_request('{"operation": "check", "key": "$key"}') - 'timestamp'), qq(lock_event('CheckLock', '{"id": "$key"}')))
	{
		my $on_primary = $primary->safe_psql('postgres', "SELECT $check");

		like($on_primary, $key =~ /held|limited/ ? qr/(exists|locked)": true/ : qr/(exists|locked)": false/, "primary: $check");
		is($standby->safe_psql('postgres', "SELECT $check"), $on_primary, 'standby: the same');
	}
}

foreach my $call ("lock_acquire('new')", "lock_acquire('held')", "lock_try('new')",
	"lock_try('held')", "lock_release('held')", "lock_release('new')",
	"lock_renew('held', 10)", "lock_break('held')",
	q(lock_event('TryLock', '{"id": "new"}')), q(lock_event('TryLock', '{"id": "held"}', '{"parameters": {"allowNoLock": true}}')),
	q(lock_event('Unlock', '{"id": "new"}')), q(lock_event('Unlock', '{"id": "held"}')))
{
	is(sqlstate_of($standby, 'postgres', "SELECT $call"),
		'25006', "standby: $call is refused");
}
foreach my $case ([ 'acquire', 'LOCK_ACQUISITION_ERROR' ], [ 'release', 'LOCK_RELEASE_ERROR' ])
{
	my ($operation, $code) = @$case;

	foreach my $key (qw(new held))
	{
		my ($ret, $out, $err) = $standby->psql('postgres', qq(SELECT lock_request('{"operation": "$operation", "key": "$key"}')->>'code'));
		is($out, $code, "standby: lock_request to $operation $key is refused");
		like($err, qr/WARNING:.*\(SQLSTATE 25006\)/, 'standby: and says why');
	}
}
is($standby->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'lockext%'"),
	0, 'standby: no launcher');

# Changes arrive, whatever the rows go through on the primary.
$primary->safe_psql('postgres', <<'EOC');
DO $$
BEGIN
	FOR i IN 1..300 LOOP
		PERFORM lock_renew('limited', 1000 + i);
		COMMIT;
	END LOOP;
END $$;
VACUUM lockext_lock;
SELECT lock_try('more');
EOC
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT timeout FROM lock_check('limited')"),
	1300, 'standby: renewals are seen');
is($standby->safe_psql('postgres', $held), $primary->safe_psql('postgres', $held),
	'standby: and new locks');

# Something that is due, but not on the primary.
$primary->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '1h'");
$primary->reload;
$primary->safe_psql('postgres', "SELECT lock_try('due'); SELECT lock_release('due')");
my $before = $primary->safe_psql('postgres', $held);
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;

ok($standby->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'lockext launcher'"),
	'promoted: the launcher starts');
is($standby->safe_psql('postgres', $held), $before, 'promoted: the same locks are held');
is($standby->safe_psql('postgres', "SELECT reason FROM lock_acquire('held')"),
	'held', 'promoted: and refused');
is($standby->safe_psql('postgres', "SELECT lock_release('held', $token)"),
	't', 'promoted: the token of before is good');
cmp_ok($standby->safe_psql('postgres', "SELECT lock_try('held')"),
	'>', $token, 'promoted: tokens rise');
rows_are_gone($standby, 'postgres', 'promoted: rows that were due are removed',
	qw(held limited more));
is_table_sound($standby, 'promoted: table and index are sound') if has_amcheck($standby);
is(worker_trouble($standby, 0), '', 'promoted: the worker does not complain');
$standby->stop;

#
# Logical replication of all tables.
#
my $publisher = new_node('publisher', allows_streaming => 'logical');
my $subscriber = new_node('subscriber', allows_streaming => 'logical');

$_->safe_psql('postgres', 'CREATE TABLE plain (n integer PRIMARY KEY)')
  foreach ($publisher, $subscriber);
$publisher->safe_psql('postgres', <<'EOC');
SELECT lock_try('both', 3600), lock_try('theirs'), lock_try('before');
INSERT INTO plain VALUES (1);
EOC
$subscriber->safe_psql('postgres', "SELECT lock_try('both', 1800), lock_try('ours')");
my $ours = $subscriber->safe_psql('postgres', $held);

my $log = log_position($subscriber);
$publisher->safe_psql('postgres', 'CREATE PUBLICATION everything FOR ALL TABLES');
$subscriber->safe_psql('postgres', sprintf(
		"CREATE SUBSCRIPTION everything CONNECTION '%s' PUBLICATION everything",
		$publisher->connstr . ' dbname=postgres'));
$subscriber->wait_for_subscription_sync($publisher, 'everything');
is($subscriber->safe_psql('postgres', 'SELECT n FROM plain'),
	1, 'subscriber: an ordinary table is copied');
is($subscriber->safe_psql('postgres', $held), $ours,
	'subscriber: the copy brings no locks');

$publisher->safe_psql('postgres', $_) foreach (
	"SELECT lock_try('after')", "SELECT lock_release('theirs')",
	"SELECT 1 FROM lock_renew('both', 3000)", "SELECT lock_release('both')",
	"SELECT lock_try('both')", "SELECT lock_break('before')",
	'INSERT INTO plain VALUES (2)');
rows_are_gone($publisher, 'postgres', 'publisher: the worker removes rows', 'after', 'both');
$publisher->safe_psql('postgres', 'INSERT INTO plain VALUES (3)');
$publisher->safe_psql('postgres', 'UPDATE plain SET n = 4 WHERE n = 1; DELETE FROM plain WHERE n = 2');
$publisher->wait_for_catchup('everything');
is($subscriber->safe_psql('postgres', 'SELECT n FROM plain ORDER BY n'),
	"3\n4", 'subscriber: ordinary tables go on being replicated');
is($subscriber->safe_psql('postgres', $held), $ours, 'subscriber: its own locks are held as before');
is($subscriber->safe_psql('postgres', "SELECT string_agg(key, ' ' ORDER BY key) $rows"),
	'both ours', 'subscriber: and there are no other rows');
is($subscriber->safe_psql('postgres', "SELECT reason FROM lock_acquire('both')"),
	'held', 'subscriber: its lock is refused');
isnt($subscriber->safe_psql('postgres', "SELECT lock_try('after')"),
	'', "subscriber: the publisher's is free");

# The very row that the publisher changes: a subscriber that once was a copy.
my $copied = $publisher->safe_psql('postgres', "SELECT gen FROM lockext_lock WHERE key = 'after'");
$subscriber->safe_psql('postgres', <<EOC);
ALTER TABLE lockext_lock DISABLE TRIGGER lockext_refuse_write;
UPDATE lockext_lock SET gen = $copied WHERE key = 'after';
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
EOC
$ours = $subscriber->safe_psql('postgres', $held);
$publisher->safe_psql('postgres', "SELECT lock_release('after')");
rows_are_gone($publisher, 'postgres', 'publisher: a row is changed and removed', 'both');
$publisher->safe_psql('postgres', 'INSERT INTO plain VALUES (5)');
$publisher->wait_for_catchup('everything');
is($subscriber->safe_psql('postgres', $held), $ours,
	'subscriber: a row with the same key and gen is left alone');
is($subscriber->safe_psql('postgres', "SELECT subenabled FROM pg_subscription"),
	't', 'subscriber: the subscription is enabled');

my $errors = join "\n", grep { /(?:ERROR|FATAL|PANIC):/ && !/due to administrator command/ }
  split /\n/, slurp_file($subscriber->logfile, $log);
is($errors, '', 'subscriber: apply never stopped');

$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION everything');
$subscriber->stop;
$publisher->stop;
done_testing();
