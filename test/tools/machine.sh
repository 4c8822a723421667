# Functions for the scripts that install packages and then go on as a user who may
# run PostgreSQL.  Sourced by bash; the caller has set -eu and "here" (the sources),
# and needs Debian or Ubuntu, as root or with sudo.

program=${0##*/}
as_root=$([ "$(id -u)" = 0 ] && echo yes || echo no)
base=${LOCKEXT_DIR:-/tmp/lockext-$(id -u)}
child=
clean_up=:

say() { printf '%s\n' "$*"; }
die() {
	printf '%s: %s\n' "$program" "$*" >&2
	exit 1
}

# PostgreSQL refuses to run as root: then it runs as the user postgres, whom
# its packages make.
unprivileged() {
	cd /
	if [ "$as_root" = yes ]; then
		exec setpriv --reuid postgres --regid postgres --init-groups -- "$@"
	else
		exec "$@"
	fi
}

# Run a command in a process group of its own, so that it can be ended as a
# whole; returns its status.
run_group() {
	local status=0
	set -m
	"$@" &
	child=$!
	set +m
	wait "$child" || status=$?
	child=
	return $status
}

run() { run_group unprivileged "$@"; }

interrupted() {
	trap '' INT TERM HUP
	if [ -n "$child" ]; then
		kill -TERM -- "-$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	$clean_up
	exit 130
}
trap interrupted INT TERM HUP

# ---------- packages ----------

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# The newest supported PostgreSQL: installed to build against, else installed at
# all, else on offer.
choose_version() {
	local v
	for v in 18 17 16 15; do
		installed "postgresql-$v" && installed "postgresql-server-dev-$v" && echo "$v" && return
	done
	for v in 18 17 16 15; do
		installed "postgresql-$v" && echo "$v" && return
	done
	for v in 18 17 16 15; do
		[ -n "$(apt-cache madison "postgresql-server-dev-$v" 2>/dev/null)" ] && echo "$v" && return
	done
	return 0
}

privileged() {
	if [ "$as_root" = yes ]; then "$@"; else sudo "$@"; fi
}

need_privileges() { # need_privileges PACKAGE...
	[ "$as_root" = yes ] || command -v sudo >/dev/null ||
		die "these packages are missing and there is no sudo; have an administrator run: apt-get install $*"
}

apt_get() {
	privileged env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "$@" >>"$base/apt.log" 2>&1
}

update_package_lists() {
	apt_get -o APT::Update::Error-Mode=any update ||
		say "$program: the package lists could not be updated; going on with those there are ($base/apt.log)"
}

# Debian's server package makes and starts a cluster when it is installed; not
# here.
no_cluster=/etc/postgresql-common/createcluster.d/lockext.conf

allow_clusters() { privileged rm -f "$no_cluster"; }

install_packages() {
	local status=0
	say "installing: $*"
	clean_up=allow_clusters
	apt_get install postgresql-common || return 1
	privileged mkdir -p "$(dirname "$no_cluster")"
	echo "create_main_cluster = false" | privileged tee "$no_cluster" >/dev/null
	apt_get install "$@" || status=$?
	allow_clusters
	clean_up=:
	return $status
}

# need_packages [PACKAGE...]: %v in a name stands for PostgreSQL's version.
# Sets pg_config.
need_packages() {
	local v p missing=()
	command -v apt-get >/dev/null ||
		die "this needs Debian or Ubuntu; elsewhere build by hand, see \"Installing\" in README.md"
	: >"$base/apt.log"
	v=$(choose_version)
	if [ -z "$v" ]; then
		need_privileges gcc make postgresql postgresql-server-dev-all
		update_package_lists
		v=$(choose_version)
	fi
	[ -n "$v" ] ||
		die "no PostgreSQL 15 to 18 is installed or on offer; is the network down ($base/apt.log), or a package source missing? Debian 12 and Ubuntu 24.04 have one"

	for p in gcc make "postgresql-$v" "postgresql-server-dev-$v" "${@//%v/$v}"; do
		installed "$p" || missing+=("$p")
	done
	if [ ${#missing[@]} -gt 0 ]; then
		need_privileges "${missing[@]}"
		update_package_lists
		install_packages "${missing[@]}" || {
			tail -n 5 "$base/apt.log" >&2
			die "apt-get could not install ${missing[*]}; is the network up? ($base/apt.log)"
		}
	fi
	pg_config=/usr/lib/postgresql/$v/bin/pg_config
	[ -x "$pg_config" ] ||
		die "$pg_config is missing although its package is installed; try: apt-get install --reinstall postgresql-server-dev-$v"
}

# want_packages PACKAGE...: as far as they can be had without removing others
updated=
want_packages() {
	local p missing=()
	for p; do
		installed "$p" || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$as_root" = yes ] || command -v sudo >/dev/null || return 0
	[ -n "$updated" ] || update_package_lists
	updated=yes
	say "installing: ${missing[*]}"
	apt_get --no-remove install "${missing[@]}" ||
		say "$program: apt-get could not install ${missing[*]}; going on without ($base/apt.log)"
}

# ---------- directories ----------

prepare_base() {
	local what="LOCKEXT_DIR must be an absolute path of at most 50 letters, digits and ._/-, outside the sources"
	[[ $base =~ ^/[A-Za-z0-9._/-]{1,49}$ ]] || die "$what"
	case $base/ in "$here"/*) die "$what" ;; esac
	[ ! -L "$base" ] || die "$base is a symbolic link; set LOCKEXT_DIR to a directory of your own"
	[ ! -e "$base" ] || [ -d "$base" ] || die "$base is not a directory; set LOCKEXT_DIR to one of your own"
	mkdir -p "$base"
	[ -O "$base" ] || die "$base belongs to somebody else; set LOCKEXT_DIR to a directory of your own"
	chmod 755 "$base"
}

# A copy of the sources that the unprivileged user can read and write to.
fresh_copy() { # fresh_copy DIR
	rm -rf "$1"
	mkdir -p "$1/source"
	(cd "$here" && tar -cf - --exclude=.git --exclude='*.o' --exclude='*.so' .) | tar -xf - -C "$1/source"
	chmod -R u+rwX,go+rX "$1"
	[ "$as_root" = no ] || chown -R postgres "$1"
	run test -x "$1/source" || die "the user postgres cannot get to $base; set LOCKEXT_DIR to a directory it can reach"
}
