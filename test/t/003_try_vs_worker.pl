# No try is refused because of the worker: it holds the keys of a batch for some
# milliseconds, and a try at one of them outwaits it.  Nor because of somebody who
# takes KEY only to learn that he must not have it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => 'lockext.naptime = 10ms');

# One client only, so every key is free when it asks for it.
$node->safe_psql('postgres', <<'EOC');
CREATE TABLE answers (reason text, n bigint);

CREATE PROCEDURE try_all(rounds integer, keys integer, give_back boolean) LANGUAGE plpgsql AS $$
DECLARE
	why text;
	who jsonb;
	refused bigint := 0;
	busy bigint := 0;
BEGIN
	FOR r IN 1..rounds LOOP
		FOR k IN 1..keys LOOP
			SELECT reason, holder INTO why, who FROM lock_acquire('k' || k, 1);
			COMMIT;
			IF why = 'busy' THEN
				busy := busy + 1;
				RAISE WARNING 'busy: %', who;
			ELSIF why IS NOT NULL THEN
				refused := refused + 1;
			END IF;
			IF give_back AND NOT lock_release('k' || k) THEN
				refused := refused + 1;
			END IF;
			COMMIT;
		END LOOP;
	END LOOP;
	INSERT INTO answers VALUES ('busy', busy), ('refused', refused);
END $$;
EOC

sub removed
{
	return $node->safe_psql('postgres',
		"SELECT coalesce(pg_stat_get_tuples_deleted('lockext_lock'::regclass), 0)");
}

sub none_refused
{
	my ($call, $test) = @_;
	my $before = removed();

	my ($ret, $stdout, $stderr) =
	  $node->psql('postgres', "SET synchronous_commit = off; $call");
	is($stderr, '', "$test: nobody stands in the way");
	is($node->safe_psql('postgres', <<'EOC'), "busy 0\nrefused 0", $test);
SELECT reason || ' ' || sum(n) FROM answers GROUP BY reason ORDER BY reason;
EOC
	ok($node->poll_query_until('postgres',
			"SELECT pg_stat_get_tuples_deleted('lockext_lock'::regclass) > $before + 500"),
		"$test: while the worker removed many rows");
}

none_refused('CALL try_all(30, 1000, true)', 'released locks');

# Expired ones: taken once, and again as soon as they have expired.
my $expired = 'CALL try_all(1, 3000, false); SELECT pg_sleep(1.0);';
none_refused("$expired $expired $expired CALL try_all(1, 3000, false)", 'expired locks');

# Many clients, each with its own keys.
$node->pgbench(
	'--no-vacuum --client=4 --transactions=4000',
	0,
	[qr{actually processed: 16000/16000}],
	[qr{^$}],
	'several clients, each with keys of its own: no try fails',
	{
		'try' => <<'EOC'
\set k random(1, 300)
SELECT 1 / (lock_try('c' || :client_id || '-' || :k) IS NOT NULL)::integer AS granted;
SELECT 1 / lock_release('c' || :client_id || '-' || :k)::integer AS released;
EOC
	});

# Nor does one because of those who take KEY only to learn that they must not: here
# with a token that is not good.  A break does not fail because of them either.
$node->pgbench(
	'--no-vacuum --client=4 --transactions=1500',
	0,
	[qr{actually processed: 6000/6000}],
	[qr{^$}],
	'a holder of a wrong token stands in nobody\'s way',
	{
		'momentary' => <<'EOC'
\if :client_id = 0
SELECT 1 / (lock_try('m', 60) IS NOT NULL)::integer AS granted;
SELECT 1 / lock_break('m')::integer AS broken;
SELECT 1 / (lock_try('m', 60) IS NOT NULL)::integer AS granted;
SELECT 1 / lock_release('m')::integer AS released;
\else
SELECT 1 / (1 - lock_release('m', 1)::integer);
SELECT 1 / (1 - lock_release('m', 1)::integer);
SELECT 1 / (1 - lock_release('m', 1)::integer);
SELECT 1 / (1 - lock_release('m', 1)::integer);
SELECT 1 / (1 - lock_release('m', 1)::integer);
SELECT 1 / (1 - lock_release('m', 1)::integer);
SELECT 1 / (1 - lock_release('m', 1)::integer);
SELECT 1 / (1 - lock_release('m', 1)::integer);
\endif
EOC
	});

rows_are_gone($node, 'postgres', 'all of them are removed in the end');
is(worker_trouble($node, 0), '', 'the worker came through it');

$node->stop;
done_testing();
