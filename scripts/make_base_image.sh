#!/usr/bin/env bash
# A base for the image where the official one cannot be pulled: Debian 12 with its own Python 3.11, from Debian's packages
# alone. Needs root, debootstrap and podman. What was made is kept in podman's store; `podman rmi` of it has it made anew.
#
# Prints its name.
set -euo pipefail
name=localhost/kyb-base:bookworm
if podman image exists "$name"; then
    echo "$name"
    exit
fi
((EUID == 0)) || { echo "only root can make $name; or name a base that can be pulled: make image BASE=..." >&2; exit 1; }
# site SUITE: where this machine gets that suite of Debian from.
site() {
    # shellcheck disable=SC2016  # The fields are apt's and awk's own.
    apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' \
        | awk -v suite="$1" '$2 == suite && $3 == "main" && !found { print $1; found = 1 }'
}
mirror=${DEBIAN_MIRROR:-$(site bookworm)}
security=${DEBIAN_SECURITY_MIRROR:-$(site bookworm-security)}
if [[ -z $mirror || -z $security ]]; then
    echo "apt here has no lists of bookworm and bookworm-security: run apt-get update, or name mirrors of Debian in" \
        "DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR" >&2
    exit 1
fi
command -v debootstrap >/dev/null || { echo "debootstrap is missing (Debian: apt-get install debootstrap)" >&2; exit 1; }

work=$(mktemp -d /var/tmp/kyb-base-XXXXXX)
trap 'rm -rf "$work"' EXIT
root=$work/root
log=$work/log
echo "making $name from $mirror: about a minute" >&2
make_root() {
    debootstrap --variant=minbase --include=ca-certificates,netbase,python3,python3-venv,tzdata bookworm "$root" "$mirror" \
        && printf 'deb %s bookworm main\ndeb %s bookworm-updates main\ndeb %s bookworm-security main\n' \
            "$mirror" "$mirror" "$security" > "$root/etc/apt/sources.list" \
        && chroot "$root" apt-get update \
        && DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get upgrade --yes \
        && chroot "$root" apt-get clean
}
make_root > "$log" 2>&1 || { cat "$log" >&2; exit 1; }
python=$(chroot "$root" python3 -c 'import platform; print(platform.python_version())')

# What the official slim images leave out too. Licences stay.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/* "$root"/tmp/* \
    "$root"/usr/share/{man,info,locale,lintian} "$root"/etc/{hostname,resolv.conf}
find "$root/usr/share/doc" -depth ! -type d ! -name copyright -delete -o -type d -empty -delete
mkdir -p "$root/var/log/apt" "$root/var/cache/apt/archives/partial"
tar --create --directory "$root" --exclude './dev/*' --exclude './proc/*' --exclude './sys/*' . \
    | podman import --quiet --change "ENV PYTHON_VERSION=$python" --change 'CMD ["python3"]' - "$name" >/dev/null
echo "$name"
