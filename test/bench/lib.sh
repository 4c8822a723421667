# Functions for the benchmarks.  Sourced by bash after test/tools/lib.sh.
#
# From the environment, set by test/bench/run:
#	BENCH_TREE	the private tree to use; otherwise a part builds its own
#	BENCH_ROWS	the file to add rows to; otherwise a part prints a table of its rows
#	BENCH_DATA	the directory for what the charts are drawn from
#	QUICK		yes: a short run
#
# A row: question, what, lockext's figure, peer, the peer's figure, median of the
# ratios, their minimum and maximum, target.

rows=${BENCH_ROWS:-$work/rows.tsv}
data=${BENCH_DATA:-$work}
figures=$work/figures.tsv

[ -n "${BENCH_ROWS:-}" ] || : >"$rows"
: >"$figures"

# full_or_quick FULL QUICK: the one that applies
full_or_quick() { if [ "${QUICK:-}" = yes ]; then say "$2"; else say "$1"; fi; }

# prepare PG_CONFIG: set config, bin and cluster, building unless that was done
prepare() {
	if [ -n "${BENCH_TREE:-}" ]; then
		bin=$BENCH_TREE$("$1" --bindir)
		config=$bin/pg_config
		# shellcheck disable=SC2034
		cluster=$BENCH_TREE/cluster
	else
		build "$1"
	fi
}

# compile PROGRAM [FLAG...]: from the C file of that name
compile() {
	local name=$1
	shift
	cc -O2 -Wall -Wextra -Werror -I"$("$config" --includedir)" -o "$work/$name" \
		"$here/test/bench/$name.c" -L"$("$config" --libdir)" -lpq "$@"
}

sql() { "$bin/psql" -X -q -At -v ON_ERROR_STOP=1 -h "$work/s" -d postgres "$@"; }

row() { local IFS=$'\t'; say "$*" >>"$rows"; }

# figure ROUND NAME VALUE: remembered for compare
figure() { local IFS=$'\t'; say "$*" >>"$figures"; }

# compare QUESTION WHAT NAME PEER PEER_NAME FORMAT TARGET: a row of the figures with
# these names, the ratios taken within each round.  FORMAT is printf's.
compare() {
	awk -F '\t' -v OFS='\t' -v question="$1" -v what="$2" -v name="$3" -v peer="$4" -v peer_name="$5" -v format="$6" -v target="$7" '
		function median(v, n,    i, j, t) {
			for (i = 2; i <= n; i++)
				for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
			return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
		}
		function ratio(r) { return sprintf(r < 1 ? "%.3f" : r < 10 ? "%.2f" : "%.1f", r) }
		$2 == name { ours[$1] = $3 }
		$2 == peer_name { theirs[$1] = $3 }
		END {
			for (r in ours)
				if (r in theirs && theirs[r] != 0) { n++; a[n] = ours[r]; b[n] = theirs[r]; q[n] = a[n] / b[n] }
			if (!n) exit
			m = median(q, n)
			print question, what, sprintf(format, median(a, n)), peer, sprintf(format, median(b, n)),
				ratio(m), ratio(q[1]), ratio(q[n]), target
		}' "$figures" >>"$rows"
}

# rotated ROUND WORD...: the words, beginning with another one in each round, and
# in the opposite order in every other round
rotated() {
	local round=$1 i n
	shift
	n=$#
	for ((i = 0; i < n; i++)); do
		if ((round % 2)); then
			say "${*:$((1 + (round + i) % n)):1}"
		else
			say "${*:$((1 + (round + n - i) % n)):1}"
		fi
	done
}

# rows_as_table: from standard input to standard output
rows_as_table() {
	awk -F '\t' '
		BEGIN {
			print "| question | what | lockext | beside | its figure | ratio (min..max) | target | met |"
			print "|---|---|---|---|---|---|---|---|"
		}
		function met(target, ratio, figure,    bound) {
			if (target == "0") return figure + 0 == 0 ? "yes" : "no"
			if (ratio == "-" || !match(target, /^(>=|<=) [0-9.]+/)) return "-"
			bound = substr(target, 4, RLENGTH - 3) + 0
			return (target ~ /^>=/ ? ratio + 0 >= bound : ratio + 0 <= bound) ? "yes" : "no"
		}
		{
			spread = $7 == "-" || $7 == $8 ? $6 : sprintf("%s (%s..%s)", $6, $7, $8)
			printf "| %s | %s | %s | %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, $5, spread, $9, met($9, $6, $3)
		}'
}

# print_rows: what a part that was run alone ends with
print_rows() { [ -n "${BENCH_ROWS:-}" ] || rows_as_table <"$rows"; }
