# Without preloading everything works but the worker.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', preload => 0, create => 0);

sub notices
{
	my ($db, $statements) = @_;
	my ($ret, $stdout, $stderr) = $node->psql($db, $statements);
	my @notices = $stderr =~ /(NOTICE|WARNING|ERROR):  ([^\n]*)/g;

	return "$ret @notices";
}

my $note = '0 NOTICE lockext is not in shared_preload_libraries';

is(notices('postgres', 'CREATE EXTENSION lockext'), $note,
	'CREATE EXTENSION says once that the library is not preloaded');
is(notices('postgres', "SELECT lock_try('k'); SELECT lock_release('k')"), '0 ',
	'the functions do not repeat it');
$node->safe_psql('postgres', 'CREATE DATABASE other');
is(notices('other', "LOAD 'lockext'; CREATE EXTENSION lockext"), $note,
	'nor does it help that the session has loaded the library');
is($node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'lockext%'"),
	0, 'there is no launcher');

# A session that has the library from its start, and one that loads it later.
foreach my $how ('', "LOAD 'lockext'; ", "SET lockext.default_timeout = '20min'; LOAD 'lockext'; ")
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $token;

	$session->query_safe("$how SELECT 1");
	is($session->query_safe("SELECT acquired, reason IS NULL FROM lock_acquire('a', 3600, data => '{}')"),
		't|t', 'lock_acquire()');
	is($node->safe_psql('postgres', "SELECT acquired, reason, holder->>'scope' FROM lock_acquire('a')"),
		'f|held|lease', 'lock_acquire(), refused');
	is($session->query_safe('SELECT key FROM lockext_held'), 'a', 'lockext_held');
	$token = $session->query_safe("SELECT token FROM lock_check('a') WHERE held");
	is($session->query_safe("SELECT lock_try('a') IS NULL"), 't', 'lock_try(), refused');
	is($session->query_safe("SELECT acquired, timeout FROM lock_renew('a', 10, $token)"),
		't|10', 'lock_renew()');
	is($node->safe_psql('postgres', "SELECT lock_release('a', $token)"), 't', 'lock_release()');
	is($session->query_safe("SELECT lock_try('a', 1) > $token"), 't', 'lock_try(); tokens rise');
	is($session->query_safe("SELECT lock_break('a')"), 't', 'lock_break()');
	is( $session->query_safe('SELECT timeout FROM lock_acquire($$b$$)'),
		($how =~ /default_timeout/ ? '1200' : ''),
		'lockext.default_timeout');
	is($session->query_safe("SELECT lock_try('m', master => true, domain => 'd') IS NOT NULL AND lock_break('b') AND lock_release('', master => true, domain => 'd')"),
		't', 'master locks');

	# two-phase commit, and a rollback
	$session->query_safe("BEGIN; SELECT lock_try('p'); PREPARE TRANSACTION 'p'");
	is($session->query_safe("SELECT reason FROM lock_acquire('p')"), 'busy', 'prepared');
	$session->query_safe("ROLLBACK PREPARED 'p'");
	$session->query_safe("BEGIN; SELECT lock_try('p'); ROLLBACK");
	is($session->query_safe("SELECT held FROM lock_check('p')"), 'f', 'rolled back');
	$session->quit;
}

# Expiry needs no worker.
my $token = $node->safe_psql('postgres', "SELECT lock_try('expires', 1)");
ok($node->poll_query_until('postgres', "SELECT NOT held FROM lock_check('expires')"),
	'a lock expires');
cmp_ok($node->safe_psql('postgres', "SELECT lock_try('expires', 1)"),
	'>', $token, 'and is to be had');
is(sqlstate_of($node, 'postgres', 'SET lockext.nonsense = 1; SELECT lock_check($$k$$)'),
	'', 'a setting of no meaning, made before the library is loaded, does no harm');
is(sqlstate_of($node, 'postgres', "LOAD 'lockext'; SET lockext.nonsense = 1"),
	'42602', 'and is refused afterwards');

# The worker, once there is one, tidies up.
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM lockext_lock'),
	'>', 1, 'rows of ended locks stay in the table');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'lockext'");
$node->restart;
rows_are_gone($node, 'postgres', 'preloaded after a restart: they are removed');

# And away again.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
cmp_ok($node->safe_psql('postgres', "SELECT lock_try('expires')"),
	'>', $token, 'not preloaded again: tokens rise');

$node->stop;
done_testing();
