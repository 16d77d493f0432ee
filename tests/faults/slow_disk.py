"""A disk whose syncs take very long (P-24)."""

import time

from faults.cases import World, case
from faults.flow import flows, run_for, slowest, warm_up
from faults.shim import Shim
from faults.verify import HEAL_LIMIT_S, leaders, verify
from harness import topics
from harness.load import SteadyLoad
from harness.waiting import LimitExceeded, until

TOPIC, PARTITIONS, RATE = "slow-disk", 12, 600.0
_VICTIM = 3
#: Half the default, so that the case takes half the time; every bound below is in terms of it.
_LAG_S = 5.0
#: A stalled leader gives up its partitions within twice the lag limit.
_GIVE_UP_LIMIT_S = 2 * _LAG_S
#: F-2: a slow follower costs the lag limit and a second.
_FOLLOWER_LIMIT_S = _LAG_S + 1.5


@case("slow-disk")
def slow_disk(world: World) -> None:
    """the syncs of one node's log directory hang"""
    directory = world.directory / "log"
    only = {"log.dirs": str(directory), "metadata.log.dir": str(world.directory / "metadata")}
    cluster = world.cluster(extra={"replica.lag.time.max.ms": f"{_LAG_S * 1000:.0f}"}, only={_VICTIM: only})
    shim = Shim(world.directory, directory)
    cluster.launch[_VICTIM] = shim.launch
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        client = topics.admin(cluster.bootstrap)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS)
            led = {number for number, leader in leaders(client, TOPIC).items() if leader == _VICTIM}
            followed = set(range(PARTITIONS)) - led
            began = time.monotonic()
            shim.plan("sync-delay=120000")
            until("a sync that hangs", 10, lambda: shim.hits("/log/") > 0)
            world.in_force(f"syncs of node {_VICTIM} hang; it leads {sorted(led)}")
            _bounded(world, load, followed, "what it followed", "P-24, F-2", _FOLLOWER_LIMIT_S, began)
            _bounded(world, load, led, "what it led", "P-24", _GIVE_UP_LIMIT_S, began)
            held = [n for n, leader in leaders(client, TOPIC).items() if leader == _VICTIM]
            world.step(f"node {_VICTIM} leads {held}")
            run_for(load, 1)
            shim.clear()
            world.step("syncs are fast again")
            healed = time.monotonic()
            try:
                topics.wait_in_sync(cluster, TOPIC)
                world.measure("every ISR full, under load", f"{time.monotonic() - healed:.1f} s after the disk is fast")
            except LimitExceeded as error:
                world.check(False, "P-24, F-6", f"{error} ({HEAL_LIMIT_S:.0f} s)")
            flows(load, range(PARTITIONS), 10)
        verify(world, cluster, TOPIC, load)
        world.verdict()


@case("slow-disk-steady")
def slow_disk_steady(world: World) -> None:
    """every sync of one node takes 300 ms: slow, but nobody leaves the ISR"""
    directory = world.directory / "log"
    only = {"log.dirs": str(directory), "metadata.log.dir": str(world.directory / "metadata")}
    cluster = world.cluster(only={_VICTIM: only})
    shim = Shim(world.directory, directory)
    cluster.launch[_VICTIM] = shim.launch
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        client = topics.admin(cluster.bootstrap)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS)
            before = leaders(client, TOPIC)
            began = time.monotonic()
            shim.plan("sync-delay=300")
            until("delayed syncs", 10, lambda: shim.hits("/log/") > 20)
            run_for(load, 4)
            world.in_force(f"{shim.hits()} syncs of node {_VICTIM} took 300 ms longer")
            stall = slowest(load, began)
            world.measure("longest stall", f"{stall * 1000:,.0f} ms")
            world.check(stall < 3, "P-24", f"a delay of 300 ms became a stall of {stall:.1f} s")
            found = topics.describe(client, TOPIC) or {}
            short = [number for number, p in found.items() if len(p.isr) < 3]
            world.check(not short, "P-24, P-26", f"replicas left the ISR of {short}")
            world.check(leaders(client, TOPIC) == before, "P-24", "leaders changed")
            shim.clear()
            flows(load, range(PARTITIONS), 10)
        verify(world, cluster, TOPIC, load)
        world.verdict()


def _bounded(
    world: World, load: SteadyLoad, among: set[int], what: str, promise: str, limit_s: float, began: float
) -> None:
    left = max(0.0, began + limit_s - time.monotonic()) + 5  # Past the limit, to say by how much.
    if flows(load, among, left) is None:
        world.check(False, promise, f"{what} ({sorted(among)}) stands still for {time.monotonic() - began:.1f} s")
        return
    stall = slowest(load, began, among)
    world.measure(f"longest stall of {what}", f"{stall:.1f} s (limit {limit_s:.1f} s, lag limit {_LAG_S:.0f} s)")
    world.check(stall <= limit_s, promise, f"{what} stood still for {stall:.1f} s")
