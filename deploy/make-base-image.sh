#!/usr/bin/env bash
# Makes the base image of deploy/Dockerfile from Debian packages, for hosts that reach a Debian mirror but no
# image registry. With a registry it is not needed: the Dockerfile's default base comes from there.
#
#   deploy/make-base-image.sh [TAG]        (default: ottla-base:bookworm)
#
# Needs root, debootstrap and a Docker engine. Does nothing when the image exists already.
set -euo pipefail

tag=${1:-ottla-base:bookworm}
suite=bookworm
# The mirror that apt uses here; debootstrap's own default where none is found.
mirror=${DEBIAN_MIRROR:-$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    grep --extended-regexp '^(deb |URIs:)' | grep --only-matching --max-count=1 'https\?://[^ ]*/debian\b' || true)}

if docker image inspect "$tag" >/dev/null 2>&1; then
    echo "make-base-image: $tag exists"
    exit 0
fi
if ! command -v debootstrap >/dev/null; then
    echo "make-base-image: debootstrap is missing: apt-get install debootstrap" >&2
    exit 1
fi

echo "make-base-image: NO IMAGE REGISTRY IS USED; making $tag from Debian packages ($suite) with debootstrap"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# The binary links the C and C++ runtimes; everything else of it is inside. curl is for people and health checks.
debootstrap --variant=minbase --include=ca-certificates,libstdc++6,curl \
    "$suite" "$root/fs" ${mirror:+"$mirror"} >"$root/debootstrap.log" 2>&1 || {
    tail -n 30 "$root/debootstrap.log" >&2
    exit 1
}
rm -rf "$root"/fs/var/cache/apt/archives/*.deb "$root"/fs/var/lib/apt/lists/* "$root"/fs/usr/share/{doc,man,locale}/*
tar --create --directory "$root/fs" --numeric-owner --one-file-system . |
    docker import --change 'CMD ["/bin/bash"]' - "$tag" >/dev/null
docker image inspect --format "make-base-image: {{index .RepoTags 0}}, {{.Size}} bytes" "$tag"
