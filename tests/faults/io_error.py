"""A disk that answers EIO (P-25, S-6): the directory is failed at once and never believed again."""

import signal
import time

from faults.cases import World, case
from faults.flow import flows, run_for, slowest, warm_up
from faults.shim import Shim
from faults.verify import (
    CONTROLLER_LIMIT_S, FAILOVER_LIMIT_S, FOLLOWER_LIMIT_S, HEAL_LIMIT_S, create_topic, leaders, verify,
)
from harness import http, topics
from harness.load import SteadyLoad
from harness.ottla import Launch, OttlaProcesses
from harness.waiting import LimitExceeded, until

TOPIC, PARTITIONS, RATE = "io-error", 12, 600.0
_VICTIM = 3
_OFFLINE = "kafka_log_logmanager_offlinelogdirectorycount"


@case("io-error")
def io_error_sync(world: World) -> None:
    """fsync of one node's log directory fails"""
    _log_directory(world, "sync-eio")


@case("io-error-write")
def io_error_write(world: World) -> None:
    """writes to one node's log directory fail"""
    _log_directory(world, "write-eio")


@case("io-error-metadata")
def io_error_metadata(world: World) -> None:
    """fsync of the active controller's metadata directory fails (S-11)"""
    below = {node: world.directory / f"metadata-{node}" for node in (1, 2, 3)}
    cluster = world.cluster(only={node: {"metadata.log.dir": str(path)} for node, path in below.items()})
    shims = {node: Shim(world.directory, path) for node, path in below.items()}
    cluster.launch = {node: shim.launch for node, shim in shims.items()}
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS)
            victim = until("an active controller", 30, cluster.active_controller)
            began = time.monotonic()
            shims[victim].plan("sync-eio")
            create_topic(world, cluster, "meanwhile", "F-3", CONTROLLER_LIMIT_S)
            if until("a failed sync", 10, lambda: shims[victim].hits() > 0):
                world.in_force(f"{shims[victim].hits()} syncs of node {victim}'s metadata failed")
            flowing = flows(load, range(PARTITIONS), FOLLOWER_LIMIT_S)
            world.check(flowing is not None, "P-16", "produce stands still")
            world.measure("longest stall", f"{slowest(load, began) * 1000:,.0f} ms")
            _ends_or_is_passive(world, cluster, victim)
            shims[victim].clear()
            cluster.launch[victim] = Launch()
            if not cluster.process(victim).alive:
                code = cluster.await_end(victim, 1)
                world.step(f"node {victim} had ended with {code}")
                world.check(code not in (0, None), "S-11", f"it ended with {code}, as if nothing were wrong")
            else:
                cluster.kill(victim)
            cluster.restart(victim)
            run_for(load, 1)
        verify(world, cluster, TOPIC, load)
        world.verdict()


def _log_directory(world: World, plan: str) -> None:
    directory = world.directory / "log"
    # The metadata lie elsewhere: what fails is the log directory alone.
    only = {"log.dirs": str(directory), "metadata.log.dir": str(world.directory / "metadata")}
    cluster = world.cluster(only={_VICTIM: only})
    shim = Shim(world.directory, directory)
    cluster.launch[_VICTIM] = shim.launch
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        client = topics.admin(cluster.bootstrap)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS)
            led = {number for number, leader in leaders(client, TOPIC).items() if leader == _VICTIM}
            began = time.monotonic()
            shim.plan(plan)
            until("a call that failed", 10, lambda: shim.hits("/log/") > 0)
            world.in_force(f"{plan} on node {_VICTIM}, which leads {len(led)}")
            _others_go_on(world, cluster, load, began, led)
            _is_not_ready(world, cluster)
            # The fault ends, and the directory stays failed: what it says now is not to be believed (B-18).
            shim.clear()
            run_for(load, 1)
            offline = http.metric(cluster.nodes[_VICTIM].http, _OFFLINE)
            world.check(offline == 1, "S-6", f"offline log directories: {offline}")
            back = [n for n, leader in leaders(client, TOPIC).items() if leader == _VICTIM]
            world.check(not back, "P-25, S-6", f"the failed directory leads {back}")
            _restart_heals(world, cluster, load)
        verify(world, cluster, TOPIC, load)
        world.verdict()


def _others_go_on(
    world: World, cluster: OttlaProcesses, load: SteadyLoad, began: float, led: set[int]
) -> None:
    client = topics.admin(cluster.bootstrap)

    def moved() -> bool:
        found = topics.describe(client, TOPIC)
        return bool(found) and all(p.leader != _VICTIM and _VICTIM not in p.isr for p in found.values())

    try:
        until("every partition led elsewhere, the failed replica in no ISR", FOLLOWER_LIMIT_S, moved)
        world.measure("led elsewhere and out of every ISR after", f"{(time.monotonic() - began) * 1000:,.0f} ms")
    except LimitExceeded as error:
        found = topics.describe(client, TOPIC) or {}
        inside = [number for number, p in found.items() if _VICTIM in p.isr]
        held = [number for number, p in found.items() if p.leader == _VICTIM]
        world.check(False, "P-25", f"{error}: it leads {held}, and is in the ISR of {inside}")
    if flows(load, range(PARTITIONS), FOLLOWER_LIMIT_S) is None:
        done = load.first_acks_after(began + 1, 0)
        stuck = sorted(set(range(PARTITIONS)) - done.keys())
        world.check(False, "P-25, F-1", f"no acknowledgement in {FOLLOWER_LIMIT_S:.0f} s on {stuck}")
    world.measure("longest stall of what it led", f"{slowest(load, began, led) * 1000:,.0f} ms")
    followed = set(range(PARTITIONS)) - led
    world.measure("longest stall of what it followed", f"{slowest(load, began, followed) * 1000:,.0f} ms")


def _is_not_ready(world: World, cluster: OttlaProcesses) -> None:
    alive = cluster.process(_VICTIM).alive
    world.check(alive, "P-25", f"node {_VICTIM} ended")
    answer = http.get(cluster.nodes[_VICTIM].http, "/readyz")
    world.step(f"/readyz of node {_VICTIM}: {answer}")
    world.check(answer is not None and answer[0] == 503, "P-25", f"/readyz says {answer}")


def _ends_or_is_passive(world: World, cluster: OttlaProcesses, victim: int) -> None:
    active = until("an active controller", 30, cluster.active_controller)
    alive = cluster.process(victim).alive
    world.step(f"node {victim} is {'alive' if alive else 'gone'}; the active controller is node {active}")
    world.check(active != victim, "S-11, C-5", f"node {victim} is active although it cannot sync")


def _restart_heals(world: World, cluster: OttlaProcesses, load: SteadyLoad) -> None:
    cluster.launch[_VICTIM] = Launch()
    began = time.monotonic()
    if cluster.process(_VICTIM).alive:
        cluster.process(_VICTIM).signal(signal.SIGTERM)
    try:
        code = cluster.await_end(_VICTIM, 40)
        world.step(f"node {_VICTIM} ended with {code} after {time.monotonic() - began:.1f} s; it is started again")
    except LimitExceeded as error:
        world.check(False, "P-25", f"with a failed directory SIGTERM does not end the node: {error}")
        cluster.kill(_VICTIM)
    cluster.restart(_VICTIM)
    client = topics.admin(cluster.bootstrap)

    def whole() -> bool:
        found = topics.describe(client, TOPIC)
        return bool(found) and all(len(p.isr) == 3 for p in found.values())

    try:
        until("every ISR full after the restart", HEAL_LIMIT_S, whole, poll_s=0.1)
    except LimitExceeded as error:
        world.check(False, "P-25, F-6", str(error))
    flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
