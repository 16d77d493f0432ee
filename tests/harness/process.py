"""One operating-system process that the tests started, held by a pidfd.

A pidfd stays with its process: a signal sent through it can never reach another one that got the same number later,
and its end is an event to wait for, also where the process is not our child.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.waiting import LimitExceeded


class Process:
    """A running or ended process."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._pidfd = os.pidfd_open(pid)

    @classmethod
    def spawn(cls, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> "Process":
        """Starts `command` with its output appended to `log`."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
            )
        return cls(child.pid, child)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended_within(0)

    def signal(self, number: signal.Signals) -> float:
        """Sends a signal; returns the monotonic time just before."""
        now = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)
        return now

    def wait(self, limit_s: float) -> int | None:
        """Waits for the end; the exit code where the process is our child."""
        if not self._ended_within(limit_s):
            raise LimitExceeded(f"process {self.pid}: no end within {limit_s:.0f} s")
        return self._child.wait() if self._child else None

    @property
    def state(self) -> str:
        """One letter, as in `ps`: R runs, S sleeps, T is stopped."""
        return self._stat()[0]

    def rss_bytes(self) -> int:
        """Resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _stat(self) -> list[str]:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()

    def _ended_within(self, limit_s: float) -> bool:
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(max(0.0, limit_s) * 1000))
