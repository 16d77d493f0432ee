"""The `server.properties` of a node, on loopback unless its host is another."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Properties = dict[str, str]

PORTS_PER_NODE = 4


@dataclass(frozen=True)
class Node:
    """One node of a cluster: its roles, its address and ports, its place on disk."""

    id: int
    roles: tuple[str, ...]
    first_port: int
    directory: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"

    @property
    def is_broker(self) -> bool:
        """Whether clients connect to it."""
        return "broker" in self.roles

    @property
    def is_controller(self) -> bool:
        """Whether it votes."""
        return "controller" in self.roles

    @property
    def kafka_port(self) -> int:
        """Where clients connect."""
        return self.first_port

    @property
    def controller_port(self) -> int:
        """Where controllers and brokers reach the controller role."""
        return self.first_port + 1

    @property
    def replication_port(self) -> int:
        """Where followers fetch."""
        return self.first_port + 2

    @property
    def http(self) -> tuple[str, int]:
        """Health and metrics."""
        return self.host, self.first_port + 3

    @property
    def data(self) -> Path:
        """Its log directory."""
        return Path(self.extra.get("log.dirs", self.directory / f"data-{self.id}"))

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.directory / f"node-{self.id}.log"


def render(node: Node, voters: Iterable[Node]) -> str:
    """The file for `node` in a cluster with these voters."""
    listeners, advertised = [], []
    if node.is_broker:
        advertised = [
            f"PLAINTEXT://{node.host}:{node.kafka_port}", f"REPLICATION://{node.host}:{node.replication_port}",
        ]
        listeners += advertised
    if node.is_controller:
        listeners.append(f"CONTROLLER://{node.host}:{node.controller_port}")
    values: Properties = {
        "process.roles": ",".join(node.roles),
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{v.id}@{v.host}:{v.controller_port}" for v in voters),
        "listeners": ",".join(listeners),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,REPLICATION:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "http.listener": "{}:{}".format(*node.http),
        "log.dirs": str(node.data),
    }
    if node.is_broker:
        values["advertised.listeners"] = ",".join(advertised)
        values["inter.broker.listener.name"] = "REPLICATION"
    values |= node.extra
    return "".join(f"{key}={value}\n" for key, value in values.items())
