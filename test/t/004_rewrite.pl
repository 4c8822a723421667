# Exclusion holds while the lock table and its indexes are rebuilt.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The worker is not to tidy up: the rows of this test stay.
my $node = new_node('main', conf => <<'EOC');
lockext.retention = '1h'
lockext.max_keys_per_transaction = 20000
max_locks_per_transaction = 1000
EOC
plan skip_all => 'amcheck is not installed' unless has_amcheck($node);

# Every lock that the test was ever granted and did not release.
$node->safe_psql('postgres', <<'EOC');
CREATE TABLE granted (key text PRIMARY KEY, token bigint NOT NULL);

-- takes n new locks, in a transaction each
CREATE PROCEDURE take(prefix text, n integer) LANGUAGE plpgsql AS $$
DECLARE
	t bigint;
BEGIN
	FOR i IN 1..n LOOP
		t := lock_try(prefix || i);
		IF t IS NOT NULL THEN
			INSERT INTO granted VALUES (prefix || i, t);
		END IF;
		COMMIT;
	END LOOP;
END $$;

-- changes each lock n times, so that there is no room for HOT updates if an
-- old snapshot holds on to the old versions
CREATE PROCEDURE renew(n integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..n LOOP
		PERFORM lock_renew(key, 1000 + i, token) FROM granted;
		COMMIT;
	END LOOP;
END $$;

-- released and taken anew
CREATE PROCEDURE cycle(prefix text) LANGUAGE plpgsql AS $$
DECLARE
	g granted;
	t bigint;
BEGIN
	FOR g IN SELECT * FROM granted WHERE key LIKE prefix || '%' LOOP
		IF NOT lock_release(g.key, g.token) THEN
			RAISE EXCEPTION 'could not release %', g.key;
		END IF;
		COMMIT;
		t := lock_try(g.key, 3600);
		IF t <= g.token THEN
			RAISE EXCEPTION 'token of % does not rise', g.key;
		END IF;
		DELETE FROM granted WHERE key = g.key;
		IF t IS NOT NULL THEN
			INSERT INTO granted VALUES (g.key, t);
		END IF;
		COMMIT;
	END LOOP;
END $$;

-- takes new locks until told to stop
CREATE TABLE stop ();
CREATE PROCEDURE take_on(prefix text) LANGUAGE plpgsql AS $$
DECLARE
	i integer := 0;
	t bigint;
BEGIN
	WHILE i < 100000 AND NOT EXISTS (SELECT FROM stop) LOOP
		i := i + 1;
		t := lock_try(prefix || i);
		IF t IS NOT NULL THEN
			INSERT INTO granted VALUES (prefix || i, t);
		END IF;
		COMMIT;
		IF i % 3 = 0 THEN
			PERFORM lock_renew(prefix || i, 3600);
			COMMIT;
		END IF;
		PERFORM pg_sleep(0.002);
	END LOOP;
END $$;
EOC

# Sessions that have known the table since before it was rebuilt.
my $session = $node->background_psql('postgres');
my $other = $node->background_psql('postgres');
$_->set_query_timer_restart foreach ($session, $other);
$session->query_safe("CALL take('old-', 200)");
$other->query_safe("SELECT lock_try('old-1')");

# All that was granted is refused, held once, and with the token given.
sub check_all
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $query = <<'EOC';
SELECT count(lock_try(key, 3600)) FROM granted;
SELECT count(*) FROM granted g FULL JOIN lockext_held h USING (key)
WHERE g.token IS DISTINCT FROM h.token;
EOC

	is($node->safe_psql('postgres', $query),
		"0\n0", "$test: each lock is held, in a new session");
	is($other->query_safe($query), "0\n0", "$test: and in an old one");
	is_table_sound($node, "$test: table and indexes are sound");
}

check_all('before');

#
# Rebuilding concurrently: the new index is ready for insertions, but not yet
# the one to look in, while an old snapshot keeps it from being finished.
#
sub rebuild_under_old_snapshot
{
	my ($statement, $prefix) = @_;
	my $reader = $node->background_psql('postgres');
	my $admin = $node->background_psql('postgres');
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM granted');

	$reader->query_safe(
		'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
	start_in_background($admin, $statement);
	ok( $node->poll_query_until('postgres', <<EOC), "$statement waits for an old snapshot");
SELECT count(*) = 1 FROM pg_stat_progress_create_index
WHERE relid = 'lockext_lock'::regclass AND phase = 'waiting for old snapshots'
EOC
	$session->query_safe("CALL take('$prefix', 200)");
	$other->query_safe('CALL renew(10)');
	$node->safe_psql('postgres', "CALL cycle('old-')");
	$session->query_safe("CALL cycle('$prefix')");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM granted'),
		$before + 200, 'locks are to be had meanwhile');
	cmp_ok(
		$node->safe_psql('postgres',
			"SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'lockext_lock'"),
		'>', 50, 'some were changed by cold updates');
	$reader->query_safe('COMMIT');
	$admin->query_safe('SELECT 1');
	check_all($statement);
	$reader->quit;
	$admin->quit;
}

rebuild_under_old_snapshot('REINDEX INDEX CONCURRENTLY lockext_lock_pkey', 'a-');
rebuild_under_old_snapshot('REINDEX TABLE CONCURRENTLY lockext_lock', 'b-');

#
# Under a lock: tries meanwhile are refused or granted, but never both.
#
{
	my $taker = $node->background_psql('postgres');

	start_in_background($taker, "CALL take_on('c-')");
	foreach my $statement (
		'VACUUM FULL lockext_lock',
		'CLUSTER lockext_lock USING lockext_lock_pkey',
		'REINDEX TABLE lockext_lock',
		'REINDEX INDEX lockext_lock_pkey',
		'REINDEX TABLE CONCURRENTLY lockext_lock',
		'VACUUM (FREEZE) lockext_lock')
	{
		my $before = $node->safe_psql('postgres',
			"SELECT count(*) FROM granted WHERE key LIKE 'c-%'");

		$node->safe_psql('postgres', $statement);
		$session->query_safe("SELECT lock_renew('old-1', 3600)");
		ok( $node->poll_query_until('postgres',
				"SELECT count(*) > $before FROM granted WHERE key LIKE 'c-%'"),
			"$statement: locks are taken before and after");
	}
	$node->safe_psql('postgres', 'INSERT INTO stop DEFAULT VALUES');
	$taker->query_safe('SELECT 1');
	$taker->quit;
	check_all('after all of them');
}

#
# Indexes that somebody added.
#
my @indexes = (
	'CREATE INDEX extra_plain ON lockext_lock (expires_at)',
	"CREATE INDEX extra_partial ON lockext_lock (key) WHERE released_at IS NULL",
	"CREATE INDEX extra_expression ON lockext_lock ((key || ':' || owner::text), (token % 7))",
	'CREATE INDEX extra_hash ON lockext_lock USING hash (key)',
	'CREATE INDEX extra_brin ON lockext_lock USING brin (expires_at) WITH (pages_per_range = 1)');

# Does a scan of the indexes find what a scan of the table does?
sub check_scans
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $condition (
		"expires_at > now() + interval '40 minutes'",
		"expires_at BETWEEN now() AND now() + interval '20 minutes'",
		"released_at IS NULL AND key >= 'old-'",
		"key || ':' || owner::text = 'old-7:10'",
		"key = 'old-7'")
	{
		my $query = "SELECT count(*) FROM lockext_lock WHERE $condition";
		my $seq = $node->safe_psql('postgres',
			"SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; $query");

		is($node->safe_psql('postgres', "SET enable_seqscan = off; $query"),
			$seq, "$test: index scan for $condition");
	}
}

# BRIN alone first: such an index does not keep updates from being HOT
# everywhere, and then has to be told all the same.
$node->safe_psql('postgres', $indexes[-1]);
$session->query_safe('CALL renew(3)');
$node->safe_psql('postgres', "CALL cycle('old-')");
check_scans('BRIN index only');
check_all('BRIN index only');

$node->safe_psql('postgres', $indexes[$_]) foreach 0 .. $#indexes - 1;
$session->query_safe("CALL take('d-', 200)");
$session->query_safe('CALL renew(3)');
$other->query_safe("CALL cycle('a-')");
$node->safe_psql('postgres', "CALL cycle('d-')");
check_scans('indexes added');
check_all('indexes added');

rebuild_under_old_snapshot('REINDEX INDEX CONCURRENTLY extra_expression', 'e-');
check_scans('added index rebuilt');
$node->safe_psql('postgres', "DROP INDEX $_") foreach qw(extra_plain extra_partial extra_expression extra_hash extra_brin);

# and one that is added while locks are taken
rebuild_under_old_snapshot('CREATE INDEX CONCURRENTLY extra_plain ON lockext_lock (expires_at)', 'f-');
check_scans('index added concurrently');
$node->safe_psql('postgres', 'DROP INDEX CONCURRENTLY extra_plain');

#
# The worker removes rows; what it leaves is sound.
#
$node->safe_psql('postgres', "SELECT count(lock_release(key)) FROM granted WHERE key LIKE 'a-%'");
$node->safe_psql('postgres', "DELETE FROM granted WHERE key LIKE 'a-%'");
$node->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '0'");
$node->reload;
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM lockext_lock WHERE key LIKE 'a-%'"),
	'the worker removes released rows');
$node->safe_psql('postgres', 'VACUUM lockext_lock');
$session->query_safe("CALL take('a-', 200)");
check_all('rows removed and taken again');

$session->quit;
$other->quit;
$node->command_ok(
	[ 'pg_amcheck', '--heapallindexed', '-d', 'postgres', '-t', 'lockext_lock' ],
	'pg_amcheck finds nothing');
is(worker_trouble($node, 0), '', 'the worker came through all of it');

$node->stop;
done_testing();
