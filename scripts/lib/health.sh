# shellcheck shell=bash
# Whether a service does its work, asked over HTTP: at an address, or through kubectl port-forward.

readonly READY_WITHIN_S=60 DATABASE_WITHIN_S=10

forward_pid='' forward_url=''

# ask PATH [CURL-OPTION...]: the status, 000 where there is none; the body is in the file `answer`. Uses $base.
ask() {
    local path=$1
    shift
    curl --silent --show-error --max-time 15 --noproxy 127.0.0.1 --output "$work/answer" --write-out '%{http_code}' \
        --config <(sent_key) "$@" "$base$path" 2>"$work/errors" || true
}

# The key as a line of a file, so that it does not stand in the list of processes.
sent_key() { [[ -z $key ]] || printf 'header = "X-API-Key: %s"\n' "$key"; }

# What came instead of the answer that was hoped for. $1: its status.
instead() {
    if [[ $1 == 000 ]]; then errors; else printf '%s %s' "$1" "$(head -c 400 "$work/answer")"; fi
}

# forward TARGET PORT: $forward_url leads to it until unforward.
forward() {
    local deadline=$((SECONDS + 30)) port=''
    : >"$work/forward"
    "${KUBECTL[@]}" port-forward --address 127.0.0.1 "$1" ":$2" >"$work/forward" 2>"$work/errors" </dev/null &
    forward_pid=$!
    while [[ -z $port ]]; do
        if ! kill -0 "$forward_pid" 2>/dev/null || ((SECONDS >= deadline)); then
            complain "no port of $1 could be forwarded: $(errors)"
            unforward
            return 1
        fi
        sleep 0.1
        port=$(sed -n 's/^Forwarding from 127\.0\.0\.1:\([0-9][0-9]*\) .*/\1/p' "$work/forward")
    done
    forward_url="http://127.0.0.1:$port"
}

unforward() {
    if [[ -n $forward_pid ]]; then
        kill "$forward_pid" 2>/dev/null || true
        wait "$forward_pid" 2>/dev/null || true
    fi
    forward_pid=''
}

# verify URL: ready, its database there, and an assessment made where there is a key. Tells what it saw.
verify() {
    local base=${1%/}
    await_ready && check_components && check_assessment
}

await_ready() {
    local deadline status
    deadline=$((SECONDS + (timeout < READY_WITHIN_S ? timeout : READY_WITHIN_S)))
    until is_ready; do
        if ((SECONDS >= deadline)); then
            complain "$base is not ready: $(instead "$status")"
            return 1
        fi
        sleep 1
    done
    say "ready: $base, $(tr -d '"{}' <"$work/answer")"
}

# Where a proxy hands on /health and not /health/ready, the word there has to do. Sets $status.
is_ready() {
    status=$(ask /health/ready)
    [[ $status == 200 || $status == 404 ]] || return 1
    status=$(ask /health)
    [[ $status == 200 ]] && grep -qE '"status":"(ok|degraded)"' "$work/answer"
}

# Broken is what leaves nothing to be recorded or read; anything else that is not well is told. Each look has the
# service look anew, and the next sees what that found.
check_components() {
    local deadline status
    deadline=$((SECONDS + (timeout < DATABASE_WITHIN_S ? timeout : DATABASE_WITHIN_S)))
    while :; do
        status=$(ask /health/detailed)
        if [[ $status != 200 ]]; then
            look "$base/health/detailed is $status: components are not looked at from there"
            return 0
        fi
        sleep 1
        status=$(ask /health/detailed)
        if [[ $status != 200 ]] || ! grep -o '"name":"[^"]*","status":"[^"]*"' "$work/answer" >"$work/components" ||
            ! grep -q '"database_' "$work/components"; then
            complain "$base/health/detailed tells of no database: $(instead "$status")"
            return 1
        fi
        if ((SECONDS >= deadline)) || ! grep '"database_' "$work/components" | grep -qv '"ok"'; then break; fi
    done
    tr -d '"' <"$work/components" | sed 's/name:\(.*\),status:/\1 /' >"$work/states"
    if grep -q '^database_.* down' "$work/states"; then
        complain "it has no database to work with: $(grep '^database_' "$work/states" | paste -s -d , -)"
        return 1
    fi
    if grep -v ' ok$' "$work/states" >"$work/not_well"; then
        look "not well, see /health/detailed: $(paste -s -d , "$work/not_well")"
    fi
    say 'database: there'
}

check_assessment() {
    local status
    if [[ -z $key ]]; then
        look 'no key was given (KYB_KEY, KYB_KEY_FILE, --key-file): no assessment was tried'
        return 0
    fi
    status=$(ask '/v1/assessments?dry_run=true' --header 'Content-Type: application/json' --data "@$PROFILE")
    if [[ $status != 200 ]] || ! grep -q '"id":null.*"score":' "$work/answer"; then
        complain "an assessment (dry run) was not answered as it should be: $(instead "$status")"
        return 1
    fi
    say "assessment: ok (dry run, $(grep -o '"score":[0-9.]*' "$work/answer" | tr -d '"'))"
}
