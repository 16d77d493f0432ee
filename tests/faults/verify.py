"""The verdict after a fault: what was acknowledged is in the log once and in order, and all replicas are equal."""

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

from confluent_kafka.admin import AdminClient

from faults import raw
from faults.cases import World
from harness import topics
from harness.audit import audit
from harness.load import SteadyLoad, number_of
from harness.logread import LogReader
from harness.ottla import OttlaProcesses
from harness.waiting import LimitExceeded, until

#: Hard limits of docs/reliability.md, in seconds.
FAILOVER_LIMIT_S = 10.0  # F-1
FOLLOWER_LIMIT_S = 15.0  # F-2
CONTROLLER_LIMIT_S = 6.0  # F-3
RESTART_STALL_LIMIT_S = 3.0  # F-4
HEAL_LIMIT_S = 60.0  # F-6


def verify(
    world: World, cluster: OttlaProcesses, topic: str, load: SteadyLoad, may_fail: bool = False,
    heal_limit_s: float = HEAL_LIMIT_S,
) -> None:
    """After the faults and the load have ended. `may_fail`: the client may have given up on records."""
    heal = wait_whole(world, cluster, topic, heal_limit_s)
    promised = load.acks.places()
    reader = LogReader(cluster.bootstrap, topic)
    found = audit(reader, promised, lambda: len(load.acks), number_of, gave_up=may_fail)
    world.violations += found.violations
    if not may_fail:
        world.violations += [f"produce: {error}" for error in load.acks.errors]
    world.step(
        f"checked {topic}: {len(promised):,} acknowledged, {len(found.places):,} in the log, "
        f"{len(load.acks.errors):,} refused or unanswered; {heal}"
    )


def wait_whole(world: World, cluster: OttlaProcesses, topic: str, limit_s: float = HEAL_LIMIT_S) -> str:
    """R-19: every partition led, every ISR full, every replica equal, byte for byte."""
    client = topics.admin(cluster.bootstrap)

    def in_sync() -> bool:
        found = topics.describe(client, topic)
        return bool(found) and all(p.leader >= 0 and len(p.isr) == len(p.replicas) for p in found.values())

    began = world.console.elapsed_s
    try:
        until(f"every replica of {topic} in sync", limit_s, in_sync, poll_s=0.1)
        until(f"equal replicas of {topic}", limit_s, lambda: not unequal(cluster, topic), poll_s=0.2)
    except LimitExceeded as error:
        world.check(False, "R-19, F-6", f"{error}; unequal: {unequal(cluster, topic)}; {_isrs(client, topic)}")
        return "NOT whole again"
    return f"all replicas equal after {world.console.elapsed_s - began:.1f} s"


def create_topic(
    world: World, cluster: OttlaProcesses, name: str, promise: str, limit_s: float,
    through: Iterable[int] | None = None, partitions: int = 3,
) -> None:
    """A topic is made and led within a limit, asked of nodes that answer: a client's own patience plays no part."""
    nodes = [cluster.nodes[node] for node in through or cluster.broker_ids]
    addresses = [(node.host, node.kafka_port) for node in nodes]
    said: list[str | None] = []

    def created() -> bool:
        address = addresses[len(said) % len(addresses)]
        said.append(raw.create(address, name, partitions, 2.0))
        return said[-1] is None

    def led() -> bool:
        found = raw.describe(addresses, name)
        return len(found) == partitions and all(p.leader >= 0 for p in found.values())

    began = time.monotonic()
    try:
        until(f"topic {name}", limit_s * 2, created)
        until(f"leaders of {name}", limit_s * 2, led)
    except LimitExceeded as error:
        world.check(False, promise, f"{error}; the last answer: {said[-1] if said else None}")
        return
    took = time.monotonic() - began
    world.measure(f"topic {name} created and led after", f"{took * 1000:,.0f} ms")
    world.check(took <= limit_s, promise, f"creating {name} took {took:.1f} s")


def unequal(cluster: OttlaProcesses, topic: str) -> list[str]:
    """Partitions whose logs differ between nodes (R-2), or are missing on one."""
    digests: dict[str, dict[int, str]] = {}
    for node in cluster.broker_ids:
        for directory in cluster.data_dir(node).glob(f"{topic}-*"):
            number = directory.name.rpartition("-")[2]
            if number.isdigit() and directory.name == f"{topic}-{number}":
                digests.setdefault(directory.name, {})[node] = _digest(directory.glob("*.log"))
    return sorted(
        f"{name}: {found}" for name, found in digests.items()
        if len(found) != len(cluster.broker_ids) or len(set(found.values())) > 1
    )


def leaders(client: AdminClient, topic: str) -> dict[int, int]:
    """The leader of each partition."""
    # A client asks any node it knows, also one that does not answer now; then it asks another.
    found = until(f"a description of {topic}", 20, lambda: topics.describe(client, topic))
    return {number: partition.leader for number, partition in found.items()}


def _digest(segments: Iterable[Path]) -> str:
    digest, size = hashlib.sha256(), 0
    for segment in sorted(segments):
        content = segment.read_bytes()
        digest.update(content)
        size += len(content)
    return f"{size} B {digest.hexdigest()[:8]}"


def _isrs(client: AdminClient, topic: str) -> str:
    found = topics.describe(client, topic) or {}
    short = {number: p for number, p in found.items() if p.leader < 0 or len(p.isr) < len(p.replicas)}
    return "; ".join(f"{n}: leader {p.leader}, ISR {p.isr} of {p.replicas}" for n, p in short.items())
