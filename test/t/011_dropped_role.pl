# The owner of a live lock is dropped.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $oid = $node->safe_psql('postgres', <<'EOC');
CREATE ROLE regress_owner;
CREATE ROLE regress_other;
SELECT 'regress_owner'::regrole::oid;
SET ROLE regress_owner;
SELECT lock_try('forever') = 0;
SELECT lock_try('limited', 3600) = 0;
EOC
($oid) = split /\n/, $oid;

is($node->safe_psql('postgres', "SELECT owner FROM lock_check('forever')"),
	'regress_owner', 'the lock shows its owner');
$node->safe_psql('postgres', 'DROP ROLE regress_owner');
is($node->safe_psql('postgres', "SELECT held, owner FROM lock_check('forever')"),
	"t|$oid", 'dropped: the lock stays, and shows its number');
is($node->safe_psql('postgres', 'SELECT key, owner FROM lockext_held ORDER BY key'),
	"forever|$oid\nlimited|$oid", 'in lockext_held as well');
is( $node->safe_psql('postgres',
		"SELECT acquired, reason, holder->>'owner' FROM lock_acquire('forever')"),
	"f|held|$oid",
	'and where it is refused');
is( $node->safe_psql('postgres',
		"SET ROLE regress_other; SELECT token IS NULL, lock_release('forever') FROM lock_check('forever')"),
	't|f',
	'nobody inherits it');
is($node->safe_psql('postgres', "SELECT lock_break('forever')"), 't', 'lock_break() ends it');
isnt($node->safe_psql('postgres', "SET ROLE regress_other; SELECT lock_try('forever')"),
	'', 'and it is free');
is($node->safe_psql('postgres', "SELECT lock_release('limited')"),
	't', 'a superuser can release such a lock too');
rows_are_gone($node, 'postgres', 'the worker removes its row', 'forever');
is(worker_trouble($node, 0), '', 'without trouble');

$node->stop;
done_testing();
