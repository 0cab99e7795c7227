# shellcheck shell=bash
# A few pods of the new version beside the old ones, which the same Service sends its requests to.

# What they have to show: so many answers, and at most one in so many a 5xx.
readonly CANARY_ANSWERS=20 CANARY_ONE_FAILED_IN=1000

canary_pods=0 canary_share=''

canary_possible() {
    local stable=$replicas
    if [[ $exists == no ]]; then
        is_dry || die "$FAILED" 'there is nothing to try a canary beside: deploy without --canary first'
        look 'no earlier version was found: a canary needs one to stand beside'
        stable=1
    fi
    [[ $whole == yes ]] || is_dry || die "$FAILED" "what runs now is not whole ($available of $stable pods):" \
        'wait for it, mend it, or deploy without --canary'
    # So many that they are PERCENT of all pods together, to the nearest, and at least one.
    canary_pods=$(((stable * canary + (100 - canary) / 2) / (100 - canary)))
    ((canary_pods > 0)) || canary_pods=1
    canary_share=$(awk -v new="$canary_pods" -v old="$stable" 'BEGIN { printf "%.1f", 100 * new / (new + old) }')
    if [[ $reachable == yes ]]; then
        observe_or_die "$NAME-canary"
        [[ $exists == no ]] || die "$FAILED" 'a canary is there already; remove it:' \
            "$SELF $here --rollback"
    fi
    say "canary: $canary_pods beside $stable pods, $canary_share % of the requests ($canary % asked for)"
}

# canary_tried: returns where it did well, and is removed and the end where it did not.
canary_tried() {
    step "trying the canary ($NAME-canary)"
    canary_manifest "$canary_pods"
    state="a canary of the new version serves $canary_share % of the requests; the Deployment $NAME is unchanged"
    way_back="$SELF $here --rollback"
    apply canary.yaml || canary_bad 'it could not be applied'
    if is_dry; then
        say "would wait up to $timeout s for its pods, watch them for $canary_time s, and remove them unless each is" \
            "healthy and at most 1 in $CANARY_ONE_FAILED_IN of their answers is a 5xx"
        return 0
    fi
    attended "${KUBECTL[@]}" rollout status "deployment/$NAME-canary" "--timeout=${timeout}s" || {
        explain_pods
        canary_bad "its pods were not ready within $timeout s"
    }
    watch_canary || canary_bad 'it did not stay up'
    visit_canary || canary_bad 'it did not do its work'
}

canary_bad() {
    complain "the canary is bad: $1"
    remove_canary || die "$NOT_ROLLED_BACK" "AND IT COULD NOT BE REMOVED: it goes on serving $canary_share % of the" \
        "requests. Remove it: $by_kubectl delete deployment $NAME-canary"
    die "$FAILED" "CANARY REMOVED; the Deployment $NAME is unchanged, at revision $revision_before: $1"
}

remove_canary() {
    change "${KUBECTL[@]}" delete deployment "$NAME-canary" --ignore-not-found --cascade=foreground \
        "--timeout=${timeout}s"
}

# watch_canary: for as long as was asked, every pod ready and none started again.
watch_canary() {
    local deadline=$((SECONDS + canary_time)) of='{.items[*].status.containerStatuses[*].restartCount}' restarts
    step "watching it for $canary_time s"
    while :; do
        observe "$NAME-canary" || look "the cluster did not answer: $(errors)"
        if [[ $whole == no ]]; then
            complain "$available of $replicas of its pods are ready"
            return 1
        fi
        restarts=$(k get pods --selector "app=$NAME,track=canary" -o "jsonpath=$of" 2>"$work/errors") || restarts=''
        if [[ $restarts == *[1-9]* ]]; then
            explain_pods
            complain "its containers were started again, this often: $restarts"
            return 1
        fi
        ((SECONDS < deadline)) || return 0
        sleep 1
    done
}

# visit_canary: each of its pods verified, and what all of them answered since they started.
visit_canary() {
    local pod pods counts total=0 failed=0
    step 'verifying each of its pods'
    pods=$(k get pods --selector "app=$NAME,track=canary" -o name 2>"$work/errors") || {
        complain "its pods cannot be listed: $(errors)"
        return 1
    }
    for pod in $pods; do
        say "$pod"
        forward "$pod" "$PORT" || return 1
        if ! verify "$forward_url" || ! counts=$(answers_of "$forward_url"); then
            unforward
            return 1
        fi
        unforward
        total=$((total + ${counts% *})) failed=$((failed + ${counts#* }))
    done
    say "answers of the canary: $total, of them 5xx: $failed"
    if ((total < CANARY_ANSWERS)); then
        complain "it gave $total answers, and $CANARY_ANSWERS are needed to judge it: send more requests, try it for" \
            'longer (--canary-time), or give a key'
        return 1
    fi
    if ((failed * CANARY_ONE_FAILED_IN > total)); then
        complain "more than 1 in $CANARY_ONE_FAILED_IN of its answers is a 5xx"
        return 1
    fi
}

# answers_of URL: "ALL FAILED" of a pod since it started, to callers: not to probes, nor to who looks after it.
answers_of() {
    local base=$1 status
    [[ -z $key ]] || assess_repeatedly || true
    status=$(ask /metrics)
    if [[ $status != 200 ]]; then
        complain "its metrics cannot be read: $(instead "$status")"
        return 1
    fi
    awk '
        /^http_server_request_duration_seconds_count[{].*route="\/(v1|match)/ {
            all += $NF
            if (/status="5/) failed += $NF
        }
        END { print all + 0, failed + 0 }' "$work/answer"
}

# As many assessments as are needed to judge, so that nobody else has to send them; how they end is in the metrics.
assess_repeatedly() {
    local at urls=()
    for ((at = 0; at < CANARY_ANSWERS; at++)); do urls+=("$base/v1/assessments?dry_run=true"); done
    curl --silent --max-time 60 --noproxy 127.0.0.1 --config <(sent_key) \
        --header 'Content-Type: application/json' --data "@$PROFILE" "${urls[@]}" >/dev/null
}
