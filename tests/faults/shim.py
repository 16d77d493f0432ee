"""Disk errors and delays for one node: `shim.c`, preloaded."""

import os
import shutil
import subprocess
from pathlib import Path

from faults.cases import Skipped
from harness.ottla import Launch

_SOURCE = Path(__file__).with_name("shim.c")


class Shim:
    """Faults below one directory of one node. They begin with `plan` and end with `clear`."""

    def __init__(self, workspace: Path, below: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise Skipped("no C compiler for the preloaded shim: apt-get install build-essential")
        library = workspace / "shim.so"
        if not library.exists():
            command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
            subprocess.run(command, check=True)
        self._plan = workspace / f"plan-{below.name}"
        self._hits = Path(f"{self._plan}.hits")
        #: How to start the node.
        self.launch = Launch(env={
            "LD_PRELOAD": str(library), "FAULTS_DIRECTORY": str(below.absolute()), "FAULTS_PLAN": str(self._plan),
        })

    def plan(self, words: str) -> None:
        """From now on: "sync-eio", "write-eio", "fallocate-eio", "sync-delay=MS"."""
        complete = self._plan.with_suffix(".new")
        complete.write_text(words)
        os.rename(complete, self._plan)

    def clear(self) -> None:
        """No more faults; calls that wait go on."""
        self._plan.unlink(missing_ok=True)

    def hits(self, containing: str = "") -> int:
        """How many calls met the fault, on paths that contain this."""
        if not self._hits.exists():
            return 0
        return sum(containing in line for line in self._hits.read_text().splitlines())
