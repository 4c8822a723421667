# Where a row was found is known to all sessions, so that the next one needs no index,
# until the server starts anew; and a page is tidied up when it is full, not at every
# look.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $cycle = "SELECT lock_try('k', 60) IS NOT NULL AND lock_release('k')";
my $cycles = 1000;

# Each call is a session of its own.
my $node = new_node('main', conf => 'lockext.retention = 1h');

# How often the given statement, run in a session of its own, looks into the index.
sub index_scans
{
	my ($statement) = @_;
	my $count = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'lockext_lock_pkey'";
	my $before = $node->safe_psql('postgres', $count);

	is($node->safe_psql('postgres', "$statement; SELECT pg_stat_force_next_flush()"),
		"t\n", $statement);
	return $node->safe_psql('postgres', $count) - $before;
}

sub page_count
{
	return $node->safe_psql('postgres',
		"SELECT pg_relation_size('lockext_lock') / current_setting('block_size')::int");
}

cmp_ok(index_scans($cycle), '>', 0, 'the first one looks for the row in the index');
is(index_scans($cycle), 0, 'who comes next knows where it is');
is(index_scans("SELECT held = false FROM lock_check('k')"), 0, 'who checks the lock, too');

$node->restart;
cmp_ok(index_scans($cycle), '>', 0, 'after a restart, too');
is(index_scans($cycle), 0, 'and known again');

# each in a transaction of its own
my $pages = page_count();
my $start = $node->lsn('insert');
$node->safe_psql('postgres', <<EOC);
CREATE EXTENSION pg_walinspect;
DO \$\$ BEGIN
	FOR i IN 1 .. $cycles LOOP
		PERFORM lock_try('k', 60);
		COMMIT;
		PERFORM lock_release('k');
		COMMIT;
	END LOOP;
END \$\$;
CHECKPOINT;
EOC
my $prunes = $node->safe_psql('postgres', <<EOC);
SELECT count(*) FROM pg_get_wal_records_info('$start', pg_current_wal_flush_lsn())
WHERE resource_manager = 'Heap2' AND record_type LIKE 'PRUNE%'
	AND block_ref LIKE '%/' || pg_relation_filenode('lockext_lock') || ' %'
EOC
cmp_ok($prunes, '>', 0, "$cycles cycles: the page was tidied up");
cmp_ok($prunes, '<', $cycles / 5, 'but not at each of them');
is(page_count(), $pages, 'the table has not grown');
is_table_sound($node, 'the table is sound');
$node->stop;

done_testing();
