#!/usr/bin/env bash
# Ottla at work, for root on Debian 12 with rustup's Rust: bash deploy/demo.sh
#
# Installs what is missing, builds, starts three `ottla server` processes, and sends the 336,776 flights of
# tests/flights through them while one broker is killed, the active controller is killed and another node is stopped.
# Arguments go to the main job: `bash deploy/demo.sh --duration 30`, `--target compose`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/prepare.sh
. tests/prepare.sh

say() { printf '\n==> %s\n' "$*"; }

say "1/3 installing what is missing"
install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
case " $* " in *compose*)
    install_packages debootstrap ;;
esac
need_cargo
tests/python.sh --version

say "2/3 building into $CARGO_TARGET_DIR (the first build compiles RocksDB: 20 to 30 minutes on two cores)"
cargo build --locked --release --package ottla

say "3/3 the main job"
exec tests/python.sh -m flights --binary "$CARGO_TARGET_DIR/release/ottla" "$@"
