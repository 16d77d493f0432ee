"""SIGTERM under load (F-4): a graceful stop, a second signal, and a stop that cannot finish."""

import signal
import time

from faults.cases import World, case
from faults.flow import flows, run_for, slowest, warm_up
from faults.shim import Shim
from faults.verify import FAILOVER_LIMIT_S, RESTART_STALL_LIMIT_S, leaders, verify
from harness import topics
from harness.load import SteadyLoad
from harness.ottla import Launch, OttlaProcesses
from harness.waiting import LimitExceeded

TOPIC, PARTITIONS, RATE = "sigterm", 12, 1_200.0
_LIMIT_S = 30.0
_AT_ONCE_S = 1.0
#: Exit codes of crates/server/src/exit.rs.
_OVER_ITS_LIMIT, _SECOND_SIGNAL = 4, 143


@case("sigterm")
def sigterm(world: World) -> None:
    """every node is stopped gracefully and started again, one by one, under load"""
    with world.cluster() as cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        client = topics.admin(cluster.bootstrap)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS)
            for node in cluster.node_ids:
                led = sum(leader == node for leader in leaders(client, TOPIC).values())
                role = ", the active controller" if cluster.active_controller() == node else ""
                began = time.monotonic()
                cluster.stop(node, _LIMIT_S)
                took = time.monotonic() - began
                world.in_force(f"node {node}, leader of {led}{role}, ended with 0 after {took * 1000:,.0f} ms")
                run_for(load, 1.5)
                flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
                stall = slowest(load, began)
                world.measure(f"node {node}{role}: longest stall", f"{stall * 1000:,.0f} ms (target 500)")
                world.check(stall <= RESTART_STALL_LIMIT_S, "F-4", f"a partition stood still for {stall:.1f} s")
                cluster.restart(node)
                topics.wait_in_sync(cluster, TOPIC)
        verify(world, cluster, TOPIC, load)
        world.verdict()


@case("sigterm-stuck")
def sigterm_stuck(world: World) -> None:
    """a stop whose disk hangs: a second SIGTERM ends it at once, and its limit ends it without"""
    directory = world.directory / "log"
    only = {
        "log.dirs": str(directory), "metadata.log.dir": str(world.directory / "metadata"),
        "ottla.shutdown.timeout.ms": "4000",
    }
    cluster = world.cluster(only={3: only})
    shim = Shim(world.directory, directory)
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS)
            for second_signal, expected in ((False, _OVER_ITS_LIMIT), (True, _SECOND_SIGNAL)):
                cluster.kill(3)
                cluster.launch[3] = shim.launch
                cluster.restart(3)
                topics.wait_in_sync(cluster, TOPIC)
                shim.plan("sync-delay=120000")
                run_for(load, 0.5)
                world.check(shim.hits("/log/") > 0, "probe", "no sync hangs")
                _stop_that_hangs(world, cluster, second_signal, expected)
                shim.clear()
                cluster.launch[3] = Launch()
                cluster.restart(3)
                topics.wait_in_sync(cluster, TOPIC)
            flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
        verify(world, cluster, TOPIC, load)
        world.verdict()


@case("sigterm-alone")
def sigterm_alone(world: World) -> None:
    """the last node left is stopped: nobody takes its partitions, and no quorum answers"""
    with world.cluster() as cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE) as load:
            warm_up(load, PARTITIONS)
            cluster.kill(1, 2)
            world.in_force("two of three nodes are killed")
            began = cluster.process(3).signal(signal.SIGTERM)
            try:
                code = cluster.await_end(3, _LIMIT_S + 2)
                world.measure("the last node ended after", f"{time.monotonic() - began:.1f} s with {code}")
                world.check(code in (0, _OVER_ITS_LIMIT), "shutdown", f"exit code {code}")
            except LimitExceeded as error:
                world.check(False, "shutdown", str(error))
                cluster.kill(3)
            for node in cluster.node_ids:
                cluster.start_node(node)
            for node in cluster.node_ids:
                cluster.wait_ready(node)
            flows(load, range(PARTITIONS), 60)
        verify(world, cluster, TOPIC, load)
        world.verdict()


def _stop_that_hangs(world: World, cluster: OttlaProcesses, second_signal: bool, expected: int) -> None:
    process = cluster.process(3)
    began = process.signal(signal.SIGTERM)
    if second_signal:
        # Well inside the limit, and long after a stop that does not hang is over.
        try:
            code = process.wait(1.5)
            world.check(False, "probe", f"the stop does not hang: it ended with {code}")
            cluster.await_end(3, 1)
            return
        except LimitExceeded:
            world.in_force("the stop hangs")
        began = process.signal(signal.SIGTERM)
    limit_s = _AT_ONCE_S if second_signal else 4 + 2
    what = "a second SIGTERM ended it" if second_signal else "a limit of 4 s ended it"
    try:
        code = cluster.await_end(3, limit_s)
    except LimitExceeded as error:
        world.check(False, "shutdown", f"{what}: {error}")
        cluster.kill(3)
        return
    took = time.monotonic() - began
    world.measure(what, f"{took * 1000:,.0f} ms later, exit code {code}")
    world.check(code == expected, "shutdown", f"exit code {code}, not {expected}")
    if not second_signal:
        world.check(took > 1.0, "probe", "the stop did not hang")
