"""A steady load with known record numbers: one record to each partition in turn, each acknowledged by all."""

import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from confluent_kafka import KafkaException, Producer

from harness.acks import AckLog
from harness.logread import Record
from harness.topics import CLIENT


def number_of(record: Record) -> int:
    """The number that `SteadyLoad` gave a record."""
    return int(record.value[:12])


class SteadyLoad:
    """A thread that sends `rate` records a second in all. A context manager: leaving it stops and flushes."""

    def __init__(
        self, bootstrap: str, topic: str, partitions: int, rate: float, size: int = 100,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        self.acks = AckLog()
        self._topic, self._partitions = topic, partitions
        self._interval = 1.0 / rate
        self._padding = b"." * (size - 12)
        self._stop = threading.Event()
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 0,
            "retry.backoff.ms": 20, "retry.backoff.max.ms": 100, "message.timeout.ms": 120_000, "log_level": 2,
            **CLIENT, **(client or {}),
        })
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> "SteadyLoad":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self, limit_s: float = 130) -> None:
        """Sends no more, and waits until every record was answered or given up."""
        self._stop.set()
        self._thread.join()
        left = self._producer.flush(limit_s)
        if left:
            self.acks.errors.append(f"{left} records unanswered after {limit_s:.0f} s")

    def first_acks_after(self, moment: float, first_record: int) -> dict[int, float]:
        """Seconds from `moment` to the first acknowledgement, by partition, of a record sent after it.

        Looks at records from `first_record` on only.
        """
        found: dict[int, float] = {}
        log = self.acks
        # The last may be withdrawn meanwhile, where the client has no room for it.
        for record in range(first_record, len(log) - 1):
            if log.sent_at[record] <= moment or log.offset[record] < 0:
                continue
            partition, waited = log.partition[record], log.acked_at[record] - moment
            found[partition] = min(waited, found.get(partition, waited))
        return found

    def _run(self) -> None:
        number, due = 0, time.monotonic()
        while not self._stop.is_set():
            now = time.monotonic()
            while due <= now and not self._stop.is_set():
                if not self._send(number % self._partitions):
                    due = now  # The client's queue is full: what was due is late, and not sent in a burst.
                    break
                number += 1
                due += self._interval
            self._producer.poll(min(0.005, max(0.0005, due - time.monotonic())))

    def _send(self, partition: int) -> bool:
        record = self.acks.sent(time.monotonic())

        try:
            answered = partial(self.acks.answered, record)
            value = b"%012d" % record + self._padding
            self._producer.produce(self._topic, value, partition=partition, on_delivery=answered)
        except BufferError:
            self.acks.withdraw()
            return False
        except KafkaException as error:  # The client has given up for good.
            self.acks.withdraw()
            self.acks.errors.append(f"produce: {error}")
            self._stop.set()
            return False
        return True
