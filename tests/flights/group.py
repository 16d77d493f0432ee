"""The consumer group: three member processes, and what they have received so far."""

import subprocess
import sys
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from flights.member import ASSIGNED, ENTRY
from harness.topics import CLIENT

MEMBERS = 3
NAME = "flights-readers"


class Group:
    """A context manager: leaving it ends the members."""

    def __init__(self, bootstrap: str, topic: str, flights: int, directory: Path) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._files = [directory / f"member-{n}.bin" for n in range(MEMBERS)]
        self._read = [0] * MEMBERS
        self._latest: list[dict[int, int]] = [{} for _ in range(MEMBERS)]
        self._members: list[subprocess.Popen[bytes]] = []
        #: Where the group saw each row: (partition, offset).
        self.places: dict[int, tuple[int, int]] = {}
        self.received = [0] * MEMBERS
        self.assignments = [0] * MEMBERS
        self.violations: list[str] = []
        self._flights = flights

    def __enter__(self) -> "Group":
        for file in self._files:
            file.touch()
            command = [sys.executable, "-m", "flights.member", "--bootstrap", self._bootstrap]
            command += ["--topic", self._topic, "--group", NAME, "--file", str(file)]
            self._members.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            if member.poll() is None:
                member.kill()
            member.wait()

    @property
    def complete(self) -> bool:
        """Whether the group saw every flight."""
        return len(self.places) == self._flights

    def update(self) -> None:
        """Takes in what the members wrote since the last call."""
        for n, path in enumerate(self._files):
            with path.open("rb") as file:
                file.seek(self._read[n])
                new = file.read()
            new = new[: len(new) - len(new) % ENTRY.size]
            self._read[n] += len(new)
            for partition, offset, row in ENTRY.iter_unpack(new):
                self._take(n, partition, offset, row)
            code = self._members[n].poll()
            if code:
                raise RuntimeError(f"consumer {n} of the group ended with {code}")

    def leave(self, limit_s: float = 30) -> None:
        """Lets the members commit and leave."""
        for member in self._members:
            if member.stdin:
                member.stdin.close()
        for n, member in enumerate(self._members):
            try:
                code = member.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.violations.append(f"group: consumer {n} did not close within {limit_s:.0f} s")
                continue
            if code != 0:
                self.violations.append(f"group: consumer {n} ended with {code}")
        self.update()

    def committed(self, partitions: int) -> dict[int, int]:
        """The group's committed offset of each partition (-1: none)."""
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": NAME, "log_level": 2, **CLIENT})
        try:
            asked = [TopicPartition(self._topic, number) for number in range(partitions)]
            return {p.partition: max(p.offset, -1) for p in consumer.committed(asked, timeout=30)}
        finally:
            consumer.close()

    def _take(self, member: int, partition: int, offset: int, row: int) -> None:
        latest = self._latest[member]
        if partition == ASSIGNED:
            self.assignments[member] += 1
            latest.clear()
            return
        self.received[member] += 1
        if offset <= latest.get(partition, -1):
            self.violations.append(f"group: consumer {member} got {partition}@{offset} after {latest[partition]}")
        latest[partition] = offset
        place = self.places.setdefault(row, (partition, offset))
        if place != (partition, offset):
            self.violations.append(f"group: row {row} at {place} and at {(partition, offset)}")
