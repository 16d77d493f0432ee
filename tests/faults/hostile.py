"""Bytes that nobody sane would send, on every port, while a producer works (X-1, X-2)."""

import subprocess
import sys
import time
from pathlib import Path

from faults import hostile_client
from faults.cases import World, case
from faults.flow import flows, slowest, warm_up
from faults.verify import FAILOVER_LIMIT_S, verify
from harness import http, topics
from harness.load import SteadyLoad
from harness.ottla import OttlaProcesses
from harness.waiting import LimitExceeded, until

TOPIC, PARTITIONS, RATE = "hostile", 12, 600.0
_CONNECTIONS = "kafka_server_socketservermetrics_connection_count"
_MIB = 1 << 20
#: What a node may grow by while it is attacked. 500 connections may each hold some tens of KiB.
_GROWTH_MIB = 96
#: How much a producer may notice.
_STALL_LIMIT_S = 1.0


@case("hostile")
def hostile(world: World) -> None:
    """random bytes, absurd frames, half frames, slow writers and 500 connections on every port"""
    with world.cluster() as cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS, seconds=2)
            before = {node: cluster.rss_bytes(node) for node in cluster.node_ids}
            connections = _open_connections(cluster)
            peak = dict(before)
            began = time.monotonic()
            for attack in hostile_client.ATTACKS:
                _attack(world, cluster, attack, peak)
            flowing = flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
            world.check(flowing is not None, "under attack", "produce stands still")
            stall = slowest(load, began)
            world.measure("longest stall of the producer", f"{stall * 1000:,.0f} ms")
            world.check(stall < _STALL_LIMIT_S, "under attack", f"a partition stood still for {stall:.1f} s")
            grown = {node: (peak[node] - before[node]) / _MIB for node in before}
            world.measure("growth at most", ", ".join(f"node {n}: {mib:.0f} MiB" for n, mib in grown.items()))
            world.check(max(grown.values()) < _GROWTH_MIB, "memory", f"memory grew by {grown} MiB")
            _connections_are_gone(world, cluster, connections)
        _says_nothing_of_panics(world, cluster)
        verify(world, cluster, TOPIC, load)
        world.verdict()


def _attack(world: World, cluster: OttlaProcesses, attack: str, peak: dict[int, int]) -> None:
    """One attack on every port of every node, from a process of its own."""
    ports = [
        f"{node.host}:{port}" for node in cluster.nodes.values()
        for port in (node.kafka_port, node.controller_port, node.replication_port, node.http[1])
    ]
    began = time.monotonic()
    client = subprocess.Popen(
        [sys.executable, "-m", "faults.hostile_client", attack, *ports], stdout=subprocess.PIPE, text=True
    )
    try:
        while client.poll() is None:
            for node in cluster.node_ids:
                if not cluster.is_running(node):
                    world.check(False, "X-1", f"{attack}: node {node} ended")
                    return
                peak[node] = max(peak[node], cluster.rss_bytes(node))
            time.sleep(0.05)
    finally:
        client.kill()
        said = client.communicate()[0].strip()
    world.check(client.returncode == 0, "probe", f"{attack} ended with {client.returncode}: {said}")
    world.in_force(f"{attack}: {said} ({time.monotonic() - began:.1f} s)")


def _open_connections(cluster: OttlaProcesses) -> float:
    return sum(http.metric(node.http, _CONNECTIONS) or 0 for node in cluster.nodes.values())


def _connections_are_gone(world: World, cluster: OttlaProcesses, before: float) -> None:
    try:
        until("as many connections as before", 10, lambda: _open_connections(cluster) <= before + 3, poll_s=0.2)
    except LimitExceeded as error:
        world.check(False, "connections", f"{error}: {_open_connections(cluster):.0f}, there were {before:.0f}")


def _says_nothing_of_panics(world: World, cluster: OttlaProcesses) -> None:
    for node in cluster.node_ids:
        log = Path(cluster.log_path(node)).read_text(errors="replace")
        world.check("panic" not in log, "X-2", f"the log of node {node} tells of a panic")
        lines = log.count("\n")
        world.check(lines < 20_000, "X-1", f"node {node} wrote {lines:,} lines")
