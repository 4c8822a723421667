# Copies of a database: a dump has no locks in it, a template copy has dead
# ones, and in both tokens go on rising.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => "lockext.retention = '1h'");
my $dir = PostgreSQL::Test::Utils::tempdir;
my $high = 4503599627370496;	# 2^52, out of the clock's reach

# Set the token of a row, which only a superuser who means it can do.
sub set_token
{
	my ($condition, $token) = @_;

	$node->safe_psql('origin', <<EOC);
ALTER TABLE lockext_lock DISABLE TRIGGER lockext_refuse_write;
UPDATE lockext_lock SET token = $token WHERE $condition;
ALTER TABLE lockext_lock ENABLE ALWAYS TRIGGER lockext_refuse_write;
EOC
}

$node->safe_psql('postgres', 'CREATE DATABASE origin');
$node->safe_psql('origin', <<'EOC');
CREATE EXTENSION lockext;
CREATE TABLE plain AS SELECT 1 AS n;
SELECT lock_try('held'), lock_try('limited', 3600), lock_try('ended');
SELECT lock_release('ended');
EOC
my $held = $node->safe_psql('origin', 'SELECT key, token FROM lockext_held ORDER BY key');

#
# Dump and restore.
#
foreach my $format ('custom', 'plain')
{
	my $db = "restored_$format";

	$node->command_ok(
		[ 'pg_dump', '-F', $format, '-f', "$dir/$format", '-d', $node->connstr('origin') ],
		"$format dump is made while locks are held");
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->command_ok(
		$format eq 'plain'
		? [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', "$dir/plain" ]
		: [ 'pg_restore', '--exit-on-error', '-d', $node->connstr($db), "$dir/custom" ],
		"$format dump is restored");
	is($node->safe_psql($db, "SELECT extname FROM pg_extension WHERE extname = 'lockext'"),
		'lockext', "$format dump: the extension is back");
	is($node->safe_psql($db, 'SELECT n FROM plain'), 1, "$format dump: and the data");
	is($node->safe_psql($db, 'SELECT count(*) FROM lockext_lock'),
		0, "$format dump: but no locks");
	cmp_ok(
		$node->safe_psql($db, "SELECT lock_try('held')"),
		'>',
		$node->safe_psql('origin', "SELECT token FROM lock_check('held')"),
		"$format dump: the key is free, and its token rises");
}
is($node->safe_psql('origin', 'SELECT key, token FROM lockext_held ORDER BY key'),
	$held, 'the dumped database has its locks');

#
# CREATE DATABASE ... TEMPLATE
#
$node->safe_psql('origin', "SELECT lock_try('gone'); SELECT lock_release('gone')");
$node->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '0'");
$node->reload;
rows_are_gone($node, 'origin', 'the worker leaves a floor behind', 'held', 'limited');
$node->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '1h'");
$node->reload;
set_token("key = 'held'", $high);
set_token('length(key) = 256', 2 * $high - 1000);

foreach my $strategy ('wal_log', 'file_copy')
{
	$node->safe_psql('postgres',
		"CREATE DATABASE copy_$strategy TEMPLATE origin STRATEGY $strategy");
}

my $db = 'copy_wal_log';
is($node->safe_psql($db, 'SELECT count(*) FROM lockext_held'), 0, 'copy: nothing is held');
is($node->safe_psql($db, "SELECT held FROM lock_check('held')"), 'f', 'copy: really nothing');
is($node->safe_psql($db, "SELECT lock_release('held', $high)"),
	'f', "copy: the original's token is no good");
is($node->safe_psql($db, "SELECT reason FROM lock_renew('limited', 10)"),
	'lost', 'copy: what was held in the original can not be renewed');
is($node->safe_psql($db, "SELECT lock_try('held')"),
	$high + 1, 'copy: the lock is to be had, with a greater token');
is($node->safe_psql($db, "SELECT lock_try('new')"),
	2 * $high - 999, 'copy: the floor was copied as well');
is($node->safe_psql('origin', "SELECT string_agg(key, ' ' ORDER BY key) FROM lockext_held"),
	'held limited', 'original: its locks are held');
is($node->safe_psql('origin', "SELECT token FROM lock_check('held')"),
	$high, 'original: with the tokens they had');
is($node->safe_psql('origin', "SELECT lock_try('held')"), '', 'original: and refused');

# The worker removes the dead ones, and no others.
$db = 'copy_file_copy';
is($node->safe_psql($db, 'SELECT count(*) FROM lockext_held'), 0, 'other copy: nothing is held');
$node->safe_psql($db, "SELECT lock_try('mine'), lock_try('due', 1)");
$node->safe_psql('postgres', "ALTER SYSTEM SET lockext.retention = '0'");
$node->reload;
rows_are_gone($node, $db, 'other copy: the worker removes dead locks', 'mine');
is($node->safe_psql($db, "SELECT lock_try('held') > $high"),
	't', 'other copy: and their tokens do not come back');
rows_are_gone($node, 'origin', 'original: it removes none of the live ones', 'held', 'limited');
is($node->safe_psql('origin', "SELECT string_agg(key, ' ' ORDER BY key) FROM lockext_held"),
	'held limited', 'original: they are held');

# A copy in which nothing happens is looked at when the server starts.
$node->safe_psql('postgres', 'CREATE DATABASE copy_quiet TEMPLATE origin');
$node->restart;
rows_are_gone($node, 'copy_quiet', 'quiet copy: dead locks are removed after a restart');
is($node->safe_psql('origin', "SELECT string_agg(key, ' ' ORDER BY key) FROM lockext_held"),
	'held limited', 'original: its locks are held to the end');
is(worker_trouble($node, 0), '', 'the worker came through it');

$node->stop;
done_testing();
