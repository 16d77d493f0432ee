"""A disk without space (P-23, S-7)."""

import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from faults import raw
from faults.cases import World, case
from faults.disks import SmallDisk
from faults.flow import flows, run_for, slowest, warm_up
from faults.shim import Shim
from faults.verify import (
    CONTROLLER_LIMIT_S, FAILOVER_LIMIT_S, FOLLOWER_LIMIT_S, HEAL_LIMIT_S, create_topic, leaders, verify,
)
from harness import http, topics
from harness.cluster import Violation
from harness.load import SteadyLoad
from harness.logread import LogReader
from harness.ottla import OttlaProcesses
from harness.waiting import LimitExceeded, until

TOPIC, PARTITIONS, RATE, RECORD_BYTES = "full-disk", 12, 600.0, 1_000
_VICTIM = 3
_TOPICS = 60
#: Of crates/server/src/exit.rs.
_FATAL = 3
_NO_FLOORS = {"ottla.produce.free.bytes.min": "0", "ottla.replication.free.bytes.min": "0"}
_REJECTIONS = "ottla_broker_no_space_rejections_total"
_APPLIED = "kafka_controller_kafkacontroller_lastappliedrecordoffset"


@case("full-disk", "mount")
def full_disk(world: World) -> None:
    """a log directory falls below its floors of free space, and gets space back"""
    disk = SmallDisk(world.directory, "log", 256)
    cluster = world.cluster(only={_VICTIM: _on(disk, world.directory)})
    world.step(f"node {_VICTIM}: log.dirs on {disk.kind}, {disk.free_bytes >> 20} MiB free")
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE, RECORD_BYTES) as load:
            warm_up(load, PARTITIONS)
            disk.fill(leave_mib=48)
            until("the node to notice", 10, lambda: "produce_blocked=true" in cluster.log_tail(_VICTIM, 200))
            world.in_force(f"node {_VICTIM} refuses produce: {disk.free_bytes >> 20} MiB are free, 64 its floor")
            _goes_on(world, cluster, load, "below the produce floor")
            disk.fill()
            world.in_force(f"{disk.free_bytes} bytes are free")
            _goes_on(world, cluster, load, "full")
            _leaves_the_isr(world, cluster)
            _heals(world, cluster, disk, load)
        verify(world, cluster, TOPIC, load)
        world.verdict()


@case("full-disk-enospc", "mount")
def full_disk_enospc(world: World) -> None:
    """the file system itself refuses: no floors, ENOSPC in the middle of the load"""
    disk = SmallDisk(world.directory, "log", 128)
    cluster = world.cluster(only={_VICTIM: {**_on(disk, world.directory), **_NO_FLOORS}})
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE, RECORD_BYTES) as load:
            warm_up(load, PARTITIONS)
            disk.fill()
            world.in_force(f"{disk.free_bytes} bytes are free on {disk.kind}")
            _goes_on(world, cluster, load, "full")
            _leaves_the_isr(world, cluster)
            rejections = http.metric(cluster.nodes[_VICTIM].http, _REJECTIONS)
            world.step(f"node {_VICTIM} refused {rejections or 0:.0f} produces for want of space")
            _heals(world, cluster, disk, load)
        verify(world, cluster, TOPIC, load)
        world.verdict()


@case("full-disk-metadata", "mount")
def full_disk_metadata(world: World) -> None:
    """the active controller's metadata directory is full, and gets space back"""
    disks = {node: SmallDisk(world.directory, f"meta-{node}", 64) for node in (1, 2, 3)}
    cluster = world.cluster(only={node: {"metadata.log.dir": str(disk.path)} for node, disk in disks.items()})
    for node, disk in disks.items():
        # Not every file system gives a write-ahead log its blocks in advance; where it has them, nothing is full.
        shim = Shim(world.directory, disk.path)
        shim.plan("fallocate-eio")
        cluster.launch[node] = shim.launch
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS)
            victim = until("an active controller", 30, cluster.active_controller)
            began = time.monotonic()
            disks[victim].fill()
            world.in_force(f"{disks[victim].free_bytes} bytes are free for the metadata of node {victim}, the active")
            _many_topics(world, cluster)
            active = until("an active controller", 30, cluster.active_controller)
            world.step(f"the active controller is node {active}")
            run_for(load, 1)
            flowing = flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
            world.check(flowing is not None, "P-23", "produce stands still while a metadata directory is full")
            world.measure("longest stall of a produce", f"{slowest(load, began) * 1000:,.0f} ms")
            _stopped_or_going_on(world, cluster, victim)
            disks[victim].release()
            if not cluster.is_running(victim):
                cluster.restart(victim)
            _all_applied(world, cluster)
            flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
        verify(world, cluster, TOPIC, load)
        world.verdict()


def _stopped_or_going_on(world: World, cluster: OttlaProcesses, victim: int) -> None:
    """A store that cannot write stops its node with the reason (S-11), so that an orchestrator sees it."""
    if cluster.process(victim).alive:
        world.step(f"node {victim} goes on")
        return
    code = cluster.await_end(victim, 1)
    reasons = [line for line in cluster.log_tail(victim, 40).splitlines() if "ERROR" in line and "space" in line]
    world.measure("the node with the full metadata directory", f"ended with {code}")
    world.check(code == _FATAL, "S-11", f"it ended with {code}")
    world.check(bool(reasons), "S-11", "its log does not name the full disk")


def _many_topics(world: World, cluster: OttlaProcesses) -> None:
    """Metadata goes on, asked of whichever node answers."""
    slowest_s = 0.0
    addresses = itertools.cycle([("127.0.0.1", node.kafka_port) for node in cluster.nodes.values()])
    for number in range(_TOPICS):
        began, name = time.monotonic(), f"meanwhile-{number}"
        try:
            until(name, 2 * CONTROLLER_LIMIT_S, partial(_is_created, addresses, name))
        except LimitExceeded as error:
            world.check(False, "P-23, F-3", str(error))
            return
        slowest_s = max(slowest_s, time.monotonic() - began)
    world.measure(f"slowest of {_TOPICS} topics created", f"{slowest_s * 1000:,.0f} ms")
    world.check(slowest_s <= CONTROLLER_LIMIT_S, "F-3", f"a topic took {slowest_s:.1f} s")


def _is_created(addresses: Iterator[tuple[str, int]], name: str) -> bool:
    return raw.create(next(addresses), name, 1, 2.0) is None


def _on(disk: SmallDisk, directory: Path) -> dict[str, str]:
    return {"log.dirs": str(disk.path), "metadata.log.dir": str(directory / "metadata")}


def _goes_on(world: World, cluster: OttlaProcesses, load: SteadyLoad, state: str) -> None:
    """Every partition acknowledges again, elsewhere; what is there can be read; topics can be made."""
    began = time.monotonic()
    if flows(load, range(PARTITIONS), FOLLOWER_LIMIT_S) is None:
        led = leaders(topics.admin(cluster.bootstrap), TOPIC)
        open_since = load.first_acks_after(began, 0).keys()
        stuck = {number: led.get(number) for number in range(PARTITIONS) if number not in open_since}
        world.check(False, "P-23, F-1", f"{state}: no acknowledgement in {FOLLOWER_LIMIT_S:.0f} s; leaders: {stuck}")
    else:
        world.measure(f"{state}: longest stall", f"{slowest(load, began) * 1000:,.0f} ms")
    led_here = [n for n, leader in leaders(topics.admin(cluster.bootstrap), TOPIC).items() if leader == _VICTIM]
    world.step(f"{state}: node {_VICTIM} leads {led_here}")
    promised = len(load.acks.places())
    reader = LogReader(cluster.bootstrap, TOPIC, limit_s=30)
    read = sum(1 for _ in reader)
    world.check(read >= promised, "P-23", f"{state}: {read} records can be read of {promised} acknowledged")
    create_topic(world, cluster, f"{state.replace(' ', '-')}-topic", "P-23, F-3", CONTROLLER_LIMIT_S)


def _leaves_the_isr(world: World, cluster: OttlaProcesses) -> None:
    client = topics.admin(cluster.bootstrap)

    def left() -> bool:
        found = topics.describe(client, TOPIC)
        return bool(found) and all(_VICTIM not in p.isr for p in found.values())

    began = time.monotonic()
    try:
        until("the full replica out of every ISR", FOLLOWER_LIMIT_S, left)
    except LimitExceeded as error:
        found = topics.describe(client, TOPIC) or {}
        inside = [number for number, p in found.items() if _VICTIM in p.isr]
        world.check(False, "P-23", f"{error}: still in that of {inside}")
        return
    world.step(f"node {_VICTIM} is in no ISR, {time.monotonic() - began:.1f} s later")


def _heals(world: World, cluster: OttlaProcesses, disk: SmallDisk, load: SteadyLoad) -> None:
    if not cluster.process(_VICTIM).alive:
        raise Violation([*world.violations, f"P-23: node {_VICTIM} ended"])
    began = time.monotonic()
    disk.release()
    world.step(f"space returns: {disk.free_bytes >> 20} MiB")
    client = topics.admin(cluster.bootstrap)

    def whole() -> bool:
        found = topics.describe(client, TOPIC)
        return bool(found) and all(len(p.isr) == 3 for p in found.values())

    try:
        until("every ISR full", HEAL_LIMIT_S, whole, poll_s=0.1)
    except LimitExceeded as error:
        world.check(False, "P-23, F-6", f"{error}, without a restart")
        return
    world.measure("space returned to every ISR full, under load", f"{time.monotonic() - began:.1f} s")
    offline = http.metric(cluster.nodes[_VICTIM].http, "kafka_log_logmanager_offlinelogdirectorycount")
    world.check(offline == 0, "P-23", f"offline log directories: {offline}")
    flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)


def _all_applied(world: World, cluster: OttlaProcesses) -> None:
    """All three controllers hold the same metadata."""

    def level() -> bool:
        applied = [http.metric(node.http, _APPLIED) for node in cluster.nodes.values()]
        return None not in applied and len(set(applied)) == 1

    try:
        until("equal metadata on every controller", HEAL_LIMIT_S, partial(level), poll_s=0.2)
    except LimitExceeded as error:
        applied = {node.id: http.metric(node.http, _APPLIED) for node in cluster.nodes.values()}
        world.check(False, "P-23, C-13", f"{error}: {applied}")
