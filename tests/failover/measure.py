"""From SIGKILL of a broker to the first acknowledged acks=all produce on the slowest of 12 partitions.

A steady load writes to every partition, led by the victim or not, each record acknowledged by all (librdkafka, linger
0, retry and reconnect back-off 20 to 100 ms). The victims take turns, and every fourth kill goes to whichever node has
the active controller. Only records handed to the client after the kill count. With --controllers N the cluster has
dedicated controllers, the active one of them is killed each time, and no produce may fail or stall.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from harness import target, topics
from harness.acks import longest_stalls
from harness.cluster import Cluster, Violation
from harness.console import Console
from harness.load import SteadyLoad
from harness.ottla import OttlaProcesses
from harness.waiting import LimitExceeded, until

TOPIC = "failover"
PARTITIONS = 12
RATE = 1_200.0
#: The load runs this long before a kill, so that every connection and batch size is in its steady state.
_WARM_UP_S = 1.0


@dataclass(frozen=True)
class Kill:
    """One kill and what it cost."""

    node: int
    was_active_controller: bool
    led: int
    slowest_ms: float
    slowest_led_ms: float | None
    slowest_followed_ms: float | None


def main() -> int:
    parser = argparse.ArgumentParser(prog="failover.measure", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--controllers", type=int, default=0, help="kill the active one of N dedicated controllers")
    parser.add_argument("--limit-ms", type=float, default=60_000, help="fail where one kill costs more")
    parser.add_argument("--stall-ms", type=float, default=500, help="with --controllers: what counts as a stall")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    console = Console()
    if arguments.controllers:
        target.require_binary(arguments.binary)
        cluster: Cluster = OttlaProcesses(arguments.binary, brokers=3, controllers=arguments.controllers)
        run = _controllers
    else:
        cluster = target.make(arguments)
        run = _brokers
    console.step(f"starting {len(cluster.node_ids)} nodes: {cluster.name}")
    try:
        with cluster:
            topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
            result = run(cluster, arguments, console)
    except Violation as violation:
        console.verdict(violation.args[0], f"failover on {cluster.name}")
        return 1
    except (LimitExceeded, RuntimeError) as error:
        console.verdict([str(error)], f"failover on {cluster.name} could not finish")
        return 1
    if arguments.json:
        arguments.json.write_text(json.dumps({"cluster": cluster.name, **result}, indent=2) + "\n")
    console.verdict([], f"failover on {cluster.name}")
    return 0


def _brokers(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    kills: list[Kill] = []
    violations: list[str] = []
    for victim in itertools.islice(_victims(cluster), arguments.kills):
        kill, errors = _kill_one(cluster, victim, arguments.limit_ms / 1000)
        kills.append(kill)
        violations += errors
        role = ", the active controller" if kill.was_active_controller else ""
        console.step(
            f"kill {len(kills)}/{arguments.kills}: node {victim}, leader of {kill.led}{role}: "
            f"slowest partition after {kill.slowest_ms:,.0f} ms"
        )
        cluster.restart(victim)
    waits = [kill.slowest_ms for kill in kills]
    console.table(
        ("kills", "of the active controller", "median, ms", "maximum, ms"),
        [(len(kills), sum(k.was_active_controller for k in kills), statistics.median(waits), max(waits))],
    )
    violations += [f"kill of node {k.node}: {k.slowest_ms:.0f} ms" for k in kills if k.slowest_ms > arguments.limit_ms]
    if violations:
        raise Violation(violations)
    return {"median_ms": statistics.median(waits), "max_ms": max(waits), "kills": [asdict(kill) for kill in kills]}


def _victims(cluster: Cluster) -> Iterator[int]:
    in_turn = itertools.cycle(cluster.broker_ids)
    for number in itertools.count():
        if number % 4 == 0:
            yield until("an active controller", 60, cluster.active_controller, poll_s=0.05)
        else:
            yield next(in_turn)


def _kill_one(cluster: Cluster, victim: int, limit_s: float) -> tuple[Kill, list[str]]:
    partitions = topics.wait_in_sync(cluster, TOPIC)
    was_active = cluster.active_controller() == victim
    with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
        _warm_up(load)
        first_record = len(load.acks)
        killed_at = cluster.kill(victim)
        wanted = set(range(PARTITIONS))

        def all_served() -> dict[int, float] | None:
            waits = load.first_acks_after(killed_at, first_record)
            return waits if wanted <= waits.keys() else None

        waits = until("an acknowledgement on every partition", limit_s + 5, all_served, poll_s=0.02)
    led = {number for number, partition in partitions.items() if partition.leader == victim}
    kill = Kill(
        victim, was_active, len(led), max(waits.values()) * 1000,
        _slowest(waits, led), _slowest(waits, waits.keys() - led),
    )
    return kill, load.acks.errors


def _slowest(waits: dict[int, float], partitions: set[int]) -> float | None:
    return max((waits[partition] * 1000 for partition in partitions), default=None)


def _sent(load: SteadyLoad, records: int) -> bool:
    return len(load.acks) >= records


def _warm_up(load: SteadyLoad) -> None:
    def flowing() -> bool:
        recent = load.first_acks_after(time.monotonic() - 0.5, max(0, len(load.acks) - int(RATE)))
        return len(recent) == PARTITIONS

    began = time.monotonic()
    until("acknowledgements on every partition", 30, lambda: flowing() and time.monotonic() > began + _WARM_UP_S)


def _controllers(cluster: Cluster, arguments: argparse.Namespace, console: Console) -> dict[str, object]:
    stalls: list[float] = []
    violations: list[str] = []
    with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
        _warm_up(load)
        for number in range(1, arguments.kills + 1):
            victim = until("an active controller", 60, cluster.active_controller)
            killed_at = cluster.kill(victim)
            until("another active controller", 60, cluster.active_controller)
            elected = time.monotonic() - killed_at
            cluster.restart(victim)
            # The returning voter catches up under load as well; what it costs belongs to this kill.
            until("one more second of load", 10, partial(_sent, load, len(load.acks) + int(RATE)))
            stall = max(longest_stalls(load.acks, since=killed_at).values())
            stalls.append(stall * 1000)
            console.step(
                f"kill {number}/{arguments.kills}: controller {victim}; the next one was active after "
                f"{elected * 1000:,.0f} ms; longest stall of a produce {stall * 1000:,.1f} ms"
            )
            if stall * 1000 > arguments.stall_ms:
                violations.append(f"kill of controller {victim}: a produce stalled for {stall * 1000:.0f} ms")
    violations += [f"produce: {error}" for error in load.acks.errors]
    if violations:
        raise Violation(violations)
    return {"longest_stall_ms": max(stalls), "stalls_ms": stalls}


if __name__ == "__main__":
    sys.exit(main())
