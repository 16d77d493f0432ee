"""The compose cluster of `deploy/docker-compose.yml`."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import http
from harness.cluster import READY_LIMIT_S, STOP_LIMIT_S, Cluster
from harness.waiting import LimitExceeded, until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BASE_IMAGE = "ottla-base:bookworm"
IMAGE = "ottla:test"
_HTTP_PORT = 8080


def engine_missing() -> str | None:
    """Why no container can be started here, or None."""
    for command in (["docker", "info"], [*_compose(), "version"]):
        if shutil.which(command[0]) is None:
            return f"{command[0]} is not installed"
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            return f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}"
    return None


def build_image(binary: Path) -> None:
    """The runtime image around a binary built on this host, on a base made from Debian packages."""
    _run(["bash", str(DEPLOY / "make-base-image.sh"), BASE_IMAGE], limit_s=600, show=True)
    _run(["bash", str(DEPLOY / "build-image.sh"), str(binary), IMAGE], limit_s=600)


class OttlaContainers(Cluster):
    """Three services, reached from the host on the ports that the compose file publishes."""

    name = "Ottla (docker compose)"
    bootstrap = "localhost:9092,localhost:19092,localhost:29092"
    heal_limit_s = 90.0

    def __init__(self) -> None:
        self._project = f"ottla-test-{os.getpid()}"
        services = sorted(self._compose("config", "--services").split())
        self._services = {int(re.sub(r"\D", "", name)): name for name in services}
        self.node_ids = self.broker_ids = tuple(self._services)
        self._containers: dict[int, str] = {}

    def start(self) -> None:
        self.began = time.monotonic()
        self._compose("up", "--detach", "--no-build")
        for node, service in self._services.items():
            self._containers[node] = self._compose("ps", "--quiet", service).strip()
        for node in self.node_ids:
            self.wait_ready(node)

    def start_node(self, node: int) -> None:
        _run(["docker", "start", self._containers[node]])

    def kill(self, *nodes: int) -> float:
        now = time.monotonic()
        containers = [self._containers[node] for node in nodes]
        _run(["docker", "kill", "--signal", "KILL", *containers])
        _run(["docker", "wait", *containers])
        return now

    def stop(self, node: int, limit_s: float = STOP_LIMIT_S) -> None:
        _run(["docker", "stop", "--time", str(int(limit_s)), self._containers[node]], limit_s + 30)
        code = self._inspect(node)["State"]["ExitCode"]
        if code != 0:
            raise RuntimeError(f"node {node} ended with {code} after docker stop")

    def wait_ready(self, node: int, limit_s: float = READY_LIMIT_S) -> None:
        def ready() -> bool:
            if not self._inspect(node)["State"]["Running"]:
                raise LimitExceeded(f"the container of node {node} ended during its start")
            return http.is_ready(self._http(node))

        until(f"node {node} of {self.name} ready", limit_s, ready, poll_s=0.1)

    def active_controller(self) -> int | None:
        for node in self.node_ids:
            running = self._inspect(node)["State"]["Running"]
            if running and http.metric(self._http(node), http.ACTIVE_CONTROLLER) == 1:
                return node
        return None

    def rss_bytes(self, node: int) -> int:
        status = Path(f"/proc/{self._inspect(node)['State']['Pid']}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) * 1024 if found else 0

    def cpu_seconds(self) -> float:
        return 0.0  # Not measured in containers.

    def log_tail(self, node: int, lines: int) -> str:
        if node not in self._containers:
            return "(no container)"
        command = ["docker", "logs", "--tail", str(lines), self._containers[node]]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.stdout

    def close(self, failed: bool) -> None:
        self._compose("down", "--volumes", "--timeout", "1" if failed else "30", limit_s=180)

    def _http(self, node: int) -> tuple[str, int]:
        """The published port where there is one, else the container's own address on its network."""
        network = self._inspect(node)["NetworkSettings"]
        published = network["Ports"].get(f"{_HTTP_PORT}/tcp")
        if published:
            return "127.0.0.1", int(published[0]["HostPort"])
        address = next(iter(network["Networks"].values()))["IPAddress"]
        return address, _HTTP_PORT

    def _inspect(self, node: int) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(_run(["docker", "inspect", self._containers[node]]))
        return found[0]

    def _compose(self, *arguments: str, limit_s: float = 120) -> str:
        command = [*_compose(), "--file", str(DEPLOY / "docker-compose.yml"), "--project-name", self._project]
        return _run([*command, *arguments], limit_s)


def _compose() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False) if shutil.which(
        "docker"
    ) else None
    return ["docker", "compose"] if plugin and plugin.returncode == 0 else ["docker-compose"]


def _run(command: list[str], limit_s: float = 60, show: bool = False) -> str:
    environment = {**os.environ, "OTTLA_IMAGE": IMAGE, "OTTLA_BASE_IMAGE": BASE_IMAGE}
    output = None if show else subprocess.PIPE
    done = subprocess.run(
        command, stdout=output, stderr=output, text=True, timeout=limit_s, env=environment, check=False
    )
    if done.returncode != 0:
        print(f"{done.stdout or ''}{done.stderr or ''}", file=sys.stderr)
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}")
    return done.stdout or ""
