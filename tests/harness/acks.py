"""What a producer was told: when each record was handed over, when and where it was acknowledged."""

import math
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message

NEVER = math.inf

#: Partition and offset.
Place = tuple[int, int]
#: The offset of a record that was acknowledged without one.
ANYWHERE = -1


@dataclass(frozen=True)
class Ack:
    """An acknowledged record."""

    record: int
    partition: int
    offset: int
    sent_at: float
    acked_at: float


class AckLog:
    """Indexed by record number, in the order of sending. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.sent_at = array("d")
        self.acked_at = array("d")
        self.partition = array("i")
        self.offset = array("q")
        self.acked = 0
        #: The partitions of records acknowledged without an offset.
        self.implied: dict[int, int] = {}
        self.errors: list[str] = []

    def __len__(self) -> int:
        return len(self.sent_at)

    def sent(self, now: float) -> int:
        """A record is being handed to the client; its number."""
        self.sent_at.append(now)
        self.acked_at.append(NEVER)
        self.partition.append(-1)
        self.offset.append(-1)
        return len(self.sent_at) - 1

    def withdraw(self) -> None:
        """The last record was refused by the client and never sent."""
        for column in (self.sent_at, self.acked_at, self.partition, self.offset):
            column.pop()

    def answered(self, record: int, error: KafkaError | None, message: Message) -> None:
        """The client's delivery report, taken down at the moment it comes."""
        partition, offset = message.partition(), message.offset()
        if error is not None or partition is None:
            self.failed(record, str(error))
        elif offset is None:
            # An idempotent client takes the success of a batch for that of an earlier one whose answer it never got.
            self.implied[record] = partition
            self.acked += 1
        else:
            self.acknowledged(record, partition, offset, time.monotonic())

    def acknowledged(self, record: int, partition: int, offset: int, now: float) -> None:
        """The cluster said yes."""
        self.acked_at[record] = now
        self.partition[record] = partition
        self.offset[record] = offset
        self.acked += 1

    def failed(self, record: int, error: str) -> None:
        """The client gave up on a record: it may be in the log or not."""
        self.errors.append(f"record {record}: {error}")

    def places(self) -> dict[int, Place]:
        """Where each record acknowledged so far must be."""
        implied = {record: (partition, ANYWHERE) for record, partition in self.implied.copy().items()}
        return implied | {ack.record: (ack.partition, ack.offset) for ack in self.acks()}

    def acks(self) -> Iterator[Ack]:
        """All acknowledgements with an offset so far, in the order of sending."""
        for record in range(len(self.sent_at)):
            if self.offset[record] >= 0:
                yield Ack(
                    record, self.partition[record], self.offset[record], self.sent_at[record], self.acked_at[record]
                )


def longest_stalls(log: AckLog, since: float = 0.0) -> dict[int, float]:
    """Seconds, by partition: the longest time without an acknowledgement while a record waited for one.

    A partition's records are acknowledged in order, so the wait before each is what passed since the one before it, or
    since it was sent if that was later.
    """
    by_partition: dict[int, list[Ack]] = defaultdict(list)
    for ack in log.acks():
        if ack.acked_at >= since:
            by_partition[ack.partition].append(ack)
    return {partition: _longest(acks) for partition, acks in sorted(by_partition.items())}


def _longest(acks: list[Ack]) -> float:
    acks.sort(key=lambda ack: ack.offset)
    previous, longest = -math.inf, 0.0
    for ack in acks:
        longest = max(longest, ack.acked_at - max(previous, ack.sent_at))
        previous = max(previous, ack.acked_at)
    return longest
