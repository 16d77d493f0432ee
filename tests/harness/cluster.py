"""What a test can ask of a cluster, whatever it is made of."""

import abc
import signal
import sys
from types import TracebackType
from typing import Self

READY_LIMIT_S = 60.0
STOP_LIMIT_S = 60.0
#: How much of each log is shown after a failure.
_TAIL_LINES, _TAIL_COLUMNS = 25, 300


class Cluster(abc.ABC):
    """Some nodes, of which a test may kill, stop and restart any. A context manager: leaving it ends every node."""

    #: What the cluster is, for people.
    name: str
    #: Every node, and those among them that clients connect to.
    node_ids: tuple[int, ...]
    broker_ids: tuple[int, ...]
    #: For clients.
    bootstrap: str
    #: The monotonic time of the first node's exec.
    began: float = 0.0
    #: How long this kind of cluster may take to be whole again after one node came back.
    heal_limit_s: float = 60.0

    @abc.abstractmethod
    def start(self) -> None:
        """Starts all nodes, sets `began`, and waits until each is ready."""

    @abc.abstractmethod
    def start_node(self, node: int) -> None:
        """Starts one node that is down, without waiting for it."""

    @abc.abstractmethod
    def kill(self, *nodes: int) -> float:
        """SIGKILL to these nodes at once; returns the monotonic time just before, when they are gone."""

    @abc.abstractmethod
    def stop(self, node: int, limit_s: float = STOP_LIMIT_S) -> None:
        """SIGTERM, and waits for the end; fails where the node reports an error or takes too long."""

    @abc.abstractmethod
    def wait_ready(self, node: int, limit_s: float = READY_LIMIT_S) -> None:
        """Waits until a started node serves; fails early where its process ends."""

    @abc.abstractmethod
    def active_controller(self) -> int | None:
        """The node that is the active controller, where one says so."""

    @abc.abstractmethod
    def rss_bytes(self, node: int) -> int:
        """Resident memory of a node."""

    @abc.abstractmethod
    def cpu_seconds(self) -> float:
        """CPU time of all running nodes so far."""

    @abc.abstractmethod
    def log_tail(self, node: int, lines: int) -> str:
        """The end of what a node printed."""

    @abc.abstractmethod
    def close(self, failed: bool) -> None:
        """Ends all nodes; keeps logs and data where the test failed."""

    def restart(self, node: int) -> None:
        """Starts a node that is down, and waits until it serves."""
        self.start_node(node)
        self.wait_ready(node)

    def __enter__(self) -> Self:
        # A terminated test must still end its nodes: turn the signal into an exception that unwinds to `close`.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.start()
        except BaseException:
            self._report_and_close(failed=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._report_and_close(failed=kind is not None)

    def _report_and_close(self, failed: bool) -> None:
        try:
            if failed:
                for node in self.node_ids:
                    print(f"---- {self.name}, node {node}: the end of its log", file=sys.stderr)
                    for line in self.log_tail(node, _TAIL_LINES).splitlines():
                        print(line[:_TAIL_COLUMNS], file=sys.stderr)
        finally:
            self.close(failed)


class Violation(Exception):
    """The cluster broke a promise. Raised inside the cluster's context so that the nodes' logs are shown."""
