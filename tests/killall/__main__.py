"""All nodes killed with SIGKILL at once under load and restarted, again and again.

After each round a fresh client reads the whole log: nothing acknowledged may be missing, doubled or out of order.
"""

import argparse
import itertools
import sys
import time
from functools import partial

from harness import target, topics
from harness.acks import longest_stalls
from harness.audit import audit
from harness.cluster import Cluster, Violation
from harness.console import Console
from harness.load import SteadyLoad, number_of
from harness.logread import LogReader
from harness.waiting import LimitExceeded, until

TOPIC = "killall"
PARTITIONS = 12


def main() -> int:
    parser = argparse.ArgumentParser(prog="killall", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rate", type=float, default=4_000, help="records a second (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    cluster = target.make(arguments)
    console.step(f"starting {len(cluster.node_ids)} nodes: {cluster.name}")
    try:
        with cluster:
            topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
            _rounds(cluster, arguments, console)
    except Violation as violation:
        console.verdict(violation.args[0], f"killing all nodes of {cluster.name}")
        return 1
    except (LimitExceeded, RuntimeError) as error:
        console.verdict([str(error)], f"killing all nodes of {cluster.name} could not finish")
        return 1
    console.verdict([], f"killing all nodes of {cluster.name}, {arguments.rounds} rounds")
    return 0


def _rounds(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> None:
    orders = itertools.cycle(itertools.permutations(cluster.node_ids))
    ends: dict[int, int] = {}
    with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, arguments.rate, client={"linger.ms": 2}) as load:
        for number in range(1, arguments.rounds + 1):
            wanted = load.acks.acked + int(2 * arguments.rate)
            until("two seconds of acknowledged load", 60, partial(_acked, load, wanted))
            acked = load.acks.acked
            killed_at = cluster.kill(*cluster.node_ids)
            down = len(load.acks) - load.acks.acked
            for node in next(orders):
                cluster.start_node(node)
            for node in cluster.node_ids:
                cluster.wait_ready(node)
            ready = time.monotonic() - killed_at
            down_from = len(load.acks)
            try:
                until("acknowledgements after the restart", 60, partial(_acked_since, load, down_from))
            except LimitExceeded as error:
                missing = sorted(set(range(PARTITIONS)) - set(load.first_acks_after(0, down_from)))
                raise Violation([f"{error}: none on partitions {missing}", *load.acks.errors]) from error
            resumed = time.monotonic() - killed_at
            topics.wait_in_sync(cluster, TOPIC)
            console.step(
                f"round {number}/{arguments.rounds}: killed after {acked:,} acknowledged ({down:,} in flight), "
                f"ready after {ready:.1f} s, acknowledging on every partition after {resumed:.1f} s"
            )
            ends = _check(cluster, load, ends, console)
            if load.acks.errors:
                raise Violation([f"produce: {error}" for error in load.acks.errors])
    _check(cluster, load, ends, console)
    stalls = longest_stalls(load.acks)
    console.step(f"{load.acks.acked:,} acknowledged; longest stall of a partition {max(stalls.values()):.1f} s")
    if load.acks.errors or load.acks.acked != len(load.acks):
        lost = len(load.acks) - load.acks.acked
        raise Violation([*(f"produce: {e}" for e in load.acks.errors), f"{lost} records were never acknowledged"])


def _acked(load: SteadyLoad, records: int) -> bool:
    return load.acks.acked >= records


def _acked_since(load: SteadyLoad, record: int) -> bool:
    """Whether every partition acknowledged a record sent since `record`."""
    return len(load.first_acks_after(0, record)) == PARTITIONS


def _check(cluster: Cluster, load: SteadyLoad, ends_before: dict[int, int], console: Console) -> dict[int, int]:
    """Reads everything; the end offsets seen."""
    promised = load.acks.places()
    reader = LogReader(cluster.bootstrap, TOPIC)
    found = audit(reader, promised, lambda: len(load.acks), number_of)
    violations = found.violations
    for partition, (_, end) in reader.bounds.items():
        if end < ends_before.get(partition, 0):
            violations.append(f"partition {partition} ends at {end}, it had ended at {ends_before[partition]}")  # P-42
    if violations:
        raise Violation(violations)
    console.step(f"checked: {len(found.places):,} records in the log, {len(promised):,} acknowledged among them")
    return {partition: end for partition, (_, end) in reader.bounds.items()}


if __name__ == "__main__":
    sys.exit(main())
