# shellcheck shell=bash
# The Deployment of the service in a cluster: brought to what the overlay says, or back to what it was.

# kubectl, where it shall look. Not a function, so that what runs is what is waited for and ended.
KUBECTL=()

# What is answered at once.
k() { "${KUBECTL[@]}" --request-timeout=30s "$@"; }

# What a look at a Deployment found; exists is no where there is none.
exists='' revision='' replicas='' available='' live_image='' whole='' revision_before='' reachable=''

# kubernetes_preflight "VERB RESOURCE [--subresource=PART]"...: the tool, the cluster, and the rights that will be needed.
kubernetes_preflight() {
    KUBECTL=(kubectl ${context:+--context "$context"} --namespace "$namespace")
    need kubectl 'see https://kubernetes.io/docs/tasks/tools/'
    reachable=yes
    if ! k version >/dev/null 2>"$work/errors"; then
        reachable=no
        local why
        why="the cluster does not answer: $(errors)"
        is_dry || die "$NOT_EQUIPPED" "$why
try \`kubectl cluster-info\`, choose another with --context (\`kubectl config get-contexts\`), or log in to it again"
        look "$why"
        return 0
    fi
    say "cluster: ${context:-$(kubectl config current-context 2>/dev/null || echo in-cluster)}, namespace: $namespace"
    check_rights "$@"
}

# All at once, since each takes its time on its way to the cluster.
check_rights() {
    local at right lacking='' questions=()
    for ((at = 1; at <= $#; at++)); do
        # shellcheck disable=SC2086 # words of their own
        "${KUBECTL[@]}" --request-timeout=30s auth can-i ${!at} --quiet >"$work/right.$at" 2>&1 </dev/null &
        questions+=("$!")
    done
    at=0
    for right in "$@"; do
        if ! wait "${questions[at++]}"; then lacking+="${lacking:+, }$right$(head -n 1 "$work/right.$at")"; fi
    done
    [[ -z $lacking ]] || die "$NOT_EQUIPPED" "these credentials may not, in the namespace $namespace: $lacking
have them granted a role that may, or choose others with --context"
}

# observe DEPLOYMENT: sets what is said above. Returns 1 where the cluster cannot be asked.
observe() {
    local found generation seen updated
    found=$(k get deployment "$1" --ignore-not-found -o 'jsonpath={.metadata.generation}|{.status.observedGeneration}|{.spec.replicas}|{.status.updatedReplicas}|{.status.availableReplicas}|{.metadata.annotations.deployment\.kubernetes\.io/revision}|{.spec.template.spec.containers[0].image}' 2>"$work/errors") || return 1
    exists=no whole=no revision='' replicas=0 available=0 live_image=''
    [[ -n $found ]] || return 0
    IFS='|' read -r generation seen replicas updated available revision live_image <<<"$found"
    exists=yes available=${available:-0}
    if [[ $generation == "$seen" && $replicas == "${updated:-0}" && $replicas == "$available" && $replicas != 0 ]]; then whole=yes; fi
}

observe_or_die() { observe "$1" || die "$FAILED" "the cluster cannot be asked for the Deployment $1: $(errors); $state"; }

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
    [[ -z $canary ]] || remove_canary || die "$FAILED" "the new version serves, but the canary could not be removed: it serves besides.
Remove it: kubectl -n $namespace delete deployment $NAME-canary"
    is_dry || say "DEPLOYED: $built_image, revision $revision, $available pods, verified"
    next_commands
}

# A pod without its Secret waits for it, and a rollout would until its time is over.
check_secrets() {
    local name found missing=''
    [[ $reachable == yes ]] || return 0
    for name in $(secrets_needed); do
        if ! found=$(k get secret "$name" --ignore-not-found -o name 2>"$work/errors"); then
            look "it cannot be told whether the Secret $name is there: $(errors)"
        elif [[ -z $found ]]; then
            missing+="${missing:+, }$name"
        fi
    done
    [[ -n $missing ]] || return 0
    is_dry || die "$NOT_EQUIPPED" "missing in the namespace $namespace: the Secrets $missing; what each holds is in deploy/kubernetes/secrets.example.yaml"
    look "missing in the namespace $namespace: the Secrets $missing"
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
    local job=$NAME-migrate active outcome=0
    step "migrating the database (Job $job)"
    if [[ $reachable == yes ]]; then
        active=$(k get job "$job" --ignore-not-found -o 'jsonpath={.status.active}' 2>"$work/errors") || die "$FAILED" "the cluster cannot be asked for the Job $job: $(errors)"
        [[ -z $active || $active == 0 ]] || die "$FAILED" "another migration runs: wait for it (kubectl -n $namespace get job $job), or delete it"
    fi
    # A Job's template cannot be changed.
    change "${KUBECTL[@]}" delete job "$job" --ignore-not-found "--timeout=${timeout}s" || die "$FAILED" "the Job of the last migration could not be deleted; no pod was replaced"
    state="the migration runs (kubectl -n $namespace get job $job); no pod was replaced"
    apply job.yaml || die "$FAILED" 'the Job could not be applied; no pod was replaced'
    if is_dry; then
        say "would wait up to $timeout s for it"
        return 0
    fi
    await_job "$job" || outcome=$?
    if ((outcome)); then
        k logs "job/$job" --tail=20 >&2 || true
        ((outcome == 1)) || die "$FAILED" "the migration was not done within $timeout s and goes on; no pod was replaced. Look: kubectl -n $namespace logs job/$job"
        die "$FAILED" 'the migration failed, and left the database as it was; no pod was replaced'
    fi
    state='the database is migrated; no pod was replaced'
    say 'migrated'
}

# await_job NAME: 0 done, 1 failed, 2 not over in time. One look that fails is not the end.
await_job() {
    local deadline=$((SECONDS + timeout)) conditions
    while ((SECONDS < deadline)); do
        conditions=$(k get job "$1" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}' 2>"$work/errors") || conditions=''
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
    step "applying all else, and rolling out, up to $timeout s"
    apply after.yaml || die "$FAILED" "not all manifests could be applied; the Deployment $NAME is unchanged, at revision ${revision_before:-none}"
    state="the new version is being rolled out over revision ${revision_before:-none}: old and new pods serve side by side"
    way_back="$SELF --kubernetes --namespace $namespace --rollback"
    apply deployment.yaml || go_back 'the Deployment could not be applied'
    if is_dry; then
        say "would wait up to $timeout s for the rollout, then verify health, and go back to revision ${revision_before:-none} if either fails"
        return 0
    fi
    attended "${KUBECTL[@]}" rollout status "deployment/$NAME" "--timeout=${timeout}s" || {
        explain_pods
        go_back "the rollout was not over within $timeout s, or failed"
    }
    state="the new version is rolled out over revision ${revision_before:-none} and not yet verified"
    verified || go_back 'the new version is not healthy'
    observe_or_die "$NAME"
    state="the new version is rolled out and verified"
}

# With an address from there, as callers do; without, through port-forward.
kubernetes_health_check() {
    step 'verifying health'
    if is_dry; then
        say "would ask ${url:-service/$NAME through port-forward}: ready, its database, an assessment where there is a key"
    elif [[ -n $url ]]; then
        verify "$url" || die "$FAILED" "NOT HEALTHY: $url"
        say "HEALTHY: $url"
    else
        verify_service || die "$FAILED" "NOT HEALTHY: the Service $NAME in the namespace $namespace"
        say "HEALTHY: the Service $NAME in the namespace $namespace"
    fi
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

# What was done to the pods has made them as they should be: seen from within, and from where callers are if that is told.
verified() {
    step 'verifying health'
    verify_service || return 1
    [[ -z $url ]] || verify "$url"
}

# What the newest pod says, where a rollout hangs.
explain_pods() {
    k get pods --selector "app=$NAME" --sort-by .metadata.creationTimestamp >&2 || true
    local newest
    newest=$(k get pods --selector "app=$NAME" --sort-by .metadata.creationTimestamp -o 'jsonpath={.items[-1:].metadata.name}' 2>/dev/null) || return 0
    [[ -n $newest ]] || return 0
    complain "the newest pod, $newest, says:"
    k logs "$newest" --tail=20 >&2 || true
}

# go_back WHY: never returns.
go_back() {
    complain "$1"
    settled || die "$NOT_ROLLED_BACK" "the cluster cannot be asked what became of it: $(errors). Look: kubectl -n $namespace rollout status deployment/$NAME"
    if [[ -n $canary ]]; then remove_canary || complain 'the canary could not be removed: it serves besides'; fi
    if [[ -z $revision_before ]]; then
        die "$FAILED" "there is no earlier version to go back to, so what was applied is left as it is, for a look. Take it away: kubectl -n $namespace delete deployment $NAME"
    fi
    [[ $revision != "$revision_before" ]] ||
        die "$FAILED" "the Deployment is unchanged, at revision $revision: there is nothing to roll back, and the fault is not in this rollout's pods"
    roll_back "$revision_before"
    die "$FAILED" "ROLLED BACK to revision $revision_before, which is healthy: $1"
}

# The controller has seen what was applied last, so that $revision is what it came to.
settled() {
    local deadline=$((SECONDS + 30)) versions
    while :; do
        versions=$(k get deployment "$NAME" --ignore-not-found -o 'jsonpath={.metadata.generation} {.status.observedGeneration}' 2>"$work/errors") || return 1
        if [[ ${versions% *} == "${versions#* }" ]] || ((SECONDS >= deadline)); then break; fi
        sleep 1
    done
    observe "$NAME"
}

# roll_back REVISION: healthy there, or the end.
roll_back() {
    step "rolling back to revision $1, up to $timeout s"
    state="the Deployment is on its way back to revision $1"
    way_back="kubectl -n $namespace rollout undo deployment/$NAME --to-revision=$1"
    if ! attended "${KUBECTL[@]}" rollout undo "deployment/$NAME" "--to-revision=$1" ||
        ! attended "${KUBECTL[@]}" rollout status "deployment/$NAME" "--timeout=${timeout}s"; then
        explain_pods
        die "$NOT_ROLLED_BACK" "THE ROLLBACK FAILED: somebody has to look now. An older version refuses a newer schema (docs/database.md). Look: kubectl -n $namespace get pods -l app=$NAME"
    fi
    verified || die "$NOT_ROLLED_BACK" "ROLLED BACK to revision $1, AND IT IS NOT HEALTHY EITHER: somebody has to look now (docs/runbook.md)"
}

kubernetes_rollback() {
    observe_or_die "$NAME"
    [[ $exists == yes ]] || die "$FAILED" "there is no Deployment $NAME in the namespace $namespace"
    local current=$revision before
    observe_or_die "$NAME-canary"
    if [[ $exists == yes ]]; then
        step 'removing the canary'
        remove_canary || die "$FAILED" 'the canary could not be removed: it goes on serving'
        is_dry || say "the canary is gone; the Deployment stays at revision $current. To roll that back as well, say --rollback again"
        return 0
    fi
    before=$(k rollout history "deployment/$NAME" 2>"$work/errors" | awk -v now="$current" '$1 ~ /^[0-9]+$/ && $1 != now && $1 + 0 > best { best = $1 } END { print best }') || die "$FAILED" "the history of the Deployment cannot be read: $(errors)"
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

next_commands() {
    cat <<END
next:
  $SELF --kubernetes --namespace $namespace --status
  $SELF --kubernetes --namespace $namespace --load-test --url https://...
  $SELF --kubernetes --namespace $namespace --rollback
  kubectl -n $namespace logs -l app=$NAME --tail=20
END
}
