"""One consumer of the group: a process of its own, as it would be in use.

Appends what it receives to a file, one fixed-size entry each, and prints nothing but errors. Ends when its standard
input is closed.
"""

import argparse
import logging
import struct
import sys
import threading
from collections.abc import Iterable

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition

from flights.data import row_of

#: Partition, offset, row. An assignment is marked by an entry with partition -1.
ENTRY = struct.Struct("<iqq")
ASSIGNED = -1


class _Marker(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, assigned: threading.Event) -> None:
        self._assigned = assigned

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to do: what was received is written already."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Positions may go back to what was committed last."""
        self._assigned.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--bootstrap", "--topic", "--group", "--file"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    stop, assigned = threading.Event(), threading.Event()
    threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
    consumer = KafkaConsumer(
        bootstrap_servers=arguments.bootstrap.split(","), group_id=arguments.group, auto_offset_reset="earliest",
        enable_auto_commit=True, auto_commit_interval_ms=500, session_timeout_ms=10_000, heartbeat_interval_ms=1_000,
        reconnect_backoff_ms=50, reconnect_backoff_max_ms=500, retry_backoff_ms=50, metadata_max_age_ms=10_000,
        max_poll_records=2_000,
    )
    consumer.subscribe([arguments.topic], listener=_Marker(assigned))
    with open(arguments.file, "ab") as file:
        while not stop.is_set():
            received = consumer.poll(timeout_ms=200)
            if assigned.is_set():
                assigned.clear()
                file.write(ENTRY.pack(ASSIGNED, 0, 0))
            for partition, records in received.items():
                for record in records:
                    file.write(ENTRY.pack(partition.partition, record.offset, row_of(record.value)))
            file.flush()
    consumer.close()


def _await_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main()
