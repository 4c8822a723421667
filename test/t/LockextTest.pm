# What the TAP tests have in common.
package LockextTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  new_node fill_with_due_rows rows_are_gone is_row_count
  log_position worker_trouble worker_starts
  start_in_background seconds_for sqlstate_of has_amcheck is_table_sound
  new_session pid_of begin_statement end_statement kill_client
  wait_until must_become queue_up
);

# The rows of locks: all but the one that keeps the token floor.
our $ROWS = "FROM lockext_lock WHERE length(key) < 256";

# A server with the library preloaded (preload => 0: without), a worker that
# removes ended locks at once, and the extension in database postgres (create
# => 0: without).  conf: more lines for postgresql.conf; start => 0: not
# started; what else is given goes to init().
sub new_node
{
	my ($name, %opt) = @_;
	my $preload = delete $opt{preload} // 1;
	my $create = delete $opt{create} // 1;
	my $start = delete $opt{start} // 1;
	my $conf = delete $opt{conf} // '';
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '--no-locale', '-E', 'UTF8' ], %opt);
	$node->append_conf('postgresql.conf', <<EOC);
shared_preload_libraries = '@{[ $preload ? 'lockext' : '' ]}'
lc_messages = 'C'
log_line_prefix = '%m [%p] %b: %q%a '
log_statement = none
log_min_messages = debug1
max_connections = 30
max_prepared_transactions = 10
autovacuum = off
lockext.naptime = 50ms
lockext.retention = 0
$conf
EOC
	$node->start if $start;
	$node->safe_psql('postgres', 'CREATE EXTENSION lockext')
	  if $start && $create;
	return $node;
}

# So many locks, taken and released, in transactions of 500.
sub fill_with_due_rows
{
	my ($node, $db, $n) = @_;

	$node->safe_psql($db, <<EOC);
SET synchronous_commit = off;
DO \$\$
BEGIN
	FOR i IN 1..$n LOOP
		PERFORM lock_try('due-' || i);
		PERFORM lock_release('due-' || i);
		IF i % 500 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END \$\$
EOC
}

# Wait until the worker has left only the rows of these keys.
sub rows_are_gone
{
	my ($node, $db, $test, @left) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok( $node->poll_query_until(
			$db, "SELECT left(coalesce(string_agg(key, ' ' ORDER BY key), ''), 500) $ROWS",
			join(' ', sort @left)),
		$test);
}

sub is_row_count
{
	my ($node, $db, $n, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($node->safe_psql($db, "SELECT count(*) $ROWS"), $n, $test);
}

sub log_position
{
	my $node = shift;
	return -s $node->logfile;
}

# The lines, from a position of the log on, in which launcher or workers
# complain; not those that match except, nor the end of a server.
sub worker_trouble
{
	my ($node, $from, $except) = @_;
	my $log = slurp_file($node->logfile, $from);
	my @lines = grep
	  { /lockext (?:worker|launcher): (?:WARNING|ERROR|FATAL|PANIC):/ }
	  split /\n/, $log;

	@lines =
	  grep { !/FATAL:  terminating background worker .* due to administrator command/ }
	  @lines;
	@lines = grep { $_ !~ $except } @lines if defined $except;
	return join("\n", @lines);
}

sub worker_starts
{
	my ($node, $from) = @_;
	my $log = slurp_file($node->logfile, $from);
	my @starts =
	  $log =~ /starting background worker process "lockext worker"/g;

	return scalar @starts;
}

# Have a background session begin a statement, and return.
sub start_in_background
{
	my ($session, $statement) = @_;

	$session->query_until(qr/begun/, "\\echo begun\n$statement;\n");
}

# A background session that goes on after errors, and tells SQLSTATEs.  Its time
# limit is that of one statement.
sub new_session
{
	my ($node, $setup) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->set_query_timer_restart;
	$session->query_safe('\set VERBOSITY verbose');
	$session->query_safe($setup) if defined $setup;
	$session->{lockext_pid} = $session->query_safe('SELECT pg_backend_pid()');
	return $session;
}

# Of the server process.
sub pid_of
{
	my $session = shift;
	return $session->{lockext_pid};
}

# Have a session of new_session() begin a statement; end_statement() waits until
# it has ended, or the connection has, and returns what it said: standard output
# or, in list context, that and standard error.
sub begin_statement
{
	my ($session, $statement) = @_;

	$session->{timeout}->start;
	$session->{stdin} .= "$statement;\n\\echo '-- end'\n\\warn '-- end'\n";
	$session->{run}->pump_nb;
}

sub end_statement
{
	my $session = shift;
	my $end = qr/\n?-- end\n/;
	my $limit = time() + $PostgreSQL::Test::Utils::timeout_default - 5;
	my @said;

	$session->{timeout}->start;
	while ($session->{run}->pumpable)
	{
		last unless eval { $session->{run}->pump_nb; 1 };
		last if $session->{stdout} =~ $end && $session->{stderr} =~ $end;
		if (time() > $limit)
		{
			kill_client($session);
			die "no answer from process $session->{lockext_pid}";
		}
		usleep(2000);
	}
	foreach my $stream (qw(stdout stderr))
	{
		$session->{$stream} =~ s/$end//;
		push @said, $session->{$stream};
		$session->{$stream} = '';
	}
	return wantarray ? @said : $said[0];
}

# kill -9; on return its connection is closed.
sub kill_client
{
	my $session = shift;

	$session->{run}->signal('KILL');
	eval { $session->{run}->finish };
}

# Wait, in a session of new_session(), until a condition holds; false if it does
# not come to pass.
sub wait_until
{
	my ($session, $condition) = @_;
	my $limit = $PostgreSQL::Test::Utils::timeout_default - 5;
	my (undef, $failed) = $session->query(<<EOC);
DO \$wait\$
DECLARE
	begun timestamptz := clock_timestamp();
BEGIN
	LOOP
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN ($condition);
		IF clock_timestamp() > begun + interval '$limit s' THEN
			RAISE EXCEPTION 'in vain';
		END IF;
		PERFORM pg_sleep(0.002);
	END LOOP;
END \$wait\$
EOC
	diag("in vain: $condition: $session->{stderr}") if $failed;
	$session->{stderr} = '';
	return !$failed;
}

sub must_become
{
	my ($session, $condition) = @_;
	wait_until($session, $condition) or die "in vain: $condition";
}

# Each of these sessions begins to wait: all at once if they wait for different
# locks, else in turn.  Returns when all of them are in the queue, the first of
# each queue asleep.  watch is a session to look with; wait: [session, statement].
sub queue_up
{
	my ($watch, @wait) = @_;
	my $pids = join ', ', map { pid_of($_->[0]) } @wait;

	begin_statement(@$_) foreach @wait;
	must_become($watch, <<EOC);
(SELECT count(DISTINCT pid) FROM pg_locks
 WHERE objsubid = 27757 AND mode = 'ExclusiveLock' AND pid IN ($pids)) = @{[ scalar @wait ]}
AND NOT EXISTS (SELECT FROM pg_stat_activity
 WHERE pid IN ($pids) AND coalesce(wait_event_type NOT IN ('Lock', 'Extension'), true))
EOC
}

sub seconds_for
{
	my $code = shift;
	my $begun = time();

	$code->();
	return time() - $begun;
}

# '' if the statement succeeds
sub sqlstate_of
{
	my ($node, $db, $statement) = @_;
	my ($ret, $stdout, $stderr) =
	  $node->psql($db, "\\set VERBOSITY sqlstate\n$statement");

	return '' if $ret == 0 && $stderr !~ /ERROR/;
	return $stderr =~ /ERROR:\s+(\w{5})/ ? $1 : $stderr;
}

sub has_amcheck
{
	my $node = shift;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'");
}

# Is every row in every index, and is the heap as it must be?
sub is_table_sound
{
	my ($node, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($ret, $stdout, $stderr) = $node->psql('postgres', <<'EOC');
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT bt_index_check(i.indexrelid, true)
FROM pg_index i
	JOIN pg_class c ON c.oid = i.indexrelid
	JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = 'lockext_lock'::regclass AND a.amname = 'btree' AND i.indisvalid;
SELECT 'heap: ' || msg FROM verify_heapam('lockext_lock');
SELECT 'index not ready or invalid: ' || indexrelid::regclass
FROM pg_index
WHERE indrelid = 'lockext_lock'::regclass AND NOT (indisvalid AND indisready);
SELECT 'more than one row: ' || key
FROM lockext_lock
GROUP BY domain, key
HAVING count(*) > 1;
EOC
	$stderr =~ s/^.*NOTICE:.*already exists, skipping\n?//mg;
	$stdout =~ s/^\n+//mg;
	is("$ret$stdout$stderr", '0', $test);
}

1;
