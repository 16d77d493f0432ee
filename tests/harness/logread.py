"""Reads a whole topic with a fresh client, as every checker does at the end."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from harness.topics import CLIENT
from harness.waiting import LimitExceeded

#: Errors of a connection, after which the client goes on by itself.
_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes


class LogReader:
    """Assigns every partition, from the start to the end offsets known at construction."""

    def __init__(self, bootstrap: str, topic: str, limit_s: float = 120) -> None:
        self._limit_s = limit_s
        self._consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": f"reader-{time.time_ns()}", "enable.auto.commit": False,
            "auto.offset.reset": "error", "check.crcs": True, "log_level": 2, "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100, **CLIENT,
        })
        self._topic = topic
        found = self._consumer.list_topics(topic, timeout=30).topics[topic]
        #: (log start, end) by partition.
        self.bounds: dict[int, tuple[int, int]] = {
            number: self._watermarks(TopicPartition(topic, number)) for number in sorted(found.partitions)
        }

    @property
    def total(self) -> int:
        """Records between the bounds, where none is missing."""
        return sum(end - start for start, end in self.bounds.values())

    def __iter__(self) -> Iterator[Record]:
        open_partitions = {number: end for number, (start, end) in self.bounds.items() if start < end}
        self._consumer.assign([
            TopicPartition(self._topic, number, self.bounds[number][0]) for number in open_partitions
        ])
        deadline = time.monotonic() + self._limit_s
        try:
            while open_partitions:
                for message in self._consumer.consume(2000, timeout=1.0):
                    error = message.error()
                    if error is not None:
                        if error.code() in _PASSING or error.retriable():
                            continue
                        raise KafkaException(error)
                    partition, offset, value = message.partition(), message.offset(), message.value()
                    if partition is None or offset is None or value is None:
                        raise ValueError(f"a message without a place or a value in {self._topic}")
                    end = self.bounds[partition][1]
                    if offset < end:
                        yield Record(partition, offset, message.key(), value)
                    if offset >= end - 1:
                        open_partitions.pop(partition, None)
                if time.monotonic() > deadline:
                    raise LimitExceeded(f"reading {self._topic}: {open_partitions} open after {self._limit_s} s")
        finally:
            self._consumer.close()

    def _watermarks(self, partition: TopicPartition) -> tuple[int, int]:
        deadline = time.monotonic() + 30
        while True:
            try:
                return self._consumer.get_watermark_offsets(partition, timeout=5)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
