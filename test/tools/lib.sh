# Functions for the scripts that build lockext and start servers of their own.
# Sourced by bash; the caller has set -eu, "here" (the sources) and "work" (a
# directory to write to).  PostgreSQL does not run as root, nor do these.

server=
cluster=

say() { printf '%s\n' "$*"; }

# Nothing from the caller's environment may lead elsewhere.
for name in "${!PG@}"; do
	[[ $name == PG_TEST_* ]] || unset "$name"
done
unset CDPATH DESTDIR MAKEFLAGS MFLAGS COPT PROFILE
export LC_ALL=C.UTF-8 PGUSER=postgres

# build PG_CONFIG: compile a copy of the sources and install it into a private
# copy of that PostgreSQL.  Sets config, bin and pgxs, those of the copy, and cluster,
# which start_server makes copies of.
build() {
	rm -rf "$work/src" "$work/tree"
	mkdir -p "$work/src"
	(cd "$here" && tar -cf - --exclude=.git --exclude='*.o' --exclude='*.so' .) | tar -xf - -C "$work/src"
	config=$("$work/src/test/tools/private-tree" "$1" "$work/tree")
	bin=$("$config" --bindir)
	pgxs=$(dirname "$("$config" --pgxs)")/../..
	make -C "$work/src" -s -j "$(nproc)" PG_CONFIG="$config" with_llvm=no COPT=-Werror install >"$work/build.log" 2>&1 || {
		cat "$work/build.log"
		say "build failed"
		exit 1
	}
	cluster=$work/tree/cluster
	make_cluster "$cluster"
}

make_cluster() { "$bin/initdb" -D "$1" -U postgres -A trust --no-sync --no-locale -E UTF8 >"$1.log"; }

# Where the servers' sockets are.
sockets=$work/s

# start_server NAME [LINE...]: a new cluster, with these lines in
# postgresql.conf, on a socket in $sockets
start_server() {
	local name=$1
	shift
	rm -rf "${work:?}/$name" "${sockets:?}"
	mkdir -p "$sockets"
	if [ -n "$cluster" ]; then cp -Rp "$cluster" "$work/$name"; else make_cluster "$work/$name"; fi
	{
		printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$sockets'" "port = 5432" \
			"max_prepared_transactions = 20" "log_line_prefix = '%m [%p] %q%a '" "$@"
	} >>"$work/$name/postgresql.conf"
	"$bin/pg_ctl" -D "$work/$name" -l "$work/$name.log" -s -w start || {
		tail -n 20 "$work/$name.log"
		return 1
	}
	server=$work/$name
}

stop_server() {
	[ -z "$server" ] || "$bin/pg_ctl" -D "$server" -m "${1:-fast}" -s stop
	server=
}

# A server for the client programs, on a free port of the loopback interface, where
# only the role client may connect, with a password made for this run.  Sets
# client_settings, the environment for them.
start_client_server() {
	local port password attempt
	password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	printf '%s\n' "local all postgres trust" "host postgres client 127.0.0.1/32 scram-sha-256" >"$work/clients.hba"
	for attempt in 1 2 3; do
		port=$((20000 + RANDOM % 10000))
		start_server data.clients "shared_preload_libraries = 'lockext'" "fsync = off" \
			"listen_addresses = '127.0.0.1'" "port = $port" "hba_file = '$work/clients.hba'" && break
		say "# clients: no server on port $port (attempt $attempt)"
	done
	[ -n "$server" ] || return 1
	# shellcheck disable=SC2034
	client_settings=(PGHOST=127.0.0.1 "PGPORT=$port" PGDATABASE=postgres PGUSER=client
		"PGPASSWORD=$password" PGSSLMODE=disable)
	"$bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$sockets" -p "$port" -d postgres <<-END
		CREATE EXTENSION lockext;
		CREATE ROLE client LOGIN PASSWORD '$password';
		ALTER ROLE client SET lockext.domains = '"", clients';
		GRANT CREATE ON DATABASE postgres TO client;
	END
}

trap 'stop_server immediate || true' EXIT
trap 'exit 130' INT TERM HUP
