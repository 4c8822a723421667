# usage: perl round_trip.pl      (PGHOST, PGUSER, ... say where)
#
# A lock by lock_request() and by lock_event(), with DBI and DBD::Pg.

use strict;
use warnings;

use DBI;
use JSON::PP;

my $json = JSON::PP->new->canonical;

sub connect_to_server
{
	return DBI->connect('dbi:Pg:', '', '', { RaiseError => 1, PrintError => 0 });
}

sub lock_request
{
	my ($dbh, %request) = @_;
	my ($reply) = $dbh->selectrow_array('SELECT lock_request(?)', undef, $json->encode(\%request));
	return $json->decode($reply);
}

sub lock_event
{
	my ($dbh, $action, $payload, $meta) = @_;
	my ($reply) = $dbh->selectrow_array('SELECT lock_event(?, ?, ?)',
		undef, $action, $json->encode($payload), $json->encode($meta));
	return $json->decode($reply);
}

# Compared as JSON: the number 1 is not the string "1", nor true.
sub expect
{
	my ($what, $actual, $expected) = map { ref $_ ? $json->encode($_) : $_ } @_;
	die "not ok - $what: $actual instead of $expected\n" if $actual ne $expected;
	return;
}

sub requests
{
	my ($first, $second) = @_;
	my $key = 'perl-report';
	my ($true, $false) = (JSON::PP::true, JSON::PP::false);

	my $lock = lock_request($first, operation => 'acquire', key => $key, timeout => 300, callingFn => 'report');
	expect('acquire', [ @$lock{qw(acquired timeout callingFn)} ], [ $true, 300, 'report' ]);
	print "ok - acquired with a timeout\n";

	my ($token) = $first->selectrow_array('SELECT token FROM lock_check(?)', undef, $key);
	expect('token', [ $lock->{token} ], [ $token + 0 ]);
	print "ok - the token is a number, and exact\n";

	expect(
		'second',
		lock_request($second, operation => 'acquire', key => $key, timeout => 300, callingFn => 'report'),
		{ key => $key, callingFn => 'report', acquired => $false });
	my $conflict = lock_request($second, operation => 'acquire', key => $key, onConflict => 'error');
	expect('conflict', [ @$conflict{qw(success code)} ], [ $false, 'LOCK_CONFLICT' ]);
	print "ok - a second connection is refused\n";

	my $check = lock_request($second, operation => 'check', key => $key);
	expect(
		'check',
		[ @$check{qw(exists lockInfo)} ],
		[   $true,
			{   key => $key,
				callingFn => 'report',
				timestamp => $lock->{timestamp},
				timeoutSeconds => 300,
				appId => $ENV{PGUSER}
			}
		]);
	print "ok - check says who holds it\n";

	my $release = sub { lock_request($first, operation => 'release', key => $key, token => $_[0])->{released} };
	expect('release', [ map { $release->($lock->{token} + $_) } 1, 0, 0 ], [ $false, $true, $false ]);
	expect('check', lock_request($second, operation => 'check', key => $key)->{exists}, $false);
	print "ok - released with its token, once\n";

	foreach my $bad (
		{ key => 'large-data-file.csv' },
		{ key => $key, timeout => 21600 },
		{ key => $key, timeout => '300' },
		{ key => $key, timeOut => 300 },
		{ key => 1 }, {})
	{
		my $reply = lock_request($first, operation => 'acquire', %$bad);
		expect($json->encode($bad), [ @$reply{qw(success code)} ], [ $false, 'VALIDATION_ERROR' ]);
	}
	print "ok - bad input is a VALIDATION_ERROR\n";
	return;
}

sub events
{
	my ($first, $second) = @_;
	my $id = 9223372036854775807;
	my $meta = {
		inputElement => 'parameters',
		outputElement => 'result',
		parameters => { expiry => 10000, allowNoLock => JSON::PP::true }
	};

	my $payload = sub {
		my %parameters = (id => $id, amount => 12.5, lines => [ 1, '1' ]);
		$parameters{result} = { locked => $_[0] ? JSON::PP::true : JSON::PP::false } if @_;
		return { parameters => \%parameters };
	};

	expect('TryLock', lock_event($first, 'TryLock', $payload->(), $meta), $payload->(1));
	expect('TryLock', lock_event($second, 'TryLock', $payload->(), $meta), $payload->(0));
	expect('CheckLock', lock_event($second, 'CheckLock', $payload->(), $meta), $payload->(1));
	expect('id', lock_request($first, operation => 'check', key => "$id")->{lockInfo}{timeoutSeconds}, 10);
	expect('Unlock', lock_event($first, 'Unlock', $payload->(), $meta), $payload->());
	expect('CheckLock', lock_event($second, 'CheckLock', $payload->(), $meta), $payload->(0));
	print "ok - TryLock, CheckLock and Unlock; the numbers of the payload are unchanged\n";

	my $went_through = eval { lock_event($first, 'TryLock', { id => 1 }, { parameters => { expiry => 0 } }); 1 };
	expect('expiry 0', $went_through ? 'went through' : $first->state, '22023');
	print "ok - a bad parameter raises\n";
	return;
}

my ($first, $second) = (connect_to_server(), connect_to_server());
requests($first, $second);
events($first, $second);
$_->disconnect for $first, $second;
