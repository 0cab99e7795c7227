# shellcheck shell=bash
# What a deployment says, how it runs what it waits for, and what it leaves behind however it ends.

readonly FAILED=1 WRONG_USAGE=2 NOT_EQUIPPED=3 NOT_ROLLED_BACK=4 TARGET_MISSED=5 PROVES_NOTHING=6

state='nothing was changed' way_back='' besides='' work='' has_told=no

say() { printf '%s\n' "$*"; }
step() { printf '== %s\n' "$*"; }
look() { printf 'look: %s\n' "$*" >&2; }
complain() { printf 'deploy_10k_scale.sh: %s\n' "$*" >&2; }

# die CODE WORDS...: the end, and what is so besides. Never in a subshell.
die() {
    local code=$1
    shift
    has_told=yes
    complain "$*"
    [[ -z $besides ]] || complain "$besides"
    exit "$code"
}

misused() {
    has_told=yes
    complain "$*"
    echo "$USAGE" >&2
    exit "$WRONG_USAGE"
}

# attended COMMAND...: runs it so that a signal is heard at once, and not when it ends; its exit status.
attended() {
    "$@" </dev/null &
    wait "$!"
}

# change COMMAND...: the same of what changes something; a dry run only tells it.
change() {
    if [[ $dry_run == yes ]]; then
        printf 'would run:'
        printf ' %q' "$@"
        printf '\n'
    else
        attended "$@"
    fi
}

is_dry() { [[ $dry_run == yes ]]; }

# need COMMAND WHERE-FROM
need() {
    command -v "$1" >/dev/null || die "$NOT_EQUIPPED" "there is no $1 on this machine; $2"
}

# What a command wrote to its standard error, which was kept in the file `errors`, as one line.
errors() { tr -s '[:space:]' ' ' <"$work/errors" | cut -c 1-600; }

interrupted() {
    trap '' HUP INT TERM
    has_told=yes
    # All that was begun in the background, which a terminal's Ctrl-C does not reach.
    local running
    running=$(jobs -p)
    # shellcheck disable=SC2086 # one word each
    [[ -z $running ]] || kill $running 2>/dev/null || true
    echo >&2
    complain "interrupted: $state"
    [[ -z $way_back ]] || complain "to go back: $way_back"
    [[ -z $besides ]] || complain "$besides"
    exit "$1"
}

# However it ends. A step that nobody thought could fail has told nothing yet.
leave() {
    local code=$?
    if ((code)) && [[ $has_told == no ]]; then
        complain "ended by a step that failed; $state"
        [[ -z $way_back ]] || complain "to go back: $way_back"
        [[ -z $besides ]] || complain "$besides"
    fi
    unforward
    [[ -z $work ]] || rm -rf "$work"
}

begin() {
    work=$(mktemp -d)
    trap leave EXIT
    trap 'interrupted 129' HUP
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
}
