"""A network of the case's own: a namespace a node on one bridge. Needs a network namespace of its own."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.cases import Skipped
from harness.ottla import Launch

_NET = "10.77.0"
_CLONE_NEWNET = 0x4000_0000
_TOOLS = {"ip": "iproute2", "iptables": "iptables", "nsenter": "util-linux"}


class Network:
    """The runner put us into a network namespace of our own; here it becomes the hub with the clients."""

    def __init__(self, nodes: Iterable[int]) -> None:
        for tool, package in _TOOLS.items():
            if shutil.which(tool) is None:
                raise Skipped(f"{tool} is missing: apt-get install {package}")
        # The names of namespaces are mounts: on a file system of our own they go when we go.
        Path("/run/netns").mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "none", "/run/netns")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "hub", "type", "bridge")
        _run("ip", "address", "add", f"{_NET}.254/24", "dev", "hub")
        _run("ip", "link", "set", "hub", "up")
        self.hosts = {node: f"{_NET}.{node}" for node in nodes}
        for node, address in self.hosts.items():
            _run("ip", "netns", "add", _name(node))
            _run("ip", "link", "add", f"port{node}", "type", "veth", "peer", "name", "eth0", "netns", _name(node))
            _run("ip", "link", "set", f"port{node}", "master", "hub", "up")
            self._in(node, "ip", "link", "set", "lo", "up")
            self._in(node, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            self._in(node, "ip", "link", "set", "eth0", "up")

    def launch(self, node: int) -> Launch:
        """How to start the node in its namespace."""
        return Launch(prefix=("nsenter", f"--net=/run/netns/{_name(node)}", "--"))

    def cut(self, node: int, hear: bool = True, be_heard: bool = True) -> None:
        """Drops silently what would come in, go out, or both."""
        if hear:
            self._in(node, "iptables", "-w", "-A", "INPUT", "-i", "eth0", "-j", "DROP")
        if be_heard:
            self._in(node, "iptables", "-w", "-A", "OUTPUT", "-o", "eth0", "-j", "DROP")

    def cut_from(self, node: int, other: int) -> None:
        """Drops what goes between two nodes."""
        for chain, flag in (("INPUT", "-s"), ("OUTPUT", "-d")):
            self._in(node, "iptables", "-w", "-A", chain, flag, self.hosts[other], "-j", "DROP")

    def cut_ports(self, node: int, ports: Iterable[int]) -> None:
        """Drops what goes between this node and these TCP ports of the others, and between them and its own."""
        for port in ports:
            for chain in ("INPUT", "OUTPUT"):
                for flag in ("--sport", "--dport"):
                    rule = ["-i" if chain == "INPUT" else "-o", "eth0", "-p", "tcp", flag, str(port), "-j", "DROP"]
                    self._in(node, "iptables", "-w", "-A", chain, *rule)

    def heal(self, node: int) -> None:
        """Drops nothing any more."""
        self._in(node, "iptables", "-w", "-F")

    def reaches(self, host: str, port: int, limit_s: float = 1.0) -> bool:
        """Whether the hub gets a connection."""
        command = ["timeout", str(limit_s), "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    @contextmanager
    def inside(self, node: int) -> Iterator[None]:
        """Threads that begin here (a client's among them) live in the node's network."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{_name(node)}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def _in(self, node: int, *command: str) -> None:
        _run("ip", "netns", "exec", _name(node), *command)


def _name(node: int) -> str:
    return f"node{node}"


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"{' '.join(command)}: {done.stderr.strip()}")
