# Sourced by tests/run.sh and deploy/demo.sh: what a bare Debian 12 with rustup's Rust lacks, and where things go.
# shellcheck shell=bash

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/ottla-target}
if ! command -v cargo >/dev/null && [ -f "$HOME/.cargo/env" ]; then
    # shellcheck source=/dev/null
    . "$HOME/.cargo/env"
fi

# install_packages PACKAGE...: the missing ones of these Debian packages.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep --quiet '^installed$' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id --user)" != 0 ]; then
        echo "these Debian packages are missing, and only root can install them: ${missing[*]}" >&2
        return 1
    fi
    echo "installing Debian packages: ${missing[*]}"
    apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null
}

# What the build needs (RocksDB is C++, bindgen loads libclang), and what the Python tests need.
# shellcheck disable=SC2034 # Used where this file is sourced.
BUILD_PACKAGES=(build-essential libclang-dev)
# shellcheck disable=SC2034
TEST_PACKAGES=(python3 python3-venv kcat iproute2 iptables)

need_cargo() {
    command -v cargo >/dev/null && return
    echo "cargo is missing: install Rust with rustup first" >&2
    return 1
}
