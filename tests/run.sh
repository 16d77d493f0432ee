#!/usr/bin/env bash
# All tests, for root on Debian 12 with rustup's Rust: bash tests/run.sh [STEP...]
#
# Without arguments every step runs; with some, those whose name begins with one of them ("e2e", "clippy"). A step
# that fails does not stop the others. What cannot run here is skipped and says so: Kafka's own tools without
# KAFKA_HOME, containers without a Docker engine. Nothing is written into the clone.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# shellcheck source=tests/prepare.sh
. tests/prepare.sh

only=("$@")
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
names=() results=() seconds=() counts=()
passed=0 failed=0 skipped=0
export CARGO_TERM_COLOR=never

# One line, "passed failed skipped", from what a runner printed; a step that counts nothing is one test.
count() { # EXIT_CODE LOG
    awk -v code="$1" '
        /Summary \[.*tests? run:/ || /^[0-9]+ passed, [0-9]+ failed/ || /^test result:/ {
            line = $0
            if (match(line, /[0-9]+ passed/)) p += substr(line, RSTART, RLENGTH)
            if (match(line, /[0-9]+ failed/)) f += substr(line, RSTART, RLENGTH)
            if (match(line, /[0-9]+ (skipped|ignored)/)) s += substr(line, RSTART, RLENGTH)
        }
        /^Ran [0-9]+ tests? in/ { p += $2 }
        /^FAILED \(/ { while (match($0, /(failures|errors)=[0-9]+/)) {
            n = substr($0, RSTART, RLENGTH); sub(/.*=/, "", n); f += n; p -= n; $0 = substr($0, RSTART + RLENGTH) } }
        END {
            if (p + f + s == 0 && code == 0) p = 1
            if (f == 0 && code != 0) f = 1
            print p + 0, f + 0, s + 0
        }' "$2"
}

heading() {
    printf '\n======== %s: %s\n' "$1" "$2"
}

wanted() { # NAME
    [ ${#only[@]} -eq 0 ] && return 0
    local prefix
    for prefix in "${only[@]}"; do [[ $1 == "$prefix"* ]] && return 0; done
    return 1
}

record() { # NAME RESULT SECONDS PASSED FAILED SKIPPED
    names+=("$1") results+=("$2") seconds+=("$3") counts+=("$4 $5 $6")
    passed=$((passed + $4)) failed=$((failed + $5)) skipped=$((skipped + $6))
}

# step NAME LIMIT_MINUTES COMMAND...: runs it with a limit, keeps going after a failure.
step() {
    local name=$1 limit=$2 began=$SECONDS code found result=ok
    shift 2
    wanted "$name" || return 0
    heading "$name" "$*"
    timeout --foreground --kill-after=120 "${limit}m" "$@" 2>&1 | tee "$logs/$name"
    code=${PIPESTATUS[0]}
    [ "$code" = 124 ] && echo "!! $name: ended after its limit of $limit minutes"
    [ "$code" = 0 ] || result=FAILED
    found=$(count "$code" "$logs/$name")
    # shellcheck disable=SC2086 # Three words.
    record "$name" "$result" $((SECONDS - began)) $found
    [ "$code" = 0 ]
}

skip() { # NAME REASON
    wanted "$1" || return 0
    heading "$1" "SKIPPED"
    printf '!! SKIPPED %s: %s\n' "$1" "$2"
    record "$1" skipped 0 0 0 1
}

prepare() {
    install_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" && need_cargo && tests/python.sh --version
}

unit_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        exec cargo nextest run --release --workspace --no-fail-fast --no-tests=pass
    else
        echo "cargo-nextest is not installed: cargo test runs instead"
        exec cargo test --release --workspace --lib --bins --tests --no-fail-fast
    fi
}

no_warnings_in_docs() {
    RUSTDOCFLAGS='-D warnings' exec cargo doc --release --workspace --no-deps
}

end_to_end() {
    local python=tests/python.sh why
    step e2e-flights 8 $python -m flights --duration 25
    if wanted e2e-compat && [ -z "${KAFKA_HOME:-}" ]; then
        printf '\n!! KAFKA_HOME IS NOT SET: the cases with the tools of Apache Kafka are skipped\n'
    fi
    step e2e-compat 8 $python -m compat
    step e2e-killall 8 $python -m killall --rounds 2
    step e2e-failover 8 $python -m failover.measure --kills 4 --limit-ms 10000
    step e2e-controllers 8 $python -m failover.measure --controllers 3 --kills 2 --stall-ms 1000
    step e2e-client 12 bash tests/run.sh --step own_client
    step e2e-startup 4 $python -m startup.measure --runs 1 --idle 3
    step e2e-faults 8 $python -m faults
    if ! wanted e2e-compose; then
        return
    fi
    why=$($python -c 'from harness.containers import engine_missing; print(engine_missing() or "")')
    if [ -n "$why" ]; then
        skip e2e-compose "no containers here: $why"
    elif ! docker image inspect ottla-base:bookworm >/dev/null 2>&1 && ! install_packages debootstrap; then
        skip e2e-compose "debootstrap is missing, and so is the image it would make"
    else
        step e2e-compose 20 $python -m flights --target compose --duration 25
    fi
}

own_client() {
    cargo build --locked --release -p ottla-client --examples && exec tests/python.sh -m client
}

summary() {
    local i
    printf '\n======== Summary\n%-16s %-8s %8s  %s\n' step result seconds 'passed failed skipped'
    for i in "${!names[@]}"; do
        printf '%-16s %-8s %8s  %s\n' "${names[i]}" "${results[i]}" "${seconds[i]}" "${counts[i]}"
    done
    printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
}

# `timeout` runs programs: a step that is a function is this script again.
if [ "${1:-}" = --step ]; then
    "$2"
    exit
fi

built=yes
only_saved=("${only[@]}")
only=()
step prepare 30 bash tests/run.sh --step prepare || { summary; exit 1; }
only=("${only_saved[@]}")
step fmt 2 cargo fmt --all --check
# The binary is what every end-to-end step runs; RocksDB alone takes 20 to 30 minutes when nothing is cached.
step build 80 cargo build --locked --release --workspace || built=no
if [ "$built" = yes ]; then
    step clippy 40 cargo clippy --locked --release --workspace --all-targets -- --deny warnings
    step unit 40 bash tests/run.sh --step unit_tests
    step doc-tests 20 cargo test --release --workspace --doc
    step rustdoc 20 bash tests/run.sh --step no_warnings_in_docs
    step tidy 5 cargo xtask tidy
    step config-docs 5 cargo xtask docs --check
    step checkers 1 tests/python.sh -m unittest discover --start-directory tests/selftest --top-level-directory tests
    end_to_end
else
    skip everything-else "the workspace does not build"
fi
summary
[ "$failed" = 0 ]
