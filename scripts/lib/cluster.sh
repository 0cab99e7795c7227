# shellcheck shell=bash
# The cluster that kubectl leads to: whether it answers, what these credentials may, and what it says of a Deployment.

# kubectl, and where it shall look. Not a function, so that what runs is what is waited for and ended.
KUBECTL=()
reachable=''

# The same for a person to type: options of this script, and kubectl's.
here='' by_kubectl=''

# What is answered at once.
k() { "${KUBECTL[@]}" --request-timeout=30s "$@"; }

# What a look at a Deployment found; exists is no where there is none.
exists='' revision='' replicas='' available='' live_image='' whole='' revision_before=''

# kubernetes_preflight "VERB RESOURCE [--subresource=PART]"...: the tool, the cluster, and the rights that are needed.
kubernetes_preflight() {
    KUBECTL=(kubectl ${context:+--context "$context"} --namespace "$namespace")
    here="--kubernetes${context:+ --context $context} --namespace $namespace"
    by_kubectl="kubectl${context:+ --context $context} -n $namespace"
    need kubectl 'see https://kubernetes.io/docs/tasks/tools/'
    reachable=yes
    if ! k version >/dev/null 2>"$work/errors"; then
        reachable=no
        is_dry || die "$NOT_EQUIPPED" "the cluster does not answer: $(errors)
try \`kubectl cluster-info\`, choose another with --context (\`kubectl config get-contexts\`), or log in to it again"
        look "the cluster does not answer: $(errors)"
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
    is_dry || die "$NOT_EQUIPPED" "missing in the namespace $namespace: the Secrets $missing;" \
        'what each holds is in deploy/kubernetes/secrets.example.yaml'
    look "missing in the namespace $namespace: the Secrets $missing"
}

# observe DEPLOYMENT: sets what is said above. Returns 1 where the cluster cannot be asked.
observe() {
    local found generation seen updated
    local of='{.metadata.generation}|{.status.observedGeneration}|{.spec.replicas}|{.status.updatedReplicas}'
    of+='|{.status.availableReplicas}|{.metadata.annotations.deployment\.kubernetes\.io/revision}'
    of+='|{.spec.template.spec.containers[0].image}'
    found=$(k get deployment "$1" --ignore-not-found -o "jsonpath=$of" 2>"$work/errors") || return 1
    exists=no whole=no revision='' replicas=0 available=0 live_image=''
    [[ -n $found ]] || return 0
    IFS='|' read -r generation seen replicas updated available revision live_image <<<"$found"
    exists=yes available=${available:-0}
    if [[ $generation == "$seen" && $replicas == "$updated" && $replicas == "$available" ]]; then whole=yes; fi
}

observe_or_die() {
    observe "$1" || die "$FAILED" "the cluster cannot be asked for the Deployment $1: $(errors); $state"
}

# The controller has seen what was applied last, so that $revision is what it came to.
settled() {
    local deadline=$((SECONDS + 30)) of='{.metadata.generation} {.status.observedGeneration}' versions
    while :; do
        versions=$(k get deployment "$NAME" --ignore-not-found -o "jsonpath=$of" 2>"$work/errors") || return 1
        if [[ ${versions% *} == "${versions#* }" ]] || ((SECONDS >= deadline)); then break; fi
        sleep 1
    done
    observe "$NAME"
}

# What is known of the newest pod, where a rollout hangs.
explain_pods() {
    local newest of='{range .items[*]}{.reason}: {.message}{"\n"}{end}'
    k get pods --selector "app=$NAME" --sort-by .metadata.creationTimestamp >&2 || return 0
    newest=$(k get pods --selector "app=$NAME" --sort-by .metadata.creationTimestamp -o name | tail -n 1)
    [[ -n $newest ]] || return 0
    complain "the newest pod, ${newest#pod/}: what happened, and what it says"
    k get events --field-selector "involvedObject.name=${newest#pod/}" -o "jsonpath=$of" >&2 || true
    k logs "$newest" --tail=20 --previous >&2 2>/dev/null || k logs "$newest" --tail=20 >&2 || true
}
