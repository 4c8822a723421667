# pg_upgrade carries the lock table over as it is: locks stay held, tokens rise,
# and the worker finds its rows.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $held = "SELECT key, token, expires_at FROM lockext_held ORDER BY key";

my $old = new_node('old', conf => 'lockext.retention = 1h');
$old->safe_psql('postgres', 'CREATE DATABASE app');
$old->safe_psql('app', 'CREATE SCHEMA locks; CREATE EXTENSION lockext SCHEMA locks');
$old->safe_psql('app', "SELECT locks.lock_try('elsewhere')");
$old->safe_psql('postgres',
	"SELECT lock_try('forever'), lock_try('hour', 3600), lock_try('ended'); SELECT lock_release('ended')");
my $before = $old->safe_psql('postgres', $held);
my $token = $old->safe_psql('postgres', "SELECT max(token) FROM lockext_lock");
$old->stop;

my $new = new_node('new', start => 0);
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'-d', $old->data_dir, '-D', $new->data_dir,
		'-b', $old->config_data('--bindir'), '-B', $new->config_data('--bindir'),
		'-s', $new->host, '-p', $old->port, '-P', $new->port
	],
	'pg_upgrade');

$new->start;
is($new->safe_psql('postgres', $held), $before, 'the locks are as they were');
is($new->safe_psql('postgres', "SELECT lock_try('forever') IS NULL"), 't', 'and refused');
is($new->safe_psql('app', "SELECT held FROM locks.lock_check('elsewhere')"),
	't', 'in a database and schema of their own too');
rows_are_gone($new, 'postgres', 'the worker removes what had ended', 'forever', 'hour');
is($new->safe_psql('postgres', "SELECT lock_try('ended') > $token"), 't', 'tokens go on rising');
is_table_sound($new, 'the table is sound');
$new->stop;

done_testing();
