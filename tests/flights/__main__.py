"""The main job, start to end: `tests/python.sh -m flights --help`."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from flights import data, faults
from flights.data import Flight
from flights.group import Group
from flights.producer import PacedProducer
from flights.verify import verify
from harness import target, topics
from harness.acks import longest_stalls
from harness.audit import Audit
from harness.cluster import Cluster, Violation
from harness.console import Console
from harness.logread import LogReader
from harness.waiting import LimitExceeded

TOPIC = "flights"
PARTITIONS = 12
#: How long the group may need for the rest once everything was produced.
_DRAIN_LIMIT_S = 180.0
_FINISH_LIMIT_S = 180.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="flights", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--duration", type=float, default=90.0, help="seconds to produce all flights in (default: 90)")
    parser.add_argument("--calm", action="store_true", help="no faults")
    arguments = parser.parse_args()
    console = Console()
    console.step("reading the flights")
    flights = data.load()
    console.step(f"{len(flights):,} flights, {sum(f.key is None for f in flights):,} of them without a tail number")
    cluster = target.make(arguments)
    console.step(f"starting {len(cluster.node_ids)} nodes: {cluster.name}")
    try:
        with cluster, tempfile.TemporaryDirectory() as directory:
            console.step(f"ready at {cluster.bootstrap}; the active controller is node {faults.controller(cluster)}")
            job(cluster, flights, arguments, console, Path(directory))
    except Violation as violation:
        console.verdict(violation.args[0], f"the main job on {cluster.name}")
        return 1
    except (LimitExceeded, RuntimeError) as error:
        console.verdict([str(error)], f"the main job on {cluster.name} could not finish")
        return 1
    console.verdict([], f"the main job on {cluster.name}")
    return 0


def job(
    cluster: Cluster, flights: Sequence[Flight], arguments: argparse.Namespace, console: Console, directory: Path
) -> None:
    """Produces, consumes, breaks and checks; raises `Violation` with all that is wrong."""
    topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
    console.step(f"topic {TOPIC}: {PARTITIONS} partitions, replication factor 3, min.insync.replicas 2")
    producer = PacedProducer(cluster.bootstrap, TOPIC, flights, arguments.duration)
    with Group(cluster.bootstrap, TOPIC, len(flights), directory) as group:
        console.step(f"a group of {len(group.received)} consumers; producing for {arguments.duration:.0f} s")
        producer.start()
        try:
            watch = _Watch(producer, group, arguments.duration, console)
            if not arguments.calm:
                faults.run(cluster, TOPIC, console, watch)
            producer.faults_over()
            watch.reach(1.0)
            producer.finish(_FINISH_LIMIT_S)
            acks = producer.acks
            console.step(f"{acks.acked:,} of {len(flights):,} acknowledged, {len(acks.errors)} errors")
            watch.drain()
        finally:
            producer.abandon()
        group.leave()
        console.step("the group has left; reading the log with a fresh consumer")
        reader = LogReader(cluster.bootstrap, TOPIC)
        found, violations = verify(reader, producer.acks, group, flights)
        _report(console, reader, found, producer, group)
    if violations:
        raise Violation(violations)


class _Watch:
    """Shows progress while time passes."""

    def __init__(self, producer: PacedProducer, group: Group, duration_s: float, console: Console) -> None:
        self._producer, self._group, self._duration_s, self._console = producer, group, duration_s, console

    def reach(self, share: float) -> None:
        """Waits until this share of the flights was sent."""
        while self._producer.share_sent < share and self._producer.running:
            self._tick()
        if self._producer.acks.errors:
            raise Violation([f"produce: {error}" for error in self._producer.acks.errors])

    def spend(self, share: float) -> None:
        """Waits for this share of the planned time."""
        until = time.monotonic() + share * self._duration_s
        while time.monotonic() < until:
            self._tick()

    def drain(self) -> None:
        """Waits until the group has seen everything, or for the limit: the verdict tells what is missing."""
        deadline = time.monotonic() + _DRAIN_LIMIT_S
        while not self._group.complete and time.monotonic() < deadline:
            self._tick()

    def _tick(self) -> None:
        time.sleep(0.25)
        self._group.update()
        note = f"acknowledged {self._producer.acks.acked:,}, consumed {len(self._group.places):,}"
        if self._producer.share_sent < 1:
            self._console.progress("produced", len(self._producer.acks), data.FLIGHTS, note)
        else:
            self._console.progress("consumed", len(self._group.places), data.FLIGHTS)


def _report(console: Console, reader: LogReader, found: Audit, producer: PacedProducer, group: Group) -> None:
    stalls = longest_stalls(producer.acks)
    console.table(
        ("partition", "log start", "log end", "flights", "longest stall, ms"),
        [(p, start, end, found.counts[p], stalls.get(p, 0.0) * 1000) for p, (start, end) in reader.bounds.items()],
    )
    console.step(f"in the log: {sum(found.counts.values()):,} records, {len(found.places):,} different flights")
    seen = ", ".join(f"{count:,}" for count in group.received)
    again = sum(group.received) - len(group.places)
    console.step(f"the group: {len(group.places):,} different flights ({seen} by consumer; {again:,} delivered again)")
    console.step(f"the longest stall of any partition: {max(stalls.values(), default=0.0) * 1000:,.0f} ms")


if __name__ == "__main__":
    sys.exit(main())
