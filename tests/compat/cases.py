"""The list of cases, and what a case is given."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.cluster import Cluster

CaseFunction = Callable[["World"], None]


class Skipped(Exception):
    """A case cannot run here; the reason is its message."""


@dataclass(frozen=True)
class World:
    """What a case runs against."""

    cluster: Cluster
    #: Where Kafka's own tools are, if anywhere.
    kafka_home: Path | None

    @property
    def bootstrap(self) -> str:
        """For clients."""
        return self.cluster.bootstrap


@dataclass(frozen=True)
class Case:
    """One named claim."""

    name: str
    run: CaseFunction


CASES: list[Case] = []


def case(function: CaseFunction) -> CaseFunction:
    """Registers a function as `module.function`."""
    CASES.append(Case(f"{function.__module__.rpartition('.')[2]}.{function.__name__}", function))
    return function


def fresh(prefix: str) -> str:
    """A name nobody has used."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def equal(actual: object, expected: object, what: str) -> None:
    """An assertion that shows both sides."""
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def contains(text: str, parts: Iterable[str], what: str) -> None:
    """An assertion that every part is somewhere in the text."""
    for part in parts:
        if part not in text:
            raise AssertionError(f"{what}: {part!r} is not in\n{text}")
