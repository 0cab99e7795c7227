# shellcheck shell=bash
# A version in a cluster: looked before, migrated, rolled out, verified, and taken back where that fails.

kubernetes_deploy() {
    build
    check_secrets
    look_before
    [[ -z $canary ]] || canary_possible
    step 'applying what the migration needs'
    apply migration-before.yaml || die "$FAILED" 'not all of it could be applied; no pod was replaced'
    state='what the migration needs is applied; no pod was replaced'
    migrate
    step 'applying what the pods need'
    apply before.yaml || die "$FAILED" 'not all of it could be applied; no pod was replaced'
    if [[ -n $canary ]]; then
        canary_tried
        step 'replacing the rest: the canary did well'
    fi
    roll_out
    [[ -z $canary ]] || remove_canary || die "$FAILED" 'the new version serves, but the canary could not be removed' \
        "and serves besides. Remove it: $by_kubectl delete deployment $NAME-canary"
    is_dry || rolled_out
}

rolled_out() {
    say "DEPLOYED: $built_image, revision $revision, $available pods, verified"
    cat <<END
next:
  $SELF $here --status
  $SELF $here --load-test --url https://...
  $SELF $here --rollback
  $by_kubectl logs -l app=$NAME --tail=20
END
}

look_before() {
    exists=no whole=no revision='' replicas=0
    [[ $reachable == no ]] || observe_or_die "$NAME"
    revision_before=$revision
    if [[ $exists == no ]]; then
        say 'there is no earlier version here'
    else
        say "now: $live_image, revision $revision, $available of $replicas pods"
        [[ $whole == yes ]] || look 'what runs now is not whole: should it be gone back to, that may fail'
    fi
}

# apply FILE: its objects, of which a dry run has kubectl say what would become.
apply() {
    [[ -s $work/$1 ]] || return 0
    if is_dry; then
        say "would apply: $(objects_in "$work/$1")"
        [[ $reachable == no ]] || k apply --dry-run=client -f "$work/$1"
    else
        attended "${KUBECTL[@]}" apply -f "$work/$1"
    fi
}

migrate() {
    local job=$NAME-migrate outcome=0
    step "migrating the database (Job $job)"
    [[ $reachable == no ]] || no_other_migration "$job"
    # A Job's template cannot be changed.
    change "${KUBECTL[@]}" delete job "$job" --ignore-not-found "--timeout=${timeout}s" ||
        die "$FAILED" 'the Job of the last migration could not be deleted; no pod was replaced'
    state="the migration runs ($by_kubectl get job $job); no pod was replaced"
    apply job.yaml || die "$FAILED" 'the Job could not be applied; no pod was replaced'
    if is_dry; then
        say "would wait up to $timeout s for it"
        return 0
    fi
    await_job "$job" || outcome=$?
    if ((outcome)); then
        k logs "job/$job" --tail=20 >&2 || true
        ((outcome == 1)) || die "$FAILED" "the migration was not done within $timeout s and goes on; no pod was" \
            "replaced. Look: $by_kubectl logs job/$job"
        die "$FAILED" 'the migration failed, and left the database as it was; no pod was replaced'
    fi
    state='the database is migrated; no pod was replaced'
    say 'migrated'
}

no_other_migration() {
    local active
    active=$(k get job "$1" --ignore-not-found -o 'jsonpath={.status.active}' 2>"$work/errors") ||
        die "$FAILED" "the cluster cannot be asked for the Job $1: $(errors)"
    [[ -z $active || $active == 0 ]] ||
        die "$FAILED" "another migration runs: wait for it ($by_kubectl get job $1), or delete it"
}

# await_job NAME: 0 done, 1 failed, 2 not over in time. One look that fails is not the end.
await_job() {
    local deadline=$((SECONDS + timeout)) are='{.status.conditions[?(@.status=="True")].type}' conditions
    while ((SECONDS < deadline)); do
        conditions=$(k get job "$1" -o "jsonpath=$are" 2>"$work/errors") || conditions=''
        case " $conditions " in
            *' Complete '*) return 0 ;;
            *' Failed '*) return 1 ;;
        esac
        sleep 1
    done
    return 2
}

# roll_out: all else, and the Deployment last; what goes wrong with its pods takes it back to where it was.
roll_out() {
    local over="revision ${revision_before:-none}"
    step "applying all else, and rolling out, up to $timeout s"
    apply after.yaml || die "$FAILED" "not all manifests could be applied; the Deployment $NAME is unchanged, at $over"
    state="the new version is being rolled out over $over: old and new pods serve side by side"
    way_back="$SELF $here --rollback"
    apply deployment.yaml || go_back 'the Deployment could not be applied'
    if is_dry; then
        say "would wait up to $timeout s for the rollout, then verify health, and go back to $over if either fails"
        return 0
    fi
    attended "${KUBECTL[@]}" rollout status "deployment/$NAME" "--timeout=${timeout}s" || {
        explain_pods
        go_back "the rollout was not over within $timeout s, or failed"
    }
    state="the new version is rolled out over $over and not yet verified"
    verified || go_back 'the new version is not healthy'
    observe_or_die "$NAME"
    state='the new version is rolled out and verified'
}

# After pods were replaced: they are as they should be, seen from within, and from where callers are if that is told.
verified() {
    step 'verifying health'
    verify_service || return 1
    [[ -z $url ]] || verify "$url"
}

verify_service() {
    local service_port outcome=0
    service_port=$(k get service "$NAME" -o 'jsonpath={.spec.ports[0].port}' 2>"$work/errors") || {
        complain "there is no Service $NAME: $(errors)"
        return 1
    }
    forward "service/$NAME" "$service_port" || return 1
    verify "$forward_url" || outcome=1
    unforward
    return "$outcome"
}

# go_back WHY: never returns.
go_back() {
    complain "$1"
    settled || die "$NOT_ROLLED_BACK" "the cluster cannot be asked what became of it: $(errors)." \
        "Look: $by_kubectl rollout status deployment/$NAME"
    if [[ -n $canary ]]; then remove_canary || complain 'the canary could not be removed: it serves besides'; fi
    [[ -n $revision_before ]] || die "$FAILED" 'there is no earlier version to go back to: what was applied is left' \
        "as it is, for a look. Take it away: $by_kubectl delete deployment $NAME"
    [[ $revision != "$revision_before" ]] || die "$FAILED" "the Deployment is unchanged, at revision $revision:" \
        "there is nothing to roll back, and the fault is not in this rollout's pods"
    roll_back "$revision_before"
    die "$FAILED" "ROLLED BACK to revision $revision_before, which is healthy: $1"
}

# roll_back REVISION: healthy there, or the end.
roll_back() {
    step "rolling back to revision $1, up to $timeout s"
    state="the Deployment is on its way back to revision $1"
    way_back="$by_kubectl rollout undo deployment/$NAME --to-revision=$1"
    if ! attended "${KUBECTL[@]}" rollout undo "deployment/$NAME" "--to-revision=$1" ||
        ! attended "${KUBECTL[@]}" rollout status "deployment/$NAME" "--timeout=${timeout}s"; then
        explain_pods
        die "$NOT_ROLLED_BACK" 'THE ROLLBACK FAILED: somebody has to look now. A version refuses a schema that' \
            "was contracted since (docs/rolling.md). Look: $by_kubectl get pods -l app=$NAME"
    fi
    verified || die "$NOT_ROLLED_BACK" "ROLLED BACK to revision $1, AND IT IS NOT HEALTHY EITHER: somebody has to" \
        'look now (docs/runbook.md)'
}

kubernetes_rollback() {
    local current before
    observe_or_die "$NAME"
    [[ $exists == yes ]] || die "$FAILED" "there is no Deployment $NAME in the namespace $namespace"
    current=$revision
    observe_or_die "$NAME-canary"
    if [[ $exists == yes ]]; then
        step 'removing the canary'
        remove_canary || die "$FAILED" 'the canary could not be removed: it goes on serving'
        is_dry || say "the canary is gone; the Deployment stays at revision $current." \
            'To roll that back as well, say --rollback again'
        return 0
    fi
    before=$(k rollout history "deployment/$NAME" 2>"$work/errors" | last_but "$current") ||
        die "$FAILED" "the history of the Deployment cannot be read: $(errors)"
    [[ -n $before ]] || die "$FAILED" "revision $current is the only one there is: there is nothing to go back to"
    if is_dry; then
        change "${KUBECTL[@]}" rollout undo "deployment/$NAME" "--to-revision=$before"
        say "would wait up to $timeout s for it, and verify health"
        return 0
    fi
    roll_back "$before"
    observe_or_die "$NAME"
    say "ROLLED BACK from revision $current to what was revision $before: $live_image, $available pods, verified"
}

# last_but REVISION: the newest other one in the history that is read.
last_but() {
    awk -v now="$1" '$1 ~ /^[0-9]+$/ && $1 != now && $1 + 0 > last { last = $1 } END { print last }'
}

# With an address from there, as callers do; without, through port-forward.
kubernetes_health_check() {
    step 'verifying health'
    if is_dry; then
        say "would ask ${url:-service/$NAME through port-forward}: ready, its database, an assessment if there is a key"
    elif [[ -n $url ]]; then
        verify "$url" || die "$FAILED" "NOT HEALTHY: $url"
        say "HEALTHY: $url"
    else
        verify_service || die "$FAILED" "NOT HEALTHY: the Service $NAME in the namespace $namespace"
        say "HEALTHY: the Service $NAME in the namespace $namespace"
    fi
}

kubernetes_status() {
    local told
    observe_or_die "$NAME"
    [[ $exists == yes ]] || die "$FAILED" "there is no Deployment $NAME in the namespace $namespace"
    told="revision $revision: $available of $replicas pods, $live_image"
    k get deployment "$NAME" "$NAME-canary" --ignore-not-found
    k get hpa "$NAME-hpa" --ignore-not-found
    k get pods --selector "app=$NAME" -o wide
    k rollout history "deployment/$NAME"
    [[ $whole == yes ]] || die "$FAILED" "NOT WHOLE, $told"
    observe_or_die "$NAME-canary"
    [[ $exists == no ]] || look "a canary serves besides: $available of $replicas pods, $live_image"
    say "WHOLE, $told"
}
