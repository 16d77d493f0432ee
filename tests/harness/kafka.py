"""Apache Kafka from KAFKA_HOME: the peer that every expectation can be proven against."""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.local import LocalCluster, run_directory
from harness.ports import free_block
from harness.process import Process

_STARTED = b"Kafka Server started"


def kafka_home() -> Path | None:
    """Where Kafka's tools are, if the environment says so."""
    home = os.environ.get("KAFKA_HOME")
    return Path(home) if home else None


#: For short-lived tools: a small JVM that starts fast and never compiles well.
QUICK_JVM = {"KAFKA_HEAP_OPTS": "-Xmx128M", "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"}
#: For tools that are measured: Kafka's own choice of options.
FULL_JVM = {"KAFKA_HEAP_OPTS": "-Xmx512M"}


def tool(
    home: Path, name: str, *arguments: str | Path, stdin: str | None = None, limit_s: float = 60,
    jvm: Mapping[str, str] = QUICK_JVM,
) -> str:
    """Runs `bin/NAME`; its output. An exit code other than 0 is an error."""
    command = [str(home / "bin" / name), *map(str, arguments)]
    done = subprocess.run(
        command, input=stdin, text=True, capture_output=True, timeout=limit_s, env={**os.environ, **jvm}, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


class KafkaNodes(LocalCluster):
    """Three combined nodes, made by Kafka's `three-nodes.py` and restarted as it starts them."""

    name = "Apache Kafka"
    heal_limit_s = 120.0
    # The JVM ends with 143 on SIGTERM, after its shutdown hooks.
    clean_exits = (0, 143)

    def __init__(
        self, home: Path, extra: Mapping[str, str] | None = None, flush: bool = False, heap: str = "512m"
    ) -> None:
        # three-nodes.py insists on making its directory itself.
        super().__init__(run_directory("kafka"), "cluster")
        self._home = home
        self._extra = extra or {}
        self._flush, self._heap = flush, heap
        self._port = free_block(20)
        self._log_start: dict[int, int] = {}
        self.node_ids = self.broker_ids = (1, 2, 3)
        self.bootstrap = ",".join(f"127.0.0.1:{self._port + n - 1}" for n in self.node_ids)

    def start(self) -> None:
        command: list[str] = [str(self._home / "bin/three-nodes.py"), "up", str(self.directory)]
        command += ["--port", str(self._port), "--heap", self._heap, *(["--flush"] if self._flush else [])]
        for key, value in self._extra.items():
            command += ["--set", f"{key}={value}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        for node in self.node_ids:
            pid = self.directory / f"node-{node}.pid"
            if pid.exists():
                self._processes[node] = Process(int(pid.read_text()))
        if done.returncode != 0:
            raise RuntimeError(f"three-nodes.py up: {done.stdout}{done.stderr}")
        self.began = time.monotonic() - json.loads(done.stdout)["seconds"]

    def start_node(self, node: int) -> None:
        log = self.log_path(node)
        self._log_start[node] = log.stat().st_size
        environment = dict(
            os.environ,
            KAFKA_HEAP_OPTS=f"-Xms{self._heap} -Xmx{self._heap}",
            KAFKA_LOG4J_CONFIG=str(self._home / "config/server-log4j2.properties"),
        )
        command = [self._home / "bin/kafka-server-start.sh", self.directory / f"node-{node}.properties"]
        self._processes[node] = Process.spawn(command, log, environment)

    def is_serving(self, node: int) -> bool:
        with self.log_path(node).open("rb") as log:
            log.seek(self._log_start[node])
            return _STARTED in log.read()

    def active_controller(self) -> int | None:
        try:
            status = self.tool("kafka-metadata-quorum.sh", ["describe", "--status"])
        except (RuntimeError, subprocess.TimeoutExpired):
            return None
        leader = re.search(r"LeaderId:\s+(\d+)", status)
        return int(leader[1]) if leader else None

    def tool(self, name: str, arguments: Sequence[str]) -> str:
        """Runs one of Kafka's tools against the running nodes."""
        return tool(self._home, name, "--bootstrap-server", self.bootstrap, *arguments, limit_s=20)
