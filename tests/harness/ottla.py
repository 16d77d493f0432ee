"""`ottla server` processes, on loopback or at addresses of their own."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness import http
from harness.local import LocalCluster, run_directory
from harness.ports import free_block
from harness.process import Process
from harness.properties import PORTS_PER_NODE, Node, render


@dataclass(frozen=True)
class Launch:
    """How a node's process is started: words before its command, variables on top of the environment."""

    prefix: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


class OttlaProcesses(LocalCluster):
    """Combined nodes 1 to `brokers`; or brokers alone with `controllers` dedicated nodes from 101 on.

    `extra`: properties of every node; `only`: those of single nodes on top; `hosts`: addresses other than loopback.
    """

    name = "Ottla (processes)"

    def __init__(
        self, binary: Path, brokers: int = 3, controllers: int = 0, extra: Mapping[str, str] | None = None,
        only: Mapping[int, Mapping[str, str]] | None = None, hosts: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(run_directory("ottla"))
        self._binary = binary
        #: How a node is started the next time, where it is not the plain command.
        self.launch: dict[int, Launch] = {}
        first = free_block(PORTS_PER_NODE * (brokers + controllers))
        roles = ("broker",) if controllers else ("broker", "controller")
        plan = [(n, roles) for n in range(1, brokers + 1)]
        plan += [(n, ("controller",)) for n in range(101, 101 + controllers)]
        self.nodes = {
            n: Node(
                n, roles, first + place * PORTS_PER_NODE, self.directory,
                {**(extra or {}), **(only or {}).get(n, {})}, (hosts or {}).get(n, "127.0.0.1"),
            )
            for place, (n, roles) in enumerate(plan)
        }
        self.node_ids = tuple(self.nodes)
        self.broker_ids = tuple(n.id for n in self.nodes.values() if n.is_broker)
        self.bootstrap = ",".join(f"{n.host}:{n.kafka_port}" for n in self.nodes.values() if n.is_broker)
        voters = [n for n in self.nodes.values() if n.is_controller]
        for node in self.nodes.values():
            self._config(node.id).write_text(render(node, voters))

    def start(self) -> None:
        self.began = time.monotonic()
        for node in self.nodes:
            self.start_node(node)
        for node in self.nodes:
            self.wait_ready(node)

    def start_node(self, node: int) -> None:
        launch = self.launch.get(node, Launch())
        command = [*launch.prefix, str(self._binary), "server", "--config", str(self._config(node))]
        self._processes[node] = Process.spawn(command, self.log_path(node), {**os.environ, **launch.env})

    def data_dir(self, node: int) -> Path:
        return self.nodes[node].data

    def is_serving(self, node: int) -> bool:
        return http.is_ready(self.nodes[node].http)

    def active_controller(self) -> int | None:
        for node in self.nodes.values():
            running = node.is_controller and node.id in self._processes
            if running and http.metric(node.http, http.ACTIVE_CONTROLLER) == 1:
                return node.id
        return None

    def _config(self, node: int) -> Path:
        return self.directory / f"node-{node}.properties"
