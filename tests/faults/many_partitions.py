"""Thousands of partitions: how long creation, a failover and a restart take, and how much memory (F-1, F-5)."""

import time
from collections.abc import Mapping

from confluent_kafka.admin import AdminClient, NewTopic

from faults import raw
from faults.cases import World, case
from faults.verify import FAILOVER_LIMIT_S, HEAL_LIMIT_S
from harness import topics
from harness.load import SteadyLoad
from harness.ottla import OttlaProcesses
from harness.waiting import until

_MIB = 1 << 20
_TOPIC_PARTITIONS = 1_000
_RATE = 1_000.0
#: F-5: everything back.
_RESTART_LIMIT_S = 60.0


@case("many-partitions")
def one_thousand(world: World) -> None:
    """1,000 partitions of replication factor 3"""
    _many(world, 1)


@case("many-partitions-5000", long=True)
def five_thousand(world: World) -> None:
    """5,000 partitions of replication factor 3, in five topics"""
    _many(world, 5)


@case("many-partitions-10000", long=True)
def ten_thousand(world: World) -> None:
    """10,000 partitions of replication factor 3, in ten topics"""
    _many(world, 10)


def _many(world: World, count: int) -> None:
    names = [f"many-{number}" for number in range(count)]
    total = count * _TOPIC_PARTITIONS
    cluster = world.cluster()
    cluster.removed_behind = True
    with cluster:
        empty = _memory(cluster)
        client = topics.admin(cluster.bootstrap)
        began = time.monotonic()
        for name in names:
            _create(client, cluster, name)
        took = time.monotonic() - began
        world.in_force(f"{total:,} partitions exist and are led")
        world.measure(f"{total:,} partitions created and led", f"{took:.1f} s, {took / count:.2f} s a thousand")
        _report_memory(world, "at rest", empty, _memory(cluster), total)
        with SteadyLoad(cluster.bootstrap, names[0], _TOPIC_PARTITIONS, _RATE) as load:
            until("a record acknowledged on every partition", 60, lambda: _served(load, 0.0), poll_s=0.2)
            world.measure("each of the first topic acknowledges", f"{time.monotonic() - began:.1f} s after that began")
            _fail_over(world, cluster, names, load)
            _restart(world, cluster, names)
        _report_memory(world, "after it all", empty, _memory(cluster), total)
        _stop(world, cluster)
        world.violations += [f"produce: {error}" for error in load.acks.errors]
        world.verdict()


def _fail_over(world: World, cluster: OttlaProcesses, names: list[str], load: SteadyLoad) -> None:
    """One SIGKILL: until every partition is led elsewhere, and until each of the first topic acknowledges again."""
    victim = cluster.node_ids[-1]
    others = [node for node in cluster.node_ids if node != victim]
    killed = cluster.kill(victim)
    until("every partition led elsewhere", HEAL_LIMIT_S, lambda: _all_led(cluster, others, names, victim))
    led = time.monotonic() - killed
    world.measure("SIGKILL of one node: all led elsewhere, as metadata tells", f"{led * 1000:,.0f} ms")
    world.check(led <= FAILOVER_LIMIT_S, "F-1", f"all led after {led:.1f} s")
    until("an acknowledgement on every partition", HEAL_LIMIT_S, lambda: _served(load, killed), poll_s=0.1)
    first_acks = load.first_acks_after(killed, 0)
    # The load comes round to each partition once a second.
    world.measure("and all of the first topic acknowledge", f"{max(first_acks.values()) * 1000:,.0f} ms")


def _restart(world: World, cluster: OttlaProcesses, names: list[str]) -> None:
    victim = cluster.node_ids[-1]
    began = time.monotonic()
    cluster.restart(victim)
    ready = time.monotonic() - began
    until("every ISR full", _RESTART_LIMIT_S, lambda: _all_in_sync(cluster, names), poll_s=0.1)
    whole = time.monotonic() - began
    world.measure("restart of that node under load", f"ready after {ready:.1f} s, every ISR full after {whole:.1f} s")
    world.check(whole <= _RESTART_LIMIT_S, "F-5", f"whole after {whole:.1f} s")


def _stop(world: World, cluster: OttlaProcesses) -> None:
    """A graceful stop of one node is over within its limit."""
    began = time.monotonic()
    cluster.stop(cluster.node_ids[-1])
    world.measure("graceful stop of one node", f"{time.monotonic() - began:.1f} s")


def _create(client: AdminClient, cluster: OttlaProcesses, name: str) -> None:
    request = NewTopic(name, _TOPIC_PARTITIONS, 3, config={"min.insync.replicas": "2"})
    client.create_topics([request], operation_timeout=60, request_timeout=60)[name].result(60)
    until(f"leaders of {name}", 60, lambda: _all_led(cluster, list(cluster.node_ids), [name], -1), poll_s=0.05)


def _all_led(cluster: OttlaProcesses, ask: list[int], names: list[str], without: int) -> bool:
    """Whether every one of these nodes names leaders, none of them the one that is gone."""
    for node in ask:
        address = ("127.0.0.1", cluster.nodes[node].kafka_port)
        for name in names:
            found = raw.describe([address], name)
            if len(found) < _TOPIC_PARTITIONS or any(p.leader in (-1, without) for p in found.values()):
                return False
    return True


def _all_in_sync(cluster: OttlaProcesses, names: list[str]) -> bool:
    address = ("127.0.0.1", cluster.nodes[1].kafka_port)
    for name in names:
        found = raw.describe([address], name)
        if len(found) < _TOPIC_PARTITIONS or any(len(p.isr) < 3 for p in found.values()):
            return False
    return True


def _served(load: SteadyLoad, since: float) -> bool:
    return len(load.first_acks_after(since, 0)) == _TOPIC_PARTITIONS


def _memory(cluster: OttlaProcesses) -> dict[int, float]:
    return {node: cluster.rss_bytes(node) / _MIB for node in cluster.node_ids}


def _report_memory(
    world: World, when: str, empty: Mapping[int, float], now: Mapping[int, float], partitions: int
) -> None:
    said = ", ".join(f"node {node}: {mib:.0f} MiB" for node, mib in now.items())
    growth = max(now[node] - empty[node] for node in now) / partitions * 1024
    world.measure(f"memory {when}", f"{said} (at most {growth:.0f} KiB a replica)")
