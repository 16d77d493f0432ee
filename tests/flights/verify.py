"""The verdict on a run: the log against what was acknowledged, and the group against the log."""

from collections.abc import Sequence

from flights.data import Flight, row_of
from flights.group import Group
from harness.acks import AckLog
from harness.audit import Audit, audit
from harness.logread import LogReader, Record


def verify(reader: LogReader, acks: AckLog, group: Group, flights: Sequence[Flight]) -> tuple[Audit, list[str]]:
    """What the log holds, and every violation found."""
    wrong_bytes: list[str] = []
    partition_of: dict[bytes, int] = {}

    def number_of(record: Record) -> int:
        row = row_of(record.value)
        if 0 <= row < len(flights):
            sent = flights[row]
            if (record.key, record.value) != (sent.key, sent.value):
                wrong_bytes.append(f"bytes: row {row} at {record.partition}@{record.offset} differs from what was sent")
        # Order per key follows from the order within each partition (which `audit` checks) and this.
        if record.key is not None and partition_of.setdefault(record.key, record.partition) != record.partition:
            wrong_bytes.append(f"order: key {record.key!r} is in two partitions")
        return row

    found = audit(reader, acks.places(), lambda: len(acks), number_of)
    violations = [*found.violations, *wrong_bytes, *(f"produce: {error}" for error in acks.errors)]
    missing = len(flights) - len(found.places)
    if missing:
        violations.append(f"{missing:,} flights are not in the log")
    if acks.acked != len(flights):
        violations.append(f"{len(flights) - acks.acked:,} flights were not acknowledged")
    return found, violations + _group(group, found, reader)


def _group(group: Group, found: Audit, reader: LogReader) -> list[str]:
    violations = list(group.violations)
    for row, place in group.places.items():
        if found.places.get(row) != place:
            violations.append(f"group: row {row} was delivered at {place}, the log has it at {found.places.get(row)}")
    if not group.complete:
        violations.append(f"group: {len(found.places.keys() - group.places.keys()):,} flights were never delivered")
    committed = group.committed(len(reader.bounds))
    for partition, (_, end) in reader.bounds.items():
        if committed[partition] != end:
            violations.append(f"group: partition {partition} committed at {committed[partition]}, its end is {end}")
    return violations
