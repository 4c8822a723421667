# Guarded tables: what needs other connections, other servers, dumps, or the log.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tree = <<'EOC';
CREATE TABLE plain (n integer PRIMARY KEY);
CREATE TABLE tree (n integer PRIMARY KEY) PARTITION BY RANGE (n);
CREATE TABLE tree_1 PARTITION OF tree FOR VALUES FROM (1) TO (10);
CREATE TABLE tree_2 PARTITION OF tree FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (n);
CREATE TABLE tree_21 PARTITION OF tree_2 FOR VALUES FROM (10) TO (15);
CREATE TABLE parent (n integer PRIMARY KEY);
CREATE TABLE child () INHERITS (parent);
EOC
my $guards = <<'EOC';
SELECT lock_guard_table('plain', 'k');
SELECT lock_guard_table('tree', 'k', 'some "odd" domain''s');
SELECT lock_guard_table('parent', 'k');
EOC

# The SQLSTATE of a statement of psql that connects with these options.
sub with_options
{
	my ($node, $options, $statement) = @_;
	local $ENV{PGOPTIONS} = $options;

	return sqlstate_of($node, 'postgres', $statement);
}

sub refused_everywhere
{
	my ($node, $db, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @passed = grep { sqlstate_of($node, $db, $_) ne 'LK002' } (
		'INSERT INTO plain VALUES (9)', 'TRUNCATE plain', 'DELETE FROM plain WHERE false',
		(map { ("INSERT INTO $_ VALUES (11)", "TRUNCATE $_", "UPDATE $_ SET n = n WHERE false") } qw(tree tree_2 tree_21)),
		'INSERT INTO tree_1 VALUES (9)', 'TRUNCATE tree_1', 'INSERT INTO child VALUES (9)', 'TRUNCATE child',
		'SET session_replication_role = replica; INSERT INTO plain VALUES (9)',
		'SET session_replication_role = replica; INSERT INTO tree_21 VALUES (11)',
		'ALTER TABLE tree DISABLE TRIGGER ALL', 'ALTER TABLE plain DISABLE TRIGGER ALL', 'DROP TABLE tree_21');

	is(join('; ', @passed), '', $test);
}

#
# Tokens that come with the connection, with and without the library preloaded.
#
my $node = new_node('main', allows_streaming => 'logical');
my $late = new_node('late', preload => 0, allows_streaming => 'logical');
foreach my $server ($node, $late)
{
	my $name = $server->name;

	$server->safe_psql('postgres', "$tree $guards CREATE ROLE writer LOGIN; GRANT ALL ON plain TO writer");
	refused_everywhere($server, 'postgres', "$name: no write passes without the lock");
	my $token = $server->safe_psql('postgres', "SELECT lock_try('k', 600)");
	my $wrong = $token + 1;

	is(with_options($server, '', 'INSERT INTO plain VALUES (1)'), 'LK002', "$name: no token");
	is(with_options($server, "-c lockext.token=k=$token", 'INSERT INTO plain VALUES (1)'), '', "$name: the token in PGOPTIONS");
	is(with_options($server, "-c lockext.token=k=$wrong", 'INSERT INTO plain VALUES (2)'), 'LK002', "$name: a wrong one");
	is(with_options($server, "-c lockext.token=x=1,k=$token", "UPDATE plain SET n = 2; SELECT lock_guard('k')"),
		'', "$name: one of several, for all that the session does");
	is(with_options($server, "-c lockext.token=k=$token", 'RESET lockext.token; TRUNCATE plain'), '',
		"$name: RESET goes back to it");
	is(with_options($server, "-c lockext.token=k=$token", "SET lockext.token = ''; TRUNCATE plain"), 'LK002',
		"$name: SET takes its place");
	is($server->psql('postgres', 'SET ROLE writer; INSERT INTO plain VALUES (3)',
			extra_params => [ '-d', $server->connstr('postgres') . " options='-c lockext.token=k=$token'" ]),
		0, "$name: in a connection string, and for a role that its own acts as");
	isnt($server->psql('postgres', 'INSERT INTO plain VALUES (3)',
			extra_params => [ '-d', $server->connstr('postgres') . " user=writer options='-c lockext.token=k=$token'" ]),
		0, "$name: not for a role without the privileges of the lock's owner");
	is(with_options($server, '-c role=writer -c lockext.bypass_guards=me', 'INSERT INTO plain VALUES (4)'), '',
		"$name: a superuser bypasses guards as any role");
	my ($ret) = $server->psql('postgres', 'INSERT INTO plain VALUES (5)',
		extra_params => [ '-d', $server->connstr('postgres') . " user=writer options='-c lockext.bypass_guards=me'" ]);
	isnt($ret, 0, "$name: others do not");
	$server->psql('postgres', "SET lockext.bypass_guards = 'me'; INSERT INTO plain VALUES (5); SELECT lock_check('k'); INSERT INTO plain VALUES (5)",
		extra_params => [ '-d', $server->connstr('postgres') . ' user=writer' ], on_error_stop => 0);
	is($server->safe_psql('postgres', 'SELECT n FROM plain ORDER BY n'), "3\n4", "$name: what passed");
	# a bad list is no token
	isnt(with_options($server, '-c lockext.token=oops', 'INSERT INTO plain VALUES (6)'), '', "$name: a bad list");

	my $log = log_position($server);
	$server->safe_psql('postgres', <<'EOC');
SET lockext.bypass_guards = 'ticket 17';
SET ROLE writer;
INSERT INTO plain VALUES (7), (8);
EOC
	$server->wait_for_log(qr/LOG:  guard bypassed: write to table public\.plain without lock "k"/, $log);
	$server->wait_for_log(qr/DETAIL:  Role "writer" \(session role ".+"\); reason: ticket 17/, $log);
	like(slurp_file($server->logfile, $log), qr/INSERT INTO plain VALUES \(7\), \(8\)/, "$name: the command is logged");
	unlike(slurp_file($server->logfile, $log), qr/bypassed.*bypassed/s, "$name: once");
	$log = log_position($server);
	$server->safe_psql('postgres', "SET lockext.bypass_guards = 'ticket 18'; INSERT INTO tree VALUES (1), (2), (3), (11)");
	my @logged = slurp_file($server->logfile, $log) =~ /guard bypassed: (.*) without/g;
	is(join(', ', sort @logged), 'write to table public.tree, write to table public.tree_1, write to table public.tree_21',
		"$name: once for each table, not for each row");
	$log = log_position($server);
	$server->safe_psql('postgres', "SET lockext.bypass_guards = 'ticket 19'; BEGIN; ALTER TABLE plain DISABLE TRIGGER lockext_guard; SELECT lock_unguard_table('plain'); ROLLBACK");
	like(slurp_file($server->logfile, $log), qr/guard bypassed: change the guard of table public\.plain .*ticket 19/s,
		"$name: DDL is logged too");
	$server->safe_psql('postgres', "SELECT lock_release('k')");
}

#
# A prepared transaction that has written keeps the lock from others.
#
{
	my $token = $node->safe_psql('postgres', "SELECT lock_try('k', 1)");

	$node->safe_psql('postgres', "SET lockext.token = 'k=$token'; BEGIN; DELETE FROM plain; PREPARE TRANSACTION 'write'");
	ok($node->poll_query_until('postgres', "SELECT NOT held FROM lock_check('k')"), 'prepared: the lock expires');
	is($node->safe_psql('postgres', "SELECT reason FROM lock_acquire('k')"), 'busy', 'prepared: nobody can take it');
	is(with_options($node, "-c lockext.token=k=$token", 'TRUNCATE parent'), 'LK002', 'prepared: its token is worth nothing');
	$node->restart;
	is($node->safe_psql('postgres', "SELECT reason FROM lock_acquire('k')"), 'busy', 'prepared: nor after a restart');
	$node->safe_psql('postgres', "COMMIT PREPARED 'write'");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM plain'), 0, 'prepared: it is committed');
	is($node->safe_psql('postgres', "SELECT acquired FROM lock_acquire('k', 600)"), 't', 'prepared: then the lock is free');

	# a lock taken by the transaction itself
	$node->safe_psql('postgres', "SELECT lock_release('k'); BEGIN; SELECT lock_try('k', scope => 'transaction'); INSERT INTO plain VALUES (1); PREPARE TRANSACTION 'write'");
	is($node->safe_psql('postgres', "SELECT reason FROM lock_acquire('k')"), 'busy', 'prepared: scope transaction');
	$node->safe_psql('postgres', "ROLLBACK PREPARED 'write'");
	is(sqlstate_of($node, 'postgres', 'INSERT INTO plain VALUES (1)'), 'LK002', 'prepared: and is over');
}

#
# Dumps.  Tables with their guards, whatever is restored first.
#
{
	my $dump = $node->basedir . '/dump';
	my $tables = 'SELECT schema, relation, key, domain FROM lockext_guards ORDER BY 1, 2';
	$node->safe_psql('postgres', "SET lockext.bypass_guards = 'fill'; TRUNCATE plain, tree, parent; INSERT INTO plain VALUES (1); INSERT INTO tree VALUES (5), (12); INSERT INTO child VALUES (6)");
	my $triggers = "SELECT tgrelid::regclass::text, tgname, tgenabled, tgtype, encode(tgargs, 'escape'), tgparentid <> 0 FROM pg_trigger WHERE tgfoid = 'lockext_guard_write'::regproc ORDER BY 1, 2";
	my $guarded = $node->safe_psql('postgres', "$tables; $triggers");

	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
	foreach my $how ([], [ '-j', '2' ], ['--single-transaction'])
	{
		my $target = 'restored' . join('', map { s/\W//gr } @$how);

		$node->safe_psql('postgres', "CREATE DATABASE $target");
		$node->command_ok([ 'pg_restore', '--exit-on-error', @$how, '-d', $node->connstr($target), $dump ], "pg_restore @$how");
		is($node->safe_psql($target, "$tables; $triggers"), $guarded, "the same is guarded @$how");
		is($node->safe_psql($target, 'SELECT (SELECT count(*) FROM plain), (SELECT count(*) FROM tree), (SELECT count(*) FROM parent)'),
			'1|2|1', "the rows are there @$how");
		refused_everywhere($node, $target, "and writes are refused @$how");
		# later members too
		$node->safe_psql($target, 'CREATE TABLE tree_22 PARTITION OF tree_2 DEFAULT; CREATE TABLE child_2 () INHERITS (parent)');
		is(sqlstate_of($node, $target, $_), 'LK002', "a later member: $_ @$how")
		  foreach ('TRUNCATE tree_22', 'INSERT INTO child_2 VALUES (1)', 'TRUNCATE child_2');
	}
	# rows alone need the locks
	my $rows = $node->basedir . '/rows';
	$node->command_ok([ 'pg_dump', '-Fc', '--data-only', '-t', 'plain', '-f', $rows, '-d', $node->connstr('postgres') ], 'pg_dump --data-only');
	$node->command_fails([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $rows ], 'rows alone are refused');
	$node->safe_psql('restored', "BEGIN; SELECT lock_try('k', scope => 'transaction'); DELETE FROM plain; COMMIT");
	my $there = $node->safe_psql('restored', "SELECT lock_try('k', 600)");
	{
		local $ENV{PGOPTIONS} = "-c lockext.token=k=$there";
		$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $rows ], 'but with the token of the lock');
	}
	is($node->safe_psql('restored', 'SELECT n FROM plain'), 1, 'they are there');
}

#
# Logical replication applies what was written under the publisher's locks.
#
{
	$node->safe_psql('postgres', "SET lockext.bypass_guards = 'clean'; TRUNCATE plain, tree, parent");
	$late->safe_psql('postgres', "SET lockext.bypass_guards = 'clean'; TRUNCATE plain, tree, parent");
	$node->safe_psql('postgres', "SET lockext.bypass_guards = 'fill'; INSERT INTO plain VALUES (1); INSERT INTO tree VALUES (1), (11)");
	$node->safe_psql('postgres', 'CREATE PUBLICATION pub FOR TABLE plain, tree');
	$late->safe_psql('postgres', sprintf(
			"CREATE SUBSCRIPTION sub CONNECTION '%s' PUBLICATION pub", $node->connstr . ' dbname=postgres'));
	$late->wait_for_subscription_sync($node, 'sub');
	is($late->safe_psql('postgres', 'SELECT (SELECT count(*) FROM plain), (SELECT count(*) FROM tree)'), '1|2',
		'replication: the first copy passes');
	$node->safe_psql('postgres', <<'EOC');
BEGIN;
SELECT lock_try('k', scope => 'transaction'), lock_try('k', scope => 'transaction', domain => 'some "odd" domain''s');
INSERT INTO plain VALUES (2), (3);
UPDATE plain SET n = 4 WHERE n = 2;
DELETE FROM plain WHERE n = 1;
UPDATE tree SET n = 12 WHERE n = 1;
COMMIT;
EOC
	$node->wait_for_catchup('sub');
	is($late->safe_psql('postgres', 'SELECT array(SELECT n FROM plain ORDER BY n), array(SELECT n FROM tree ORDER BY n)'),
		'{3,4}|{11,12}', 'replication: so do inserts, updates and deletes');
	$node->safe_psql('postgres', "SET lockext.bypass_guards = 'clean'; TRUNCATE plain, tree");
	$node->wait_for_catchup('sub');
	is($late->safe_psql('postgres', 'SELECT (SELECT count(*) FROM plain), (SELECT count(*) FROM tree)'), '0|0',
		'replication: and TRUNCATE');
	refused_everywhere($late, 'postgres', 'replication: sessions of the subscriber are refused');
	$late->safe_psql('postgres', 'DROP SUBSCRIPTION sub');
}
is(worker_trouble($node, 0), '', 'the worker does not complain');

done_testing();
