"""Sends the flights at an even pace and keeps what the cluster answered."""

import threading
import time
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaException, Producer

from flights.data import Flight
from harness.acks import AckLog

#: The part of the flights that is held back to a trickle until the last fault is over: every fault meets a load.
_TAIL_SHARE = 0.08
_TRICKLE_PER_S = 200.0


class PacedProducer:
    """A thread with one idempotent producer. Its record numbers are the flights' row numbers."""

    def __init__(self, bootstrap: str, topic: str, flights: Sequence[Flight], duration_s: float) -> None:
        self.acks = AckLog()
        self._topic, self._flights = topic, flights
        self._pace = len(flights) / duration_s
        self._tail = int(len(flights) * (1 - _TAIL_SHARE))
        self._faults_over = threading.Event()
        self._abandoned = threading.Event()
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "compression.type": "zstd",
            # A node that comes back is used again soon; the defaults wait up to ten seconds.
            "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500, "message.timeout.ms": 120_000,
            "log_level": 2,
        })
        self._thread = threading.Thread(target=self._run, name="producer")

    @property
    def share_sent(self) -> float:
        """How much of the flights was handed over."""
        return len(self.acks) / len(self._flights)

    @property
    def running(self) -> bool:
        """Whether there is more to send or to wait for."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def faults_over(self) -> None:
        """No fault will follow: the held-back flights may go at full pace."""
        self._faults_over.set()

    def finish(self, limit_s: float) -> None:
        """Waits until every flight was answered."""
        self._thread.join(limit_s)
        if self._thread.is_alive():
            self.acks.errors.append(f"the producer did not finish within {limit_s:.0f} s")
            self.abandon()

    def abandon(self) -> None:
        """Stops in the middle, when the run has failed."""
        self._abandoned.set()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._send_all()
            while self._producer.flush(0.2) and not self._abandoned.is_set():
                pass
        except KafkaException as error:  # The client has given up for good.
            self.acks.errors.append(f"produce: {error}")

    def _send_all(self) -> None:
        allowed, before, row = 0.0, time.monotonic(), 0
        while row < len(self._flights) and not self._abandoned.is_set():
            now = time.monotonic()
            held_back = row >= self._tail and not self._faults_over.is_set()
            # What a full queue kept from being sent is caught up a second's worth at most.
            allowed = min(allowed + (now - before) * (_TRICKLE_PER_S if held_back else self._pace), self._pace)
            before = now
            while allowed >= 1 and row < len(self._flights) and self._send(row):
                row += 1
                allowed -= 1
            self._producer.poll(0.004)

    def _send(self, row: int) -> bool:
        flight = self._flights[row]
        self.acks.sent(time.monotonic())

        try:
            answered = partial(self.acks.answered, row)
            self._producer.produce(self._topic, flight.value, flight.key, on_delivery=answered)
        except BufferError:
            self.acks.withdraw()
            return False
        return True
