"""The list of cases, and what a case is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.cluster import Violation
from harness.console import Console
from harness.ottla import OttlaProcesses

#: How a case ends that cannot run on this machine; the runner shows the reason.
SKIPPED = 77


class Skipped(Exception):
    """A case cannot run here; the reason is its message."""


@dataclass
class World:
    """What a case runs with, and where it leaves what it found."""

    binary: Path
    #: For file systems, shims and whatever else a case makes; removed afterwards.
    directory: Path
    console: Console
    #: Whether the longer form was asked for.
    long: bool = False
    violations: list[str] = field(default_factory=list)
    #: Proofs that a fault was real. A case without any proves nothing, and fails.
    probes: list[str] = field(default_factory=list)
    #: What is worth a line in the table.
    measured: dict[str, str] = field(default_factory=dict)

    def cluster(
        self, extra: Mapping[str, str] | None = None, only: Mapping[int, Mapping[str, str]] | None = None,
        hosts: Mapping[int, str] | None = None,
    ) -> OttlaProcesses:
        """Three combined nodes, not yet started."""
        # Few partitions for groups: their files are most of what a small cluster makes, and what is made is removed.
        properties = {"offsets.topic.num.partitions": "3", **(extra or {})}
        return OttlaProcesses(self.binary, extra=properties, only=only, hosts=hosts)

    def step(self, text: str) -> None:
        """Something begins or happened."""
        self.console.step(text)

    def in_force(self, fault: str) -> None:
        """A probe saw the fault."""
        self.probes.append(fault)
        self.step(f"IN FORCE: {fault}")

    def measure(self, name: str, value: str) -> None:
        """A figure for the table."""
        self.measured[name] = value
        self.step(f"{name}: {value}")

    def check(self, holds: bool, promise: str, otherwise: str) -> bool:
        """A promise, by its id: where it does not hold, the case goes on and fails at its end."""
        if not holds:
            self.violations.append(f"{promise}: {otherwise}")
            self.step(f"!! {promise}: {otherwise}")
        return holds

    def verdict(self) -> None:
        """Raises what was found. Called inside the cluster's context, so that the nodes' logs are shown."""
        if self.violations:
            raise Violation(self.violations)


CaseFunction = Callable[[World], None]


@dataclass(frozen=True)
class Case:
    """One fault."""

    name: str
    run: CaseFunction
    #: Namespaces of its own ("net", "mount"): what it does to network and mounts ends with it.
    namespaces: tuple[str, ...]
    #: Whether it belongs to the long form only.
    long: bool

    @property
    def what(self) -> str:
        """The first line of its description."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


CASES: list[Case] = []


def case(name: str, *namespaces: str, long: bool = False) -> Callable[[CaseFunction], CaseFunction]:
    """Registers a function."""

    def register(function: CaseFunction) -> CaseFunction:
        CASES.append(Case(name, function, namespaces, long))
        return function

    return register
