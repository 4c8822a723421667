# Where a row was found is known to all sessions, so that the next one needs no index,
# until the server starts anew; so is that no row says that a lock is held; and a session
# knows who refused it a lock.  And a page is tidied up when it is full, not at every look.

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

# Take all the locks and release them, each step a transaction of its own; arguments:
# what follows the key, and the keys.  How often did that tidy up a page, and how often
# did a row move to another one?
sub cycle_often
{
	my ($arguments, @keys) = @_;
	my $start = $node->lsn('insert');
	my $acquire = join '', map { "PERFORM lock_acquire('$_'$arguments); COMMIT;" } @keys;
	my $release = join '', map { "PERFORM lock_release('$_'); COMMIT;" } @keys;

	$node->safe_psql('postgres', "DO \$\$ BEGIN FOR i IN 1 .. $cycles LOOP $acquire $release END LOOP; END \$\$; CHECKPOINT");
	return split /\|/, $node->safe_psql('postgres', <<EOC);
SELECT count(*) FILTER (WHERE record_type LIKE 'PRUNE%'),
	count(*) FILTER (WHERE record_type IN ('UPDATE', 'UPDATE+INIT'))
FROM pg_get_wal_records_info('$start', pg_current_wal_flush_lsn())
WHERE resource_manager IN ('Heap', 'Heap2')
	AND block_ref LIKE '%/' || pg_relation_filenode('lockext_lock') || ' %'
EOC
}

cmp_ok(index_scans($cycle), '>', 0, 'the first one looks for the row in the index');
is(index_scans($cycle), 0, 'who comes next knows where it is');
is(index_scans("SELECT held = false FROM lock_check('k')"), 0, 'who checks the lock, too');
$node->safe_psql('postgres', "BEGIN; SELECT lock_try('k', 60), lock_release('k'); ROLLBACK");
is(index_scans($cycle), 0, 'also after a rollback');

$node->restart;
cmp_ok(index_scans($cycle), '>', 0, 'after a restart, too');
is(index_scans($cycle), 0, 'and known again');

# Scope "transaction" writes no row, so the index shows whether it looks for one.  By
# lock_check() the session knows that the lock table is as it should be.
sub try_scope_transaction
{
	my ($key) = @_;
	return "SELECT lock_try('$key', scope => 'transaction') IS NOT NULL FROM lock_check('k')";
}

foreach my $key ('x' x 88, 'y' x 89)
{
	cmp_ok(index_scans(try_scope_transaction($key)), '>', 0, 'the first one looks whether it is held');
	cmp_ok(index_scans(try_scope_transaction($key)), length $key > 88 ? '>' : '==', 0,
		'the next one need not, if the name is not too long');
}

# Nor does it need the table.
my $session = new_session($node);
my $other = new_session($node);
my $try = "SELECT lock_try('never', scope => 'transaction') IS NOT NULL";
is($session->query_safe($try), 't', 'a lock is free');
$other->query_safe('BEGIN; LOCK TABLE lockext_lock');
is($session->query_safe($try), 't', 'known to be free while the table is locked');
is($session->query_safe($try =~ s/never/other/r), 'f', 'one that is not known to be is not to be had then');
$other->query_safe('COMMIT');
$other->quit;

# A superuser changes the table behind the back of lockext: that counts before long.
$node->safe_psql('postgres', try_scope_transaction('k'));
$node->safe_psql('postgres', <<'EOC');
ALTER TABLE lockext_lock DISABLE TRIGGER ALL;
UPDATE lockext_lock SET released_at = NULL, expires_at = clock_timestamp() + '1 h',
	token = 1::bigint << 52 WHERE key = 'k';
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_truncate;
EOC
is($node->safe_psql('postgres', try_scope_transaction('k')), 't', 'what is known is not looked at');
ok($node->poll_query_until('postgres', try_scope_transaction('k'), 'f'), 'but again after a time');
is($node->safe_psql('postgres', "SELECT lock_break('k')"), 't', 'held, and broken');
is($node->safe_psql('postgres', <<'EOC'), "t\nt\nt", 'tokens rise from there, with and without a look');
SELECT lock_try('k', scope => 'transaction') > 1::bigint << 52 AS rises, clock_timestamp() AS looked_at \gset
SELECT :'rises';
SELECT lock_try('k', scope => 'transaction') > (1::bigint << 52) + 1;
SELECT clock_timestamp() < :'looked_at'::timestamptz + '10 s';
EOC

$node->safe_psql('postgres', 'CREATE EXTENSION pg_walinspect');
my ($prunes, $cold) = cycle_often(', 60', 'k');
cmp_ok($prunes, '>', 0, 'the page is tidied up');
is($cold, 0, 'in time: the row need not move to another page');
is(page_count(), 1, 'the table does not grow');

# one whose page is filled with other locks' rows, as far as the fillfactor lets them
$node->safe_psql('postgres', "SELECT count(lock_try('k' || i, 60)) FROM generate_series(1, 60) i");
$node->safe_psql('postgres', "SELECT lock_release('k40')");
my $pages = page_count();
($prunes, $cold) = cycle_often(', 60', 'k40');
cmp_ok($prunes, '>', 0, 'a full page is tidied up');
cmp_ok($prunes, '<', $cycles / 5, 'but not as soon as it can be');
is($cold, 0, 'in time');
is(page_count(), $pages, 'and the table does not grow');

# rows that become longer
$node->safe_psql('postgres', <<'EOC');
SELECT lock_release('k' || i) FROM generate_series(1, 60) i;
VACUUM FULL lockext_lock;
EOC
my $data = 'x' x 900;
($prunes, $cold) = cycle_often(", 60, data => '{\"d\": \"$data\"}'", qw(k57 k58 k59 k60));
cmp_ok($cold, '<=', 4, 'such a row moves once at most');
is_table_sound($node, 'the table is sound');

# The newest version was undone, and its place is another row's by now.
my $cycle40 = $cycle =~ s/'k'/'k40'/gr;
$node->safe_psql('postgres', $cycle40);
$node->safe_psql('postgres', "BEGIN; SELECT lock_try('k40', 60); ROLLBACK");
$node->safe_psql('postgres', 'VACUUM lockext_lock');
$node->safe_psql('postgres', "SELECT count(lock_try('more' || i, 60)) FROM generate_series(1, 60) i");
is(index_scans($cycle40), 0, 'there are the older ones');

# Who is refused a lock again does not look who holds it.
my $pages_read = "SELECT heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'lockext_lock'";
$node->safe_psql('postgres', "SELECT lock_try('held', 600)");
my $read_before = $node->safe_psql('postgres', $pages_read);
is($node->safe_psql('postgres', <<'EOC'), "1000\n", 'a thousand refusals, each with its holder');
SELECT count((lock_acquire('held')).holder->>'pid') FROM generate_series(1, 1000);
SELECT pg_stat_force_next_flush();
EOC
cmp_ok($node->safe_psql('postgres', $pages_read) - $read_before, '<', 300, 'and few looks');

# What is remembered of the holder who refuses takes the place of what was before.
my $grown = $session->query_safe(<<'EOC');
SELECT lock_try('refused', 60) IS NOT NULL;
CREATE TEMP TABLE used AS SELECT 0::bigint AS bytes WITH NO DATA;
CREATE PROCEDURE be_refused(n integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM lock_renew('refused', 60);
		COMMIT;
		PERFORM lock_acquire('refused'), lock_acquire('refused'), lock_acquire('refused');
		COMMIT;
	END LOOP;
	INSERT INTO used SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopMemoryContext';
END $$;
CALL be_refused(200);
CALL be_refused(2000);
SELECT max(bytes) - min(bytes) FROM used;
EOC
cmp_ok($grown =~ s/^t\n//r, '<', 20000, 'refusals leave no memory behind');

# Somebody alters the table while a session knows of a lock that it is free.
is($session->query_safe("BEGIN; $try"), 't', 'free');
$session->query_safe("SELECT lock_release('never')");
$node->safe_psql('postgres', 'ALTER TABLE lockext_lock ADD COLUMN more integer');
begin_statement($session, $try);
like((end_statement($session))[1], qr/ERROR:  42809: .*was altered/, 'nothing is known of an altered table');
$session->quit;
$node->stop;

done_testing();
