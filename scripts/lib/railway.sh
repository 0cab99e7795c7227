# shellcheck shell=bash
# The service on Railway, by its command line. Railway builds as railway.json says, migrates, and sends requests to the
# new deployment only once /health/ready answers 200; until then, and where that fails, the one before goes on serving.

# In the checkout, whose folder is what is linked and uploaded; not a function, so that what runs is what is waited for.
# shellcheck disable=SC2016 # arguments of the inner shell
RAILWAY=(bash -c 'cd "$0" && exec railway "$@"' "$ROOT")
railway_args=()

railway_preflight() {
    need railway 'install it: npm install --global @railway/cli (https://docs.railway.com/cli)'
    [[ -f $ROOT/railway.json ]] || die "$NOT_EQUIPPED" "there is no railway.json in $ROOT; deploy from a checkout"
    railway_args=(--service "$railway_service")
    [[ -z $railway_environment ]] || railway_args+=(--environment "$railway_environment")
    if ! railway_list >/dev/null; then
        is_dry || die "$NOT_EQUIPPED" "Railway does not answer for the service $railway_service: $(errors)
log in and choose the project (\`railway login\`, \`railway link\`), or set RAILWAY_TOKEN to a token of the project"
        look "Railway does not answer for the service $railway_service: $(errors)"
    fi
}

# railway_list: a line ID STATUS of each deployment, newest first. What it reads is pretty-printed JSON, whose objects
# have their own members indented by four.
railway_list() {
    "${RAILWAY[@]}" deployment list "${railway_args[@]}" --limit 20 --json \
        >"$work/deployments" 2>"$work/errors" </dev/null || return 1
    awk -F '"' '
        /^    "id":/ { id = $4 }
        /^    "status":/ { status = $4 }
        /^  }/ { print id, status; id = status = "" }' "$work/deployments"
}

# The newest deployment, and the one that serves: ID STATUS; empty where there is none.
railway_newest() { railway_list | head -n 1; }
railway_serving() { railway_list | awk '$2 == "SUCCESS" && !found++ { print $1 }'; }

railway_deploy() {
    local before serving
    step "Railway: deploying $railway_service"
    if is_dry; then
        say "would run in $ROOT: railway up --ci ${railway_args[*]}"
        say "would wait up to $timeout s for it to be SUCCESS, verify" \
            "${railway_url:-nothing more: no --railway-url was given}, and go back if that fails"
        return 0
    fi
    before=$(railway_newest) || die "$FAILED" "Railway does not answer: $(errors); $state"
    serving=$(railway_serving) || die "$FAILED" "Railway does not answer: $(errors); $state"
    state="Railway builds and deploys; what served before (${serving:-nothing}) goes on until the new one is ready"
    way_back="$SELF --railway --rollback, once it serves; until then stop it in Railway's dashboard"
    attended "${RAILWAY[@]}" up --ci "${railway_args[@]}" ||
        look "\`railway up\` ended with $?; what became of the deployment is asked for"
    railway_settled "${before%% *}" ||
        die "$FAILED" "NOT DEPLOYED: $railway_why. What served before (${serving:-nothing}) goes on serving." \
            "Look: railway logs ${railway_args[*]}"
    state="the new deployment serves on Railway and is not yet verified"
    if ! railway_verified; then
        [[ -n $serving ]] || die "$FAILED" 'the new deployment is not healthy, and there is none to go back to'
        railway_go_back "$serving"
        die "$FAILED" "ROLLED BACK on Railway to what $serving was: the new deployment was not healthy"
    fi
    say "DEPLOYED on Railway: $railway_id${railway_url:+, verified}"
    cat <<END
next:
  $SELF --railway --status
  $SELF --railway --load-test --railway-url https://...
  $SELF --railway --rollback
END
}

# railway_settled BEFORE: waits for a deployment other than BEFORE to serve, $railway_id. Else 1, and $railway_why.
railway_id='' railway_why=''
railway_settled() {
    local deadline=$((SECONDS + timeout)) newest status=''
    while :; do
        if newest=$(railway_newest) && [[ -n $newest && ${newest%% *} != "$1" ]]; then
            railway_id=${newest%% *} status=${newest#* }
            case $status in
                SUCCESS) return 0 ;;
                FAILED | CRASHED | REMOVED | REMOVING | SKIPPED)
                    railway_why="the deployment $railway_id is $status"
                    return 1
                    ;;
            esac
            railway_why="the deployment $railway_id is still $status after $timeout s"
        else
            railway_why="Railway tells of no new deployment within $timeout s"
        fi
        ((SECONDS < deadline)) || return 1
        sleep 2
    done
}

railway_health_check() {
    step 'Railway: verifying health'
    [[ -n $railway_url ]] || misused 'where is it reached on Railway? Name it with --railway-url'
    if is_dry; then
        say "would ask $railway_url: ready, an assessment where there is a key"
        return 0
    fi
    verify "$railway_url" || die "$FAILED" "NOT HEALTHY: $railway_url"
    say "HEALTHY: $railway_url"
}

# After a deployment. Without an address nothing is known but that Railway found it ready at its start.
railway_verified() {
    step 'Railway: verifying health'
    if [[ -z $railway_url ]]; then
        look 'no --railway-url was given: nothing is known of it but that /health/ready answered Railway itself'
        return 0
    fi
    verify "$railway_url"
}

# railway_go_back ID: what it was serves again, verified; or the end.
railway_go_back() {
    local newest by_hand="in Railway's dashboard: the service, Deployments, the menu of $1, Rollback"
    step "Railway: rolling back to $1"
    newest=$(railway_newest) ||
        die "$NOT_ROLLED_BACK" "NOT ROLLED BACK: Railway does not answer: $(errors). Do it $by_hand"
    state="Railway is on its way back to $1"
    way_back="$by_hand"
    # shellcheck disable=SC2016 # a variable of GraphQL
    attended "${RAILWAY[@]}" api 'mutation($id: String!) { deploymentRollback(id: $id) }' --raw-var "id=$1" ||
        die "$NOT_ROLLED_BACK" 'NOT ROLLED BACK: Railway refused, or its command line is too old for `railway api`.' \
            "Do it $by_hand"
    railway_settled "${newest%% *}" || die "$NOT_ROLLED_BACK" "NOT ROLLED BACK: $railway_why. Do it $by_hand"
    railway_verified || die "$NOT_ROLLED_BACK" 'ROLLED BACK on Railway, AND IT IS NOT HEALTHY EITHER:' \
        'somebody has to look now (docs/runbook.md)'
}

railway_rollback() {
    local before
    # What served once is REMOVED.
    before=$(railway_list | awk '$2 == "SUCCESS" { serves = 1 } serves && $2 == "REMOVED" && !found++ { print $1 }') ||
        die "$FAILED" "Railway does not answer: $(errors)"
    [[ -n $before ]] || die "$FAILED" 'Railway tells of no deployment before the one that serves'
    if is_dry; then
        say "would roll back to the deployment $before"
        return 0
    fi
    railway_go_back "$before"
    say "ROLLED BACK on Railway to what $before was${railway_url:+, verified}"
}

railway_status() {
    local newest
    "${RAILWAY[@]}" status </dev/null
    "${RAILWAY[@]}" deployment list "${railway_args[@]}" --limit 5 </dev/null
    newest=$(railway_newest) || die "$FAILED" "Railway does not answer: $(errors)"
    [[ ${newest#* } == SUCCESS ]] || die "$FAILED" "NOT WHOLE on Railway, the newest deployment: ${newest:-none}"
    say "WHOLE on Railway: $newest"
}
