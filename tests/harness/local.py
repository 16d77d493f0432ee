"""What clusters of local processes share: directories, signals, /proc."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.cluster import READY_LIMIT_S, STOP_LIMIT_S, Cluster
from harness.process import Process
from harness.waiting import LimitExceeded, until


def run_directory(name: str) -> Path:
    """A new directory on disk (not on a tmpfs: fsync must cost what it costs)."""
    root = Path(os.environ.get("OTTLA_TESTS_CACHE", Path.home() / ".cache/ottla-tests")) / "runs"
    root.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))


class LocalCluster(Cluster):
    """Nodes that are processes of this machine."""

    #: Exit codes of an orderly end.
    clean_exits: tuple[int, ...] = (0,)
    #: Whether the removal of its files goes on after `close`: thousands of directories may take longer than a test.
    removed_behind: bool = False

    def __init__(self, root: Path, inner: str = ".") -> None:
        self._root = root
        self.directory = root / inner
        self._processes: dict[int, Process] = {}

    def is_serving(self, node: int) -> bool:
        """Whether a started node answers."""
        raise NotImplementedError

    def log_path(self, node: int) -> Path:
        """Where a node's output goes."""
        return self.directory / f"node-{node}.log"

    def data_dir(self, node: int) -> Path:
        """Where a node's partitions are."""
        return self.directory / f"data-{node}"

    def process(self, node: int) -> Process:
        """The process of a node that was started."""
        return self._processes[node]

    def is_running(self, node: int) -> bool:
        """Whether a node was started and its process has not ended."""
        return node in self._processes and self._processes[node].alive

    def await_end(self, node: int, limit_s: float) -> int | None:
        """Waits until a node's process ends for whatever reason; its exit code."""
        code = self._processes[node].wait(limit_s)
        del self._processes[node]
        return code

    def kill(self, *nodes: int) -> float:
        times = [self._processes[node].signal(signal.SIGKILL) for node in nodes]
        for node in nodes:
            self._processes.pop(node).wait(10)
        return times[0]

    def stop(self, node: int, limit_s: float = STOP_LIMIT_S) -> None:
        self._processes[node].signal(signal.SIGTERM)
        code = self.await_end(node, limit_s)
        if code is not None and code not in self.clean_exits:
            raise RuntimeError(f"node {node} ended with {code} after SIGTERM")

    def wait_ready(self, node: int, limit_s: float = READY_LIMIT_S) -> None:
        def ready() -> bool:
            if not self._processes[node].alive:
                raise LimitExceeded(f"node {node} ended during its start: see {self.log_path(node)}")
            return self.is_serving(node)

        until(f"node {node} of {self.name} ready", limit_s, ready)

    def rss_bytes(self, node: int) -> int:
        return self._processes[node].rss_bytes()

    def cpu_seconds(self) -> float:
        return sum(process.cpu_seconds() for process in self._processes.values() if process.alive)

    def log_tail(self, node: int, lines: int) -> str:
        path = self.log_path(node)
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def close(self, failed: bool) -> None:
        for process in self._processes.values():
            process.signal(signal.SIGKILL if failed else signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_LIMIT_S)
            except LimitExceeded:
                process.signal(signal.SIGKILL)
                process.wait(10)
        self._processes.clear()
        if failed:
            print(f"---- kept: {self._root}", file=sys.stderr)
        elif self.removed_behind:
            subprocess.Popen(["rm", "-rf", str(self._root)], start_new_session=True)
        else:
            shutil.rmtree(self._root, ignore_errors=True)
