#!/usr/bin/env bash
# Puts a binary built on this host into an image: deploy/build-image.sh BINARY [TAG]
# OTTLA_BASE_IMAGE is what it stands on; without a registry, make one with deploy/make-base-image.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

binary="${1:?usage: deploy/build-image.sh BINARY [TAG]}"
tag="${2:-ottla:latest}"
base="${OTTLA_BASE_IMAGE:-debian:bookworm-slim}"
if ! docker image inspect "$base" >/dev/null 2>&1 \
    && docker image inspect ottla-base:bookworm >/dev/null 2>&1; then
    base=ottla-base:bookworm
fi

# The context holds the binary alone, so that nothing else of the tree can get in.
context="$(mktemp -d)"
trap 'rm -rf "$context"' EXIT
cp "$binary" "$context/ottla"
docker build --file deploy/Dockerfile --target runtime-host \
    --build-arg BASE_IMAGE="$base" --build-arg OTTLA_BINARY=ottla --tag "$tag" "$context"
