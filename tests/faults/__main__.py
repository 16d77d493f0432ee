"""Faults on real nodes: `tests/python.sh -m faults [CASE...]`; cases whose name begins with one of the words.

Each case is a process with network and mount namespaces of its own where it needs them: nothing it does to the machine
outlives it. A case that cannot run here is skipped with the reason, and one that did not see its fault in force fails.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from faults import (
    cut, full_disk, hostile, io_error, many_partitions, pause, sigterm, slow_disk, wiped,
)
from faults.cases import CASES, SKIPPED, Case, Skipped, World
from harness import target
from harness.cluster import Violation
from harness.console import Console
from harness.local import run_directory
from harness.waiting import LimitExceeded

#: The order of the cases, which importing registers. The last leaves most behind for the disk to remove.
MODULES = (full_disk, io_error, slow_disk, pause, cut, sigterm, hostile, wiped, many_partitions)
_RESULT = "result.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(case.name for case in CASES))
    parser.add_argument("--binary", type=Path, default=target.default_binary(), help="default: %(default)s")
    parser.add_argument("--long", action="store_true", help="also the cases and sizes that take minutes")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    target.require_binary(arguments.binary)
    chosen = [case for case in _in_order() if _is_chosen(case, arguments)]
    if not chosen:
        sys.exit(f"no case begins with any of {arguments.cases}")
    if arguments.inside:
        return _inside(chosen[0], arguments)
    # A terminated run must still end its case: turn the signal into an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    rows = [(case, *_outside(case, arguments, console)) for case in chosen]
    console.table(("case", "result", "seconds"), [(case.name, result, took) for case, result, took, _ in rows])
    for case, _, _, measured in rows:
        for name, value in measured.items():
            print(f"  {case.name}: {name}: {value}", flush=True)
    results = [result for _, result, _, _ in rows]
    counts = {name: results.count(name) for name in ("passed", "failed", "skipped")}
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts), flush=True)
    return 1 if counts["failed"] or not (counts["passed"] or counts["skipped"]) else 0


def _in_order() -> list[Case]:
    names = [module.__name__ for module in MODULES]
    return sorted(CASES, key=lambda case: names.index(case.run.__module__))


def _is_chosen(case: Case, arguments: argparse.Namespace) -> bool:
    if arguments.inside or case.name in arguments.cases:
        return case.name in arguments.cases
    named = any(case.name.startswith(word) for word in arguments.cases)
    return (named or not arguments.cases) and (arguments.long or not case.long)


def _outside(case: Case, arguments: argparse.Namespace, console: Console) -> tuple[str, float, dict[str, str]]:
    """Runs a case as a process of its own: result, seconds, figures."""
    print(f"\n---- {case.name}: {case.what}", flush=True)
    missing = _missing(case)
    if missing:
        return _skipped(case, missing)
    directory = run_directory(f"fault-{case.name}")
    command = [sys.executable, "-m", "faults", case.name, "--binary", str(arguments.binary)]
    command += ["--inside", str(directory), *(["--long"] if arguments.long else [])]
    if case.namespaces:
        command = ["unshare", *(f"--{namespace}" for namespace in case.namespaces), "--", *command]
    began = time.monotonic()
    child = subprocess.Popen(command)
    try:
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    took = time.monotonic() - began
    result = directory / _RESULT
    found = json.loads(result.read_text()) if result.exists() else {}
    shutil.rmtree(directory, ignore_errors=True)
    if code == SKIPPED:
        return _skipped(case, found.get("reason", "no reason given"))
    outcome = "passed" if code == 0 else "failed"
    console.step(f"{outcome.upper()} {case.name} ({took:.1f} s)")
    return outcome, took, found.get("measured", {})


def _skipped(case: Case, reason: str) -> tuple[str, float, dict[str, str]]:
    print(f"!! SKIPPED {case.name}: {reason}", flush=True)
    return "skipped", 0.0, {"skipped": reason}


def _missing(case: Case) -> str | None:
    """Why the namespaces cannot be made here, or None."""
    if not case.namespaces:
        return None
    probe = ["unshare", *(f"--{namespace}" for namespace in case.namespaces), "--", "true"]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unshare is missing: apt-get install util-linux"
    return f"no {' and '.join(case.namespaces)} namespace: {done.stderr.strip()}" if done.returncode else None


def _inside(case: Case, arguments: argparse.Namespace) -> int:
    """The case itself, in its own process."""
    world = World(arguments.binary, arguments.inside, Console(), arguments.long)
    outcome: dict[str, object] = {}
    code = 1
    try:
        case.run(world)
        world.verdict()
        if not world.probes:
            raise Violation(["no probe saw the fault: the case proves nothing"])
        world.console.verdict([], f"{case.name}: {case.what}")
        code = 0
    except Skipped as reason:
        outcome["reason"], code = str(reason), SKIPPED
    except Violation as violation:
        world.console.verdict(violation.args[0], f"{case.name}: {case.what}")
    except LimitExceeded as error:
        world.console.verdict([*world.violations, str(error)], f"{case.name} could not finish")
    except Exception as error:  # A case may fail in any way; the others still run.
        traceback.print_exc(file=sys.stdout)
        world.console.verdict([*world.violations, repr(error)], f"{case.name} could not finish")
    outcome["measured"] = world.measured
    (arguments.inside / _RESULT).write_text(json.dumps(outcome))
    sys.stdout.flush()
    # A client that cannot reach its cluster any more must not hold the end up.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
