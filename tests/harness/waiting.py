"""Bounded waiting: every wait in the tests names what it waits for and how long at most."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class LimitExceeded(Exception):
    """A condition did not come true within its limit."""


def until(what: str, limit_s: float, condition: Callable[[], T | None], poll_s: float = 0.02) -> T:
    """The first truthy answer of `condition`, asked every `poll_s`, within `limit_s`."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise LimitExceeded(f"{what}: not within {limit_s:.0f} s")
        time.sleep(poll_s)
