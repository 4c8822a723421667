# With a synchronous standby a lease is there before its holder hears of it,
# whatever the session's synchronous_commit: the acquire waits for the standby.
# A release keeps the session's own choice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_node('primary', allows_streaming => 1);
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'");
$primary->reload;
$primary->poll_query_until('postgres',
	"SELECT sync_state = 'sync' FROM pg_stat_replication") or die 'no synchronous standby';

$primary->safe_psql('postgres', <<'EOC');
CREATE FUNCTION try_async(key text) RETURNS bigint LANGUAGE sql SET synchronous_commit = off
AS 'SELECT public.lock_try(key)';
CREATE FUNCTION try_caught(key text) RETURNS bigint LANGUAGE plpgsql
AS 'BEGIN RETURN lock_try(key); EXCEPTION WHEN division_by_zero THEN RETURN NULL; END';
EOC

$primary->safe_psql('postgres', "SELECT lock_try('known'), lock_try('released')");
$standby->stop;

# Wherever and whenever the session sets it, before or after the acquire.
my %cases = (
	'a try' => "SELECT FROM lock_try('k1')",
	'a renewal' => "SELECT FROM lock_renew('known', 600)",
	'a function with a setting of its own' => "SELECT FROM try_async('k2')",
	'an exception block' => "SELECT FROM try_caught('k3')",
	'SET LOCAL after the try' =>
	  "BEGIN; SELECT FROM lock_try('k4'); SET LOCAL synchronous_commit = off; COMMIT",
	'SET after the try' =>
	  "BEGIN; SELECT FROM lock_try('k5'); SET synchronous_commit = off; COMMIT",
	'a savepoint' =>
	  "BEGIN; SAVEPOINT s; SELECT FROM lock_try('k6'); RELEASE s; COMMIT",
	'PREPARE TRANSACTION' =>
	  "BEGIN; SELECT FROM lock_try('k7'); PREPARE TRANSACTION 'p'");

foreach my $level ('off', 'local')
{
	foreach my $case ($level eq 'off' ? sort keys %cases : 'a renewal')
	{
		my $session = $primary->background_psql('postgres');

		$session->query_safe("SET synchronous_commit = $level");
		start_in_background($session, $cases{$case});
		ok($primary->poll_query_until('postgres',
				"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"),
			"$case waits for the standby under synchronous_commit = $level");
		$standby->start;
		$session->query_safe('SELECT 1');
		is($session->query_safe('SHOW synchronous_commit'),
			$case eq 'SET after the try' ? 'off' : $level, 'and leaves the setting alone');
		$session->quit;
		$standby->stop;
	}
}

is($primary->safe_psql('postgres', "SET synchronous_commit = off; SELECT lock_release('released')"),
	't', 'a release waits for nobody under synchronous_commit = off');

$standby->start;
$primary->stop('immediate');
$standby->promote;
is($standby->safe_psql('postgres', "SELECT string_agg(key, ' ' ORDER BY key) FROM lockext_held WHERE key <> 'released'"),
	'k1 k2 k3 k4 k5 k6 known', 'all of them are held after promotion');
is($standby->safe_psql('postgres', "SELECT lock_try('k1') IS NULL AND lock_try('k7') IS NULL"),
	't', 'and refused, like the prepared one');
$standby->stop;

done_testing();
