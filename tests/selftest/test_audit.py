"""`harness.audit` and `harness.acks` on histories made by hand."""

import unittest
from collections.abc import Iterator

from harness.acks import ANYWHERE, AckLog, longest_stalls
from harness.audit import audit
from harness.load import number_of
from harness.logread import Record


class _Log:
    """A reader of a log with one partition that holds these record numbers at offsets 0, 1, 2, …"""

    def __init__(self, *numbers: int, skipping: int | None = None) -> None:
        self._numbers, self._skipping = numbers, skipping
        self.bounds = {0: (0, len(numbers))}

    def __iter__(self) -> Iterator[Record]:
        for offset, number in enumerate(self._numbers):
            if offset != self._skipping:
                yield Record(0, offset, None, b"%012d" % number)


def _found(log: _Log, promised: dict[int, tuple[int, int]], sent: int) -> list[str]:
    """The kinds of violation found."""
    audited = audit(log, promised, lambda: sent, number_of)  # type: ignore[arg-type]
    return [violation.partition(":")[0] for violation in audited.violations]


class AuditFinds(unittest.TestCase):
    def test_nothing_where_nothing_is_wrong(self) -> None:
        self.assertEqual(_found(_Log(0, 1, 2), {0: (0, 0), 1: (0, 1), 2: (0, 2)}, 3), [])

    def test_nothing_wrong_with_an_unacknowledged_record_in_the_log_or_not(self) -> None:
        self.assertEqual(_found(_Log(0, 2), {0: (0, 0)}, 4), [])

    def test_an_acknowledged_record_that_is_not_there(self) -> None:
        self.assertEqual(_found(_Log(0, 1), {0: (0, 0), 1: (0, 1), 2: (0, 2)}, 3), ["LOST"])

    def test_a_record_twice(self) -> None:
        self.assertEqual(_found(_Log(0, 1, 1), {0: (0, 0), 1: (0, 1)}, 2), ["doubled"])

    def test_an_unacknowledged_record_twice(self) -> None:
        self.assertEqual(_found(_Log(0, 1, 1), {0: (0, 0)}, 2), ["doubled"])

    def test_records_out_of_order(self) -> None:
        self.assertEqual(_found(_Log(0, 2, 1), {0: (0, 0), 1: (0, 2), 2: (0, 1)}, 3), ["order"])

    def test_a_record_elsewhere_than_acknowledged(self) -> None:
        self.assertEqual(_found(_Log(0, 1), {0: (0, 0), 1: (0, 5)}, 2), ["moved"])

    def test_a_record_acknowledged_without_an_offset_only_where_it_is_missing_or_in_another_partition(self) -> None:
        self.assertEqual(_found(_Log(0, 1), {0: (0, 0), 1: (0, ANYWHERE)}, 2), [])
        self.assertEqual(_found(_Log(0), {0: (0, 0), 1: (0, ANYWHERE)}, 2), ["LOST"])
        self.assertEqual(_found(_Log(0, 1), {0: (0, 0), 1: (1, ANYWHERE)}, 2), ["moved"])

    def test_a_record_that_was_never_sent(self) -> None:
        self.assertEqual(_found(_Log(0, 7), {0: (0, 0)}, 2), ["phantom"])

    def test_an_offset_that_is_missing(self) -> None:
        self.assertEqual(_found(_Log(0, 1, 2, skipping=1), {0: (0, 0), 2: (0, 2)}, 3), ["gap"])


class Stalls(unittest.TestCase):
    def test_the_wait_begins_with_the_sending_or_the_acknowledgement_before(self) -> None:
        acks = AckLog()
        for sent, acked in ((0.0, 0.5), (0.1, 2.0), (9.0, 9.2)):
            acks.acknowledged(acks.sent(sent), 3, len(acks) - 1, acked)
        self.assertEqual(longest_stalls(acks), {3: 1.5})

    def test_acknowledgements_before_the_moment_do_not_count(self) -> None:
        acks = AckLog()
        for sent, acked in ((0.0, 5.0), (6.0, 6.25)):
            acks.acknowledged(acks.sent(sent), 0, len(acks) - 1, acked)
        self.assertEqual(longest_stalls(acks, since=5.5), {0: 0.25})


if __name__ == "__main__":
    unittest.main()
