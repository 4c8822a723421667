# Two-phase commit: a lock taken or released by a prepared transaction is in
# the air until that ends, over restarts and crashes too.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

sub answer
{
	my ($key) = @_;
	return $node->safe_psql('postgres',
		"SELECT coalesce(reason, 'acquired') FROM lock_acquire('$key')");
}

sub prepare
{
	my ($name, $statements) = @_;
	$node->safe_psql('postgres', "BEGIN; $statements; PREPARE TRANSACTION '$name'");
}

$node->safe_psql('postgres', "SELECT lock_try('given', 3600)");
prepare('take', "SELECT lock_try('committed'), lock_try('limited', 3600)");
prepare('drop', "SELECT lock_try('rolled-back')");
prepare('nested', "SAVEPOINT a; SELECT lock_try('gone'); ROLLBACK TO a; SAVEPOINT b; SELECT lock_try('nested'); RELEASE b");
prepare('give', "SELECT lock_release('given')");

sub check_pending
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(answer($_), 'busy', "$when: $_ is busy")
	  foreach qw(committed limited rolled-back nested);
	is(answer('given'), 'held', "$when: what is being released is held");
	is($node->safe_psql('postgres', "SELECT count(*) FROM lockext_held WHERE key <> 'given'"),
		0, "$when: nothing else is held");
	is( $node->safe_psql('postgres',
			"SELECT holder->>'pid' IS NULL, holder->>'owner' IS NULL FROM lock_acquire('committed')"),
		't|t',
		"$when: nothing is known of who stands in the way");
	is(sqlstate_of($node, 'postgres', "SELECT lock_break('committed')"),
		'55P03', "$when: lock_break() is refused");
	is( sqlstate_of($node, 'postgres',
			"SET lock_timeout = '100ms'; SELECT lock_release('given')"),
		'55P03', "$when: a second release waits");
}

check_pending('prepared');
isnt($node->safe_psql('postgres', "BEGIN; SELECT lock_try('gone'); ROLLBACK"),
	'', 'what was rolled back to a savepoint is free');
$node->restart;
check_pending('after a restart');
$node->stop('immediate');
$node->start;
check_pending('after a crash');

$node->safe_psql('postgres', $_)
  foreach ("COMMIT PREPARED 'take'", "ROLLBACK PREPARED 'drop'", "COMMIT PREPARED 'nested'", "ROLLBACK PREPARED 'give'");
is(answer($_), 'held', "committed: $_ is held") foreach qw(committed limited nested given);
is(answer('rolled-back'), 'acquired', 'rolled back: free');
is($node->safe_psql('postgres', "SELECT lock_release('committed')"),
	't', 'the lock can be released by a session that did not take it');

prepare('give', "SELECT lock_release('given')");
my $token = $node->safe_psql('postgres', "SELECT token FROM lock_check('given')");
$node->safe_psql('postgres', "COMMIT PREPARED 'give'");
cmp_ok($node->safe_psql('postgres', "SELECT lock_try('given')"),
	'>', $token, 'a prepared release has effect when committed');
is($node->safe_psql('postgres', <<'EOC'), 't', 'lock_break() works again');
SELECT lock_break('limited') AND lock_break('nested') AND lock_break('given') AND lock_break('rolled-back')
EOC
rows_are_gone($node, 'postgres', 'all rows are removed');

#
# The worker is told.  Nothing else happens in the database that would wake it.
#
sub wait_for_workers_to_end
{
	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'lockext worker'");
}

foreach my $between ('nothing', 'restart', 'crash')
{
	prepare('late', "SELECT lock_try('late', 1)");
	$node->restart if $between eq 'restart';
	$node->stop('immediate'), $node->start if $between eq 'crash';
	$node->safe_psql('postgres', 'SELECT pg_sleep(1.2)');
	wait_for_workers_to_end();
	is_row_count($node, 'postgres', 0, "$between in between: the row is not there yet");
	$node->safe_psql('postgres', "COMMIT PREPARED 'late'");
	is($node->safe_psql('postgres', "SELECT held FROM lock_check('late')"),
		'f', "$between in between: it has expired when it is committed");
	rows_are_gone($node, 'postgres', "$between in between: it is removed");
}

# Rolled back: the row that the transaction had taken over is as due as before.
$node->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '1h'");
$node->reload;
$node->safe_psql('postgres', "SELECT lock_try('over'); SELECT lock_release('over')");
prepare('over', "SELECT lock_try('over')");
$node->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '0'");
$node->reload;
$node->safe_psql('postgres', 'SELECT pg_sleep(0.5)');
is_row_count($node, 'postgres', 1, 'a row that a prepared transaction has taken over stays');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'over'");
rows_are_gone($node, 'postgres', 'and goes when that is rolled back');

is(worker_trouble($node, 0), '', 'the worker came through it');
$node->stop;
done_testing();
