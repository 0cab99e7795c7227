#!/usr/bin/env bash
# Brings the service to Kubernetes, to Railway or to both, and takes back what is not healthy: docs/deploying.md.
set -euo pipefail

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
    echo "deploy_10k_scale.sh: bash $BASH_VERSION is too old; 4.4 or later is needed" >&2
    exit 3
fi

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT SELF=scripts/deploy_10k_scale.sh
readonly NAME=risk-assessment-service PORT=8080 PROFILE=$ROOT/examples/healthy-manufacturer.json
readonly USAGE="usage: $SELF [--kubernetes] [--railway] [--canary PERCENT] [--dry-run]
       [--health-check] [--load-test] [--rollback] [--status] [OPTION...]; --help tells the rest"
readonly HELP="usage: $SELF WHERE [WHAT...] [OPTION...] [-- OPTION-OF-THE-LOAD-TEST...]

Where; with both, Railway once Kubernetes is done. What only looks or goes back means Kubernetes where none is named:
  --kubernetes          the cluster of kubectl's current context
  --railway             the Railway project that is linked to this folder, or that RAILWAY_TOKEN is of

What; without any it deploys: migration, rollout, health, and back to where it was if one of them fails:
  --canary PERCENT      deploy, but first to as many pods as get PERCENT (1-99) of the requests; all the others only
                        if these do well, else they are removed (Kubernetes)
  --health-check        verify what runs: ready, its database there, an assessment (dry run) where there is a key
  --load-test           put the load test on what runs; its verdict is the exit status. After -- come its own options
                        (--quick where there are none)
  --rollback            back to the version before; a canary that was left is removed instead
  --status              what runs; fails where that is not whole
  --deploy              deploy, where another of these is wanted after it: --deploy --load-test
  --dry-run             tell what would be done, and change nothing

Options:
  --overlay FOLDER      what to apply (deploy/kubernetes/overlays/10k)
  --migration FOLDER    with the migration's Job (deploy/kubernetes/migration)
  --image IMAGE         instead of the overlay's, such as registry.example/risk-assessment-service:1.0.1
  --namespace NAME      (kyb-platform)
  --context NAME        of kubectl
  --url URL             where callers reach the service in Kubernetes: health is asked there too (--health-check: there,
                        not through port-forward), and the load test goes there; without it, to the Ingress's host
  --railway-url URL     the same of Railway
  --railway-service NAME, --railway-environment NAME    (risk-assessment-service, the linked one)
  --key-file FILE       with an API key (else KYB_KEY, else the file KYB_KEY_FILE)
  --timeout TIME        of each wait: 90, 90s or 10m (10m)
  --canary-time TIME    for which the canary is watched (60s)

Exit status: 0 all was done and verified; 1 something failed: rolled back, or nothing replaced, as it says; 2 wrong
usage; 3 a tool, credentials or the cluster are missing, nothing was touched; 4 no rollback: somebody has to look now;
5 the load test missed a target; 6 it proves nothing; 129, 130, 143 interrupted."

places=() deploys='' checks='' loads='' rolls_back='' tells='' load_options=()
overlay=$ROOT/deploy/kubernetes/overlays/10k
migration=$ROOT/deploy/kubernetes/migration
namespace=kyb-platform image='' context='' canary='' dry_run=no
url='' railway_url='' railway_service=$NAME railway_environment=''
key=${KYB_KEY:-} key_file='' timeout=600 canary_time=60

# shellcheck source=scripts/lib/telling.sh
. "$ROOT/scripts/lib/telling.sh"
# shellcheck source=scripts/lib/health.sh
. "$ROOT/scripts/lib/health.sh"
# shellcheck source=scripts/lib/manifests.sh
. "$ROOT/scripts/lib/manifests.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$ROOT/scripts/lib/cluster.sh"
# shellcheck source=scripts/lib/kubernetes.sh
. "$ROOT/scripts/lib/kubernetes.sh"
# shellcheck source=scripts/lib/canary.sh
. "$ROOT/scripts/lib/canary.sh"
# shellcheck source=scripts/lib/railway.sh
. "$ROOT/scripts/lib/railway.sh"

# seconds FLAG TEXT: a time in seconds; wrong usage where it is none.
seconds() {
    [[ $2 =~ ^([1-9][0-9]{0,5})(s|m)?$ ]] || misused "$1 takes a time such as 90s or 10m, not '$2'"
    if [[ ${BASH_REMATCH[2]:-} == m ]]; then REPLY=$((BASH_REMATCH[1] * 60)); else REPLY=${BASH_REMATCH[1]}; fi
}

address() {
    [[ $2 =~ ^https?://[^/[:space:]]+/?$ ]] || misused "$1 takes an address such as https://kyb.example, not '$2'"
}

add_place() { if [[ " ${places[*]} " != *" $1 "* ]]; then places+=("$1"); fi; }

parse() {
    local flag value
    (($#)) || misused 'where to, and what?'
    while (($#)); do
        flag=${1%%=*}
        case $flag in
            --canary | --overlay | --migration | --image | --namespace | --context | --url | --railway-url | \
                --railway-service | --railway-environment | --key-file | --timeout | --canary-time)
                if [[ $1 == *=* ]]; then
                    value=${1#*=}
                else
                    (($# > 1)) && [[ $2 != --* ]] || misused "$flag takes a value"
                    value=$2
                    shift
                fi
                [[ -n $value ]] || misused "$flag takes a value"
                ;;
            *) [[ $1 != *=* ]] || [[ $1 != --* ]] || misused "unknown, or takes no value: $1" ;;
        esac
        case $flag in
            --kubernetes) add_place kubernetes ;;
            --railway) add_place railway ;;
            --deploy) deploys=yes ;;
            --health-check) checks=yes ;;
            --load-test) loads=yes ;;
            --rollback) rolls_back=yes ;;
            --status) tells=yes ;;
            --dry-run) dry_run=yes ;;
            --canary)
                [[ $value =~ ^[1-9][0-9]?$ ]] || misused "--canary takes a whole number from 1 to 99, not '$value'"
                canary=$value deploys=yes
                ;;
            --overlay) overlay=${value%/} ;;
            --migration) migration=${value%/} ;;
            --image) image=$value ;;
            --namespace) namespace=$value ;;
            --context) context=$value ;;
            --url) address "$flag" "$value" && url=${value%/} ;;
            --railway-url) address "$flag" "$value" && railway_url=${value%/} ;;
            --railway-service) railway_service=$value ;;
            --railway-environment) railway_environment=$value ;;
            --key-file) key_file=$value ;;
            --timeout) seconds "$flag" "$value" && timeout=$REPLY ;;
            --canary-time) seconds "$flag" "$value" && canary_time=$REPLY ;;
            --help | -h) echo "$HELP" && exit 0 ;;
            --)
                shift
                load_options=("$@")
                break
                ;;
            *) misused "unknown: $1" ;;
        esac
        shift
    done
}

settle() {
    if [[ -n $rolls_back && -n $deploys$checks$loads$tells ]]; then misused '--rollback goes alone'; fi
    if [[ -z $deploys$checks$loads$rolls_back$tells ]]; then
        ((${#places[@]})) || misused 'what is to be done?'
        deploys=yes
    fi
    if ((${#places[@]} == 0)); then
        [[ -z $deploys ]] || misused 'where to? --kubernetes, --railway, or both'
        places=(kubernetes)
    fi
    # Both are always Kubernetes first.
    ((${#places[@]} == 1)) || places=(kubernetes railway)
    [[ -z $canary || ${places[0]} == kubernetes ]] ||
        misused '--canary goes with --kubernetes: a service on Railway has one deployment'
    ((${#load_options[@]} == 0)) || [[ -n $loads ]] || misused "what comes after -- is for --load-test"
    [[ ${places[*]} != railway || -n $railway_url ]] || railway_url=$url
    [[ -z $loads || " ${places[*]} " != *' railway '* || -n $railway_url ]] ||
        misused 'where is it reached on Railway? Name it with --railway-url'
    local file=${key_file:-${KYB_KEY_FILE:-}}
    if [[ -n $file && (-z $key || -n $key_file) ]]; then
        key=$(tr -d '[:space:]' <"$file") || misused "the key file $file cannot be read"
    fi
    [[ -z $key || $key =~ ^[[:graph:]]+$ && $key != *[\"\\]* ]] || misused 'that is no API key'
}

preflight() {
    local place rights
    need curl 'install it'
    for place in "${places[@]}"; do
        if [[ $place == railway ]]; then
            [[ -z $deploys$rolls_back$tells ]] || railway_preflight
            continue
        fi
        rights=('get deployments.apps' 'list pods')
        [[ -z $deploys ]] || rights+=('create deployments.apps' 'patch deployments.apps' 'create jobs.batch'
            'delete jobs.batch' 'patch services')
        [[ -z $canary ]] || rights+=('delete deployments.apps')
        [[ -z $rolls_back ]] || rights+=('patch deployments.apps' 'delete deployments.apps')
        [[ -z $deploys$rolls_back && (-z $checks || -n $url) ]] || rights+=('create pods --subresource=portforward')
        # With an address, what only asks the service needs no cluster.
        [[ -n $url && -z $deploys$rolls_back$tells ]] || kubernetes_preflight "${rights[@]}"
    done
    [[ -z $loads ]] || [[ -x $ROOT/.venv/bin/kyb ]] || need kyb "the load test is a part of it: \`make build\` in $ROOT"
}

# load_test PLACE: its verdict is the exit status.
load_test() {
    local target=$url outcome=0
    [[ $1 != railway ]] || target=$railway_url
    [[ -n $target ]] || target=$(ingress_address)
    if [[ -z $target ]]; then
        if is_dry; then
            say "would put the load test on the Ingress's host"
            return 0
        fi
        [[ -z $deploys ]] || die "$FAILED" 'it is deployed, and not tested under load: name its address with --url'
        misused 'where is it reached? Name it with --url: a port-forward would measure itself'
    fi
    ((${#load_options[@]})) || load_options=(--quick)
    step "load test of $target: ${load_options[*]}"
    state="the load test of $target was under way; what is deployed is unchanged"
    way_back=''
    [[ -z $key ]] || export KYB_KEY=$key
    change "$ROOT/scripts/load_test_10k.sh" --url "$target" "${load_options[@]}" || outcome=$?
    case $outcome in
        0) is_dry || say "LOAD TEST MET every target that was judged" ;;
        5) die "$TARGET_MISSED" "LOAD TEST MISSED a target; what runs is left. To go back: $SELF --$1 --rollback" ;;
        6) die "$PROVES_NOTHING" 'the load test PROVES NOTHING: the generator was the bottleneck, see its report' ;;
        *) die "$FAILED" "the load test was not done (it ended with $outcome)" ;;
    esac
}

ingress_address() {
    local host of='{.spec.tls[0].hosts[0]}|{.spec.rules[0].host}'
    host=$(k get ingress "$NAME" --ignore-not-found -o "jsonpath=$of" 2>/dev/null) || return 0
    if [[ -n ${host%|*} ]]; then
        printf 'https://%s' "${host%|*}"
    elif [[ -n ${host#*|} ]]; then
        printf 'http://%s' "${host#*|}"
    fi
}

# each WHAT: that of each place.
each() {
    local place
    for place in "${places[@]}"; do
        case ${#places[@]}-$place-$1 in
            2-kubernetes-*) besides='Railway was not begun' ;;
            2-railway-deploy) besides="Kubernetes stays at the new version; to go back there: $SELF $here --rollback" ;;
            *) besides='' ;;
        esac
        # Not within a condition, where a step that fails would not end it.
        "${place}_$1"
    done
    besides=''
}

main() {
    parse "$@"
    settle
    begin
    preflight
    is_dry && say 'a dry run: nothing is changed'
    [[ -z $rolls_back ]] || each rollback
    [[ -z $deploys ]] || each deploy
    [[ -z $checks || -n $deploys ]] || each health_check
    if [[ -n $loads ]]; then
        local place
        for place in "${places[@]}"; do load_test "$place"; done
    fi
    [[ -z $tells ]] || each status
}

main "$@"
