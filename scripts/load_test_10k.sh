#!/bin/sh
# The proof for 10,000 users: scripts/load_test_10k.sh [--quick|--baseline|--ramp-up|--sustained|--spike|--stress|--endurance]...
#     [--generate-report] [--url URL] [--key KEY] [--users NUMBER] [--duration TIME] [--scale FACTOR]
# Without a scenario it is all but endurance. Results are under logs/load-testing/; the exit status is 0 where every target
# was met. All else is in `kyb loadtest --help` and docs/load-testing.md.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
kyb="$root/.venv/bin/kyb"
if [ ! -x "$kyb" ]; then
    kyb=$(command -v kyb) || {
        echo "load_test_10k.sh: there is no kyb; run \`make build\` in $root first" >&2
        exit 2
    }
fi
# Each connection is an open file: as many as this system lets a program have.
# shellcheck disable=SC3045  # dash, busybox and bash all have -n and -H; where a shell has not, nothing is changed.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec "$kyb" loadtest "$@"
