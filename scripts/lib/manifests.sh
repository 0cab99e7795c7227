# shellcheck shell=bash
# What the overlay and the migration come to: built by kubectl, and split into what is applied when.

# What pods need before they start.
readonly PREREQUISITES='Namespace|ServiceAccount|ConfigMap|Secret|NetworkPolicy|ResourceQuota|LimitRange'

built_image=''

# build: in $work, of the migration migration-before.yaml and job.yaml, and of the overlay before.yaml, deployment.yaml
# and after.yaml, which is all else.
build() {
    step "building the manifests of $overlay"
    build_folder "$migration" migration
    mv "$work/migration/before.yaml" "$work/migration-before.yaml"
    mv "$work/migration/job.yaml" "$work/job.yaml"
    build_folder "$overlay" overlay
    mv "$work/overlay/before.yaml" "$work/overlay/deployment.yaml" "$work/overlay/after.yaml" "$work"
    [[ -s $work/deployment.yaml ]] || die "$FAILED" "the overlay $overlay has no Deployment $NAME"
    [[ -s $work/job.yaml ]] || die "$FAILED" "$migration has no Job $NAME-migrate; new pods refuse an older schema"
    check_namespace "$(cat "$work/overlay/space")"
    check_namespace "$(cat "$work/migration/space")"
    built_image=$(image_of "$work/deployment.yaml")
    say "image: $built_image"
}

check_namespace() {
    [[ -z $1 || $1 == "$namespace" ]] ||
        die "$WRONG_USAGE" "the manifests are for the namespace $1, not $namespace; say --namespace $1"
}

# build_folder KUSTOMIZATION NAME: built, with --image put in, and split, in $work/NAME.
build_folder() {
    local folder=$work/$2
    mkdir "$folder"
    [[ -f $1/kustomization.yaml ]] ||
        die "$WRONG_USAGE" "$1 holds no kustomization.yaml; name a folder that does with --overlay or --migration"
    kustomize "$1" "$folder/built.yaml" || die "$FAILED" "$1 cannot be built: $(errors)"
    split "$folder"
    [[ -z $image ]] || with_image "$folder"
}

# kustomize FOLDER FILE
kustomize() { kubectl kustomize "$1" >"$2" 2>"$work/errors"; }

# split FOLDER: its built.yaml into before, job, deployment and after, and `space`, the namespace of Job or Deployment.
# kubectl writes the keys of the first level at the margin.
split() {
    (cd "$1" && tee before.yaml job.yaml deployment.yaml after.yaml </dev/null >space)
    awk -v folder="$1" -v service="$NAME" -v first="^($PREREQUISITES)$" '
        function told() {
            if (kind == "Job" && name == service "-migrate") group = "job"
            else if (kind == "Deployment" && name == service) group = "deployment"
            else group = kind ~ first ? "before" : "after"
            if (kind) printf "---\n%s", text > (folder "/" group ".yaml")
            if (kind && (group == "deployment" || group == "job")) print space > (folder "/space")
            text = kind = name = space = ""
        }
        /^---/ { told(); next }
        { text = text $0 "\n" }
        /^[A-Za-z]/ { within = $1 == "metadata:" }
        /^kind:/ { kind = $2 }
        within && /^  name:/ { name = $2 }
        within && /^  namespace:/ { space = $2 }
        END { told() }' "$1/built.yaml" || die "$FAILED" "what was built in $1 cannot be split"
}

# image_of FILE...: that of the first container in them.
image_of() { awk '$1 == "image:" || ($1 == "-" && $2 == "image:") { print $NF; exit }' "$@"; }

# with_image FOLDER: its built.yaml with --image in the place of the service's, wherever that is used, and split again.
with_image() {
    local how inner=$1/image
    case $image in
        *@*) how="digest: ${image#*@}" ;;
        *) how="newTag: \"$(tag_of "$image")\"" ;;
    esac
    mkdir "$inner"
    mv "$1/built.yaml" "$inner/built.yaml"
    cat >"$inner/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [built.yaml]
images:
  - name: $(without_tag "$(image_of "$1/deployment.yaml" "$1/job.yaml")")
    newName: $(without_tag "$image")
    $how
END
    kustomize "$inner" "$1/built.yaml" || die "$FAILED" "--image $image cannot be put in: $(errors)"
    split "$1"
}

# A colon before a slash is that of a registry's port.
without_tag() {
    local name=${1%%@*}
    if [[ ${name##*/} == *:* ]]; then printf '%s' "${name%:*}"; else printf '%s' "$name"; fi
}

tag_of() { if [[ ${1##*/} == *:* ]]; then printf '%s' "${1##*:}"; else printf latest; fi; }

# canary_manifest NUMBER: $work/canary.yaml, the Deployment once more by another name, its pods on another `track`.
canary_manifest() {
    local folder=$work/canary
    mkdir "$folder"
    cp "$work/deployment.yaml" "$folder/deployment.yaml"
    cat >"$folder/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [deployment.yaml]
nameSuffix: -canary
labels:
  - pairs: {track: canary}
    includeSelectors: true
replicas:
  - {name: $NAME, count: $1}
END
    kustomize "$folder" "$work/canary.yaml" || die "$FAILED" "the canary cannot be built: $(errors)"
}

# objects_in FILE: "Kind/name ..." of its documents.
objects_in() {
    awk '
        /^[A-Za-z]/ { within = $1 == "metadata:" }
        /^kind:/ { kind = $2 }
        within && /^  name:/ { printf "%s/%s ", kind, $2 }' "$1"
}

# Names of the Secrets that pods cannot start without.
secrets_needed() {
    awk '
        /secret(Ref|KeyRef)?:$/ { wanted = 1 }
        wanted && ($1 == "name:" || $1 == "secretName:") { print $2; wanted = 0 }' \
        "$work/deployment.yaml" "$work/job.yaml" "$work/after.yaml" | sort -u
}
