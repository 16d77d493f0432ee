"""Small file systems of a case's own, and a file that fills them. Needs a mount namespace of its own."""

import errno
import os
import subprocess
from pathlib import Path

from faults.cases import Skipped

_MIB = 1 << 20


class SmallDisk:
    """An ext4 image on a loop device, or a tmpfs where loop devices cannot be had.

    It is unmounted with the case's mount namespace, and the kernel drops the loop device with it.
    """

    def __init__(self, workspace: Path, name: str, mib: int) -> None:
        self.path = workspace / name
        self.path.mkdir()
        image = workspace / f"{name}.img"
        with image.open("wb") as file:
            file.truncate(mib * _MIB)
        made = _run("mkfs.ext4", "-q", "-m", "0", str(image)) or _run("mount", "-o", "loop", str(image), str(self.path))
        self.kind = "ext4 on a loop device"
        if made is not None:
            self.kind = "tmpfs"
            refused = _run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(self.path))
            if refused is not None:
                raise Skipped(f"no file system can be mounted: {made}; {refused}")
        self._filler = self.path / "filler"

    @property
    def free_bytes(self) -> int:
        """What anybody may still write."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave_mib: int = 0) -> None:
        """Fills it up to what is to be left; 0 leaves not a byte."""
        with self._filler.open("ab") as file:
            length = self.free_bytes - leave_mib * _MIB
            if leave_mib and length > 0:
                os.posix_fallocate(file.fileno(), file.tell(), length)
                return
            self._write_until_full(file.fileno())

    def release(self) -> None:
        """Space returns."""
        self._filler.unlink()

    @staticmethod
    def _write_until_full(file: int) -> None:
        size = _MIB
        while size:
            try:
                os.write(file, b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2


def _run(*command: str) -> str | None:
    """Why a command failed, or None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"{command[0]} is missing"
    return (done.stderr.strip() or f"{command[0]}: exit {done.returncode}") if done.returncode else None
