#!/usr/bin/env bash
# Builds the image from deploy/Containerfile, and takes its bill of materials out of it. `make image` calls it with PYTHON,
# an interpreter with pip. From the environment:
#
#   BASE    the base: the name of an image, or `local` for one made here (make_base_image.sh). Without it the official
#           python:3.11-slim-bookworm, and one made here where that cannot be pulled.
#   IMAGE   the name of the result, localhost/risk-assessment-service:VERSION without it
#   ENGINE  docker or podman (with buildah); without it whichever there is
#
# Every package is downloaded before, so that the build itself needs no network, nor a certificate of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
official=docker.io/library/python:3.11-slim-bookworm
out=build/image
python=${PYTHON:-python3}

fail() { echo "make image: $*" >&2; exit 1; }

engine=${ENGINE:-}
if [[ -z $engine ]]; then
    if command -v podman >/dev/null && command -v buildah >/dev/null; then engine=podman
    elif command -v docker >/dev/null && docker info >/dev/null 2>&1; then engine=docker
    else fail "an image needs podman and buildah (Debian: apt-get install podman buildah runc), or a Docker engine that runs"
    fi
fi

is_here() { case $engine in podman) podman image exists "$1" ;; *) docker image inspect "$1" >/dev/null 2>&1 ;; esac; }
get() { is_here "$1" || "$engine" pull --quiet "$1" >/dev/null; }

base=${BASE:-}
if [[ -z $base ]]; then
    base=$official
    get "$base" || { echo "make image: $base cannot be pulled, so a base is made here" >&2; base=local; }
fi
if [[ $base == local ]]; then
    [[ $engine == podman ]] || fail "a base is made with podman; name one that $engine can pull: make image BASE=..."
    base=$(scripts/make_base_image.sh)
fi
get "$base" || fail "the base $base cannot be pulled; name another with BASE, or BASE=local to have one made"

about() { "$engine" image inspect --format "$1" "$base"; }
version=$(about '{{range .Config.Env}}{{println .}}{{end}}' | sed -n 's/^PYTHON_VERSION=\([0-9]*\.[0-9]*\)\..*/\1/p')
[[ -n $version ]] || fail "$base does not say in PYTHON_VERSION which Python it has, as the official images do"
case $(about '{{.Architecture}}') in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *) fail "$base is for $(about '{{.Architecture}}'), which not every package has wheels for" ;;
esac
wanted=build/wheels/.wanted
mkdir -p build/wheels "$out"
"$python" - > "$out/requirements.txt" <<'END'
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
optional = project["optional-dependencies"]
# The last is needed before Python 3.11.3 alone, which a download for another Python does not see.
print(*project["dependencies"], *optional["otel"], "cyclonedx-bom", "setuptools", "Cython", "async-timeout", sep="\n")
END
{ cat constraints.txt "$out/requirements.txt"; echo "$version $machine"; } > "$out/wanted"
if ! cmp -s "$out/wanted" "$wanted"; then
    echo "downloading what goes into the image"
    rm -rf build/wheels
    platforms=()
    for level in manylinux_2_28 manylinux_2_17 manylinux2014 manylinux1 linux; do platforms+=(--platform "${level}_$machine"); done
    "$python" -m pip download --quiet --disable-pip-version-check --dest build/wheels --only-binary :all: \
        --implementation cp --python-version "$version" --abi "cp${version/./}" --abi abi3 --abi none "${platforms[@]}" \
        --constraint constraints.txt --requirement "$out/requirements.txt"
    cp "$out/wanted" "$wanted"
fi

release=$("$python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
image=${IMAGE:-localhost/risk-assessment-service:$release}
options=(--file deploy/Containerfile --tag "$image" --iidfile "$out/id" --build-arg "BASE=$base"
    --label "org.opencontainers.image.version=$release" --label "org.opencontainers.image.base.name=$base")
if revision=$(git rev-parse HEAD 2>/dev/null); then
    git diff --quiet HEAD || revision+=-changed
    options+=(--label "org.opencontainers.image.revision=$revision"
        --label "org.opencontainers.image.created=$(git show --no-patch --format=%cI HEAD)")
fi
if [[ $engine == podman ]]; then
    # Health checks are of Docker's format, and known to podman only from there.
    buildah build --isolation chroot --pull-never --layers --format docker "${options[@]}" . \
        || fail "it cannot be built here; buildah's own words stand above"
    # What earlier builds left as their cache: this one's stays.
    podman image prune --force --filter label=org.opencontainers.image.title=risk-assessment-service --filter until=24h >/dev/null
else
    docker build "${options[@]}" .
fi

container=$("$engine" create --no-healthcheck "$image")
"$engine" cp "$container:/opt/kyb/sbom.cdx.json" "$out/sbom.cdx.json"
"$engine" rm "$container" >/dev/null
size() { "$engine" image inspect --format '{{.Size}}' "$1"; }
echo "$image: $(($(size "$image") / 1000000)) MB, $((($(size "$image") - $(size "$base")) / 1000000)) MB over $base; contents in $out/sbom.cdx.json"
