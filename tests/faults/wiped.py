"""A node whose data are gone comes back as a new directory and a new voter (P-14, P-30, C-14, R-14)."""

import shutil
import time
import uuid
from collections.abc import Mapping
from functools import partial

from faults import raw
from faults.cases import World, case
from faults.flow import flows, run_for, slowest, warm_up
from faults.quorum import directory_id, voters
from faults.verify import CONTROLLER_LIMIT_S, FAILOVER_LIMIT_S, create_topic, verify
from harness import topics
from harness.load import SteadyLoad
from harness.ottla import OttlaProcesses
from harness.waiting import LimitExceeded, until

TOPIC, PARTITIONS, RATE = "wiped", 12, 1_200.0
_REPLACED_LIMIT_S = 20.0


@case("wiped")
def wiped(world: World) -> None:
    """a node is killed, its data directory removed, and it is started again, under load"""
    _wipe(world, active=False)


@case("wiped-controller")
def wiped_controller(world: World) -> None:
    """the same with the node of the active controller"""
    _wipe(world, active=True)


def _wipe(world: World, active: bool) -> None:
    with world.cluster() as cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS, seconds=2)
            first = until("an active controller", 30, cluster.active_controller)
            victim = first if active else next(node for node in cluster.node_ids if node != first)
            data = cluster.data_dir(victim)
            before, voters_before = directory_id(data), voters(("127.0.0.1", cluster.nodes[victim].kafka_port))
            began = cluster.kill(victim)
            shutil.rmtree(data)
            world.in_force(f"node {victim}{', the active controller,' if active else ''} is killed, its data are gone")
            run_for(load, 1)
            cluster.restart(victim)
            world.measure("ready", f"{time.monotonic() - began:.1f} s after the kill")
            world.check(directory_id(data) != before, "P-30", "it came back with its old directory id")
            _is_never_elected_empty(world, cluster, victim)
            topics.wait_in_sync(cluster, TOPIC)
            world.measure("every ISR full, under load", f"{time.monotonic() - began:.1f} s after the kill")
            world.measure("longest stall", f"{slowest(load, began) * 1000:,.0f} ms")
            _votes(world, cluster, victim, voters_before)
            flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
        verify(world, cluster, TOPIC, load)
        world.verdict()


def _is_never_elected_empty(world: World, cluster: OttlaProcesses, victim: int) -> None:
    """It leads only what it is in sync with: a new directory begins outside every ISR (R-14)."""
    addresses = [("127.0.0.1", cluster.nodes[node].kafka_port) for node in cluster.node_ids if node != victim]
    found = raw.describe(addresses, TOPIC)
    led = [number for number, p in found.items() if p.leader == victim]
    early = [number for number in led if victim not in found[number].isr]
    world.check(not early, "P-30, C-7", f"it leads {early} without being in the ISR")
    world.step(f"once ready it leads {led}, and is in the ISR of {[n for n, p in found.items() if victim in p.isr]}")


def _votes(world: World, cluster: OttlaProcesses, victim: int, before: Mapping[int, uuid.UUID]) -> None:
    """C-14: the new identity is a voter, which shows once one of the others is gone: two of three still decide."""

    address = ("127.0.0.1", cluster.nodes[victim].kafka_port)
    began = time.monotonic()

    def replaced() -> bool:
        now = voters(address)
        return now.keys() == before.keys() and {node for node in now if now[node] != before[node]} == {victim}

    try:
        until("a vote for the new directory", _REPLACED_LIMIT_S, replaced, poll_s=0.1)
        world.step(f"the new directory votes, {time.monotonic() - began:.1f} s later")
    except LimitExceeded as error:
        world.check(False, "C-14", f"{error}: {voters(address)}, it was {before}")
    active = until("an active controller", 30, cluster.active_controller)
    gone = active if active != victim else next(node for node in cluster.node_ids if node != victim)
    killed = cluster.kill(gone)
    left = [node for node in cluster.node_ids if node != gone]
    world.step(f"node {gone} is killed: nodes {left} must decide alone")
    try:
        until("an active controller", 2 * CONTROLLER_LIMIT_S, partial(cluster.active_controller))
        create_topic(world, cluster, "decided", "C-14, F-3", 2 * CONTROLLER_LIMIT_S, left)
        world.step(f"decided {time.monotonic() - killed:.1f} s after the kill")
    except LimitExceeded as error:
        world.check(False, "C-14", f"nodes {left}: {error}")
    cluster.restart(gone)
    topics.wait_in_sync(cluster, TOPIC)
