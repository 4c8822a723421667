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

$primary->safe_psql('postgres', "SELECT lock_try('known'), lock_try('released')");
$standby->stop;

# In an open transaction the setting is raised for that transaction alone.
is($primary->safe_psql('postgres', <<'EOC'), "off\non\noff", 'synchronous_commit is raised');
SET synchronous_commit = off;
SHOW synchronous_commit;
BEGIN;
SELECT FROM lock_try('undone');
SHOW synchronous_commit;
ROLLBACK;
SHOW synchronous_commit;
EOC

foreach my $level ('off', 'local')
{
	foreach my $call ("lock_try('new-$level')", "lock_renew('known', 600)")
	{
		my $session = $primary->background_psql('postgres');

		$session->query_safe("SET synchronous_commit = $level");
		start_in_background($session, "SELECT FROM $call");
		ok($primary->poll_query_until('postgres',
				"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"),
			"$call waits for the standby under synchronous_commit = $level");
		$standby->start;
		$session->query_safe('SELECT 1');
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
	'known new-local new-off', 'all of them are held after promotion');
is($standby->safe_psql('postgres', "SELECT lock_try('new-off') IS NULL"), 't', 'and refused');
$standby->stop;

done_testing();
