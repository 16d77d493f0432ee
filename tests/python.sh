#!/usr/bin/env bash
# Runs Python with the tests' packages: `tests/python.sh -m flights --help`.
# The virtual environment lives outside the clone and is keyed by what it was made from, so that a change of
# requirements.txt makes a new one and two clones share one.
set -euo pipefail

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${OTTLA_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ottla-tests}
python=$(command -v python3 || true)
[ -n "$python" ] || { echo "python.sh: python3 is missing: apt-get install python3 python3-venv" >&2; exit 1; }
key=$( (cat "$tests/requirements.txt"; "$python" -c 'import sys; print(sys.version, sys.prefix)') | sha256sum | cut -c1-16)
venv=$cache/venv-$key

if [ ! -f "$venv/complete" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9 # Two first runs at once would write into the same directory.
    if [ ! -f "$venv/complete" ]; then
        echo "python.sh: making $venv" >&2
        rm -rf "$venv"
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
            --requirement "$tests/requirements.txt" >&2
        touch "$venv/complete"
    fi
    exec 9>&-
fi

export PYTHONPATH=$tests${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" "$@"
