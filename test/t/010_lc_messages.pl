# calling_fn names the calling function also where messages are translated,
# and with them the description of the call stack that it is taken from.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LockextTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $locales = PostgreSQL::Test::Utils::tempdir_short;
my ($localedir) = run_command([ 'pg_config', '--localedir' ]);

plan skip_all => "no German message catalog for PL/pgSQL below $localedir"
  unless glob "$localedir/de/LC_MESSAGES/plpgsql-*.mo";
plan skip_all => 'localedef can not make de_DE.UTF-8'
  unless -r '/usr/share/i18n/locales/de_DE'
  && (grep { -x "$_/localedef" } split /:/, $ENV{PATH})
  && eval
{
	run_command(
		[ 'localedef', '-i', 'de_DE', '-f', 'UTF-8', "$locales/de_DE.UTF-8" ]);
	-d "$locales/de_DE.UTF-8" || -d "$locales/de_DE.utf8";
};

my $node = new_node('main', start => 0);
{
	local $ENV{LOCPATH} = $locales;
	$node->start;
}
$node->safe_psql('postgres', <<'EOC');
CREATE EXTENSION lockext;
CREATE FUNCTION context() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	c text;
BEGIN
	GET DIAGNOSTICS c = PG_CONTEXT;
	RETURN c;
END $$;
CREATE FUNCTION "migrate ""it"" (now)"(key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN calling_fn FROM lock_acquire(key);
END $$;
CREATE FUNCTION in_sql(key text) RETURNS text LANGUAGE sql AS $$
SELECT pg_sleep(0);
SELECT calling_fn FROM lock_acquire(key);
$$;
CREATE FUNCTION outer_one(key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN in_sql(key) || ' ' || context();
END $$;
CREATE FUNCTION tried(key text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lock_try(key);
	RETURN calling_fn FROM lock_check(key);
END $$;
CREATE PROCEDURE proc(key text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lock_try(key);
	COMMIT;
END $$;
EOC

foreach my $locale ('C', 'de_DE.UTF-8')
{
	my $german = $locale ne 'C';
	my $k = $german ? 'german-' : 'english-';
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_safe("SET lc_messages = '$locale'");
	like($session->query_safe('SELECT context()'),
		$german ? qr/PL\/pgSQL-Funktion context\(\) Zeile/ : qr/PL\/pgSQL function context\(\) line/,
		"$locale: descriptions are in the language they should be");
	is($session->query_safe(qq{SELECT "migrate ""it"" (now)"('${k}1')}),
		'migrate "it" (now)', "$locale: PL/pgSQL function");
	is($session->query_safe("SELECT in_sql('${k}2')"), 'in_sql', "$locale: SQL function");
	like($session->query_safe("SELECT outer_one('${k}3')"),
		$german ? qr/^in_sql PL\/pgSQL-Funktion/ : qr/^in_sql PL\/pgSQL function/,
		"$locale: SQL function within another; the language is as before");
	is($session->query_safe("SELECT tried('${k}4')"), 'tried', "$locale: lock_try()");
	$session->query_safe("CALL proc('${k}5')");
	is($session->query_safe("SELECT calling_fn FROM lock_check('${k}5')"),
		'proc', "$locale: procedure");
	$session->query_safe("DO \$\$ BEGIN PERFORM lock_try('${k}6'); END \$\$");
	is($session->query_safe("SELECT calling_fn FROM lock_check('${k}6')"),
		'010_lc_messages.pl', "$locale: a DO block has no name, so it is application_name");
	$session->quit;
}

$node->stop;
done_testing();
