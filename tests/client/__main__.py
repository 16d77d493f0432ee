"""Our own client against a real cluster: its live tests, then faults.

The example `steady` of crates/client writes and reads while nodes die, freeze and stop. Nothing may be lost, doubled
or reordered, and no delivery may fail: the client retries, the caller only waits.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness import target
from harness.console import Console
from harness.local import LocalCluster

_RECOVERY_S = 8.0
_FROZEN_S = 6.0
_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="client", description=__doc__)
    target.add_arguments(parser)
    built = Path(os.environ.get("CARGO_TARGET_DIR", Path.home() / ".cache/ottla-target"))
    parser.add_argument("--steady", type=Path, default=built / "release/examples/steady", help="default: %(default)s")
    arguments = parser.parse_args()
    if not arguments.steady.is_file():
        sys.exit(f"{arguments.steady} is missing: cargo build --release -p ottla-client --examples")
    console = Console()
    cluster = target.make(arguments)
    failures = []
    console.step(f"starting {len(cluster.node_ids)} nodes: {cluster.name}")
    with cluster:
        failures += [] if _live(cluster, console) else ["live tests"]
        for name, fault in (("killed", _kill), ("stopped", _stop), ("frozen", _freeze)):
            if fault is _freeze and not isinstance(cluster, LocalCluster):
                console.step("SKIPPED frozen: only processes of our own can be frozen")
                continue
            failures += [] if _run(cluster, arguments.steady, name, fault, console) else [f"nodes {name}"]
    console.verdict(failures, f"our client on {cluster.name}")
    return 1 if failures else 0


def _live(cluster, console: Console) -> bool:
    command = ["cargo", "test", "--release", "-p", "ottla-client", "--test", "live", "--", "--nocapture"]
    environment = os.environ | {"OTTLA_BOOTSTRAP": cluster.bootstrap}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(("test ", "NOT SERVED", "Error")) or "panicked" in line:
            console.step(f"  {line[:200]}")
    return done.returncode == 0


def _run(cluster, steady: Path, name: str, fault, console: Console) -> bool:
    seconds = 3 + len(cluster.broker_ids) * 12
    command = [steady, cluster.bootstrap, f"steady-{name}", str(seconds)]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert load.stdout is not None
    while (line := load.stdout.readline()) and line.strip() != "begun":
        console.step(line.strip())
    time.sleep(2)  # The load is in its steady state; there is no event that says so.
    for node in cluster.broker_ids:
        began = time.monotonic()
        fault(cluster, node)
        console.step(f"node {node} {name} and back after {time.monotonic() - began:.1f} s")
        time.sleep(max(0.0, _RECOVERY_S - (time.monotonic() - began)))
    for line in load.stdout:
        console.step(f"  {line.rstrip()[:200]}")
    return load.wait() == 0


def _kill(cluster, node: int) -> None:
    cluster.kill(node)
    time.sleep(1.5)  # Dead for a while: that is the fault.
    cluster.start_node(node)
    cluster.wait_ready(node)


def _stop(cluster, node: int) -> None:
    cluster.stop(node)
    cluster.start_node(node)
    cluster.wait_ready(node)


def _freeze(cluster, node: int) -> None:
    process = cluster._processes[node]
    process.signal(signal.SIGSTOP)
    time.sleep(_FROZEN_S)
    process.signal(signal.SIGCONT)
    cluster.wait_ready(node)


if __name__ == "__main__":
    sys.exit(main())
