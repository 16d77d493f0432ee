"""Compares a log with what its producer was told.

The promises, by their numbers in docs/reliability.md: what was acknowledged is there, at the offset acknowledged (P-2,
P-3); each record once and in order of sending (P-8, P-50); no gap between offsets and no record nobody sent (P-40).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.acks import ANYWHERE, Place
from harness.logread import LogReader, Record


@dataclass
class Audit:
    """What was found."""

    violations: list[str] = field(default_factory=list)
    #: Where each record number is: (partition, offset).
    places: dict[int, Place] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    #: Present without having been acknowledged, which is allowed.
    unacknowledged: int = 0


def audit(
    reader: LogReader, promised: Mapping[int, Place], sent: Callable[[], int], number_of: Callable[[Record], int],
    gave_up: bool = False,
) -> Audit:
    """Reads the log once.

    `promised`: where each acknowledged record must be. Take it (`AckLog.places`) before `reader` is made: what is
    acknowledged after the end offsets were read need not be below them. `sent`: how many records were sent by now.
    `number_of`: the producer's number of a record. `gave_up`: the client may have given up on records. librdkafka then
    goes on in a new producer epoch and sends again what was in flight, where idempotence does not reach: P-8 and P-50
    speak of one epoch.
    """
    found = Audit()
    next_offset = {partition: start for partition, (start, _) in reader.bounds.items()}
    latest: dict[int, int] = {}
    again: dict[int, set[Place]] = defaultdict(set)
    for record in reader:
        number, place = number_of(record), (record.partition, record.offset)
        if record.offset != next_offset[record.partition]:
            found.violations.append(f"gap: {place} follows offset {next_offset[record.partition] - 1}")
        next_offset[record.partition] = record.offset + 1
        if not 0 <= number < sent():
            found.violations.append(f"phantom: record {number} at {place} was never sent")
            continue
        if number in found.places and gave_up:
            again[number].add(place)
        elif number in found.places:
            found.violations.append(f"doubled: record {number} at {found.places[number]} and {place}")
        elif number < latest.get(record.partition, -1):
            found.violations.append(f"order: record {number} at {place} after record {latest[record.partition]}")
        latest[record.partition] = max(number, latest.get(record.partition, -1))
        found.places.setdefault(number, place)
        found.counts[record.partition] += 1
    for number, place in promised.items():
        where = found.places.get(number)
        if where is None:
            found.violations.append(f"LOST: record {number}, acknowledged at {place}, is not in the log")
        elif place not in (where, (where[0], ANYWHERE)) and place not in again[number]:
            found.violations.append(f"moved: record {number}, acknowledged at {place}, is at {where}")
    found.unacknowledged = len(found.places) - sum(1 for number in found.places if number in promised)
    return found
