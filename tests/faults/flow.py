"""Whether a load goes on, and how long it stood still."""

import time
from collections.abc import Collection, Iterable

from harness.acks import longest_stalls
from harness.load import SteadyLoad
from harness.waiting import LimitExceeded, until


def warm_up(load: SteadyLoad, partitions: int, seconds: float = 1.0, limit_s: float = 30) -> None:
    """Waits until every partition acknowledges and some load has passed."""
    began = time.monotonic()
    await_flow(load, range(partitions), limit_s)
    until("a second of load", limit_s, lambda: time.monotonic() > began + seconds)


def await_flow(load: SteadyLoad, partitions: Iterable[int], limit_s: float) -> float:
    """Seconds until each of these partitions acknowledged a record sent from now on."""
    began, first_record, wanted = time.monotonic(), len(load.acks), set(partitions)
    until(
        f"acknowledgements on partitions {sorted(wanted)}", limit_s,
        lambda: wanted <= load.first_acks_after(began, first_record).keys(),
    )
    return time.monotonic() - began


def flows(load: SteadyLoad, partitions: Iterable[int], limit_s: float) -> float | None:
    """As `await_flow`; None where the limit passed."""
    try:
        return await_flow(load, partitions, limit_s)
    except LimitExceeded:
        return None


def run_for(load: SteadyLoad, seconds: float) -> None:
    """Lets time pass under load."""
    end = time.monotonic() + seconds
    until(f"{seconds:.0f} s of load", seconds + 5, lambda: time.monotonic() >= end, poll_s=0.1)


def slowest(load: SteadyLoad, since: float, among: Collection[int] | None = None) -> float:
    """The longest stall of any of these partitions since a moment, in seconds."""
    stalls = longest_stalls(load.acks, since)
    return max((stall for number, stall in stalls.items() if among is None or number in among), default=0.0)
