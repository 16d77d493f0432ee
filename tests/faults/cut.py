"""Nodes that cannot hear each other (P-16, P-18, P-19, P-20), each in a network namespace of its own."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from faults import raw
from faults.cases import World, case
from faults.flow import flows, run_for, slowest, warm_up
from faults.network import Network
from faults.verify import CONTROLLER_LIMIT_S, FAILOVER_LIMIT_S, FOLLOWER_LIMIT_S, create_topic, verify
from harness import http, topics
from harness.load import SteadyLoad
from harness.ottla import OttlaProcesses
from harness.waiting import LimitExceeded, until

TOPIC, PARTITIONS, RATE = "cut", 12, 600.0
#: The producers of clients that are cut off with a node write here.
_CUT_OFF_TOPIC, _CUT_OFF_RATE = "cut-off", 100.0
_NODES = (1, 2, 3)
_CUT_S = 6.0
#: What is on the way when a cut begins may still be acknowledged; nothing handed over later than this.
_ON_THE_WAY_S = 0.5
#: A cut swallows what is on a connection: only the client's own patience ends its waiting there.
_IMPATIENT = {"socket.timeout.ms": 1500, "request.timeout.ms": 1500, "socket.connection.setup.timeout.ms": 1000}
_LAG_S = 4.0


@dataclass
class _Scene:
    """A running cluster in a network of its own."""

    world: World
    network: Network
    cluster: OttlaProcesses
    load: SteadyLoad

    def others(self, victim: int) -> list[int]:
        """The nodes besides one."""
        return [node for node in _NODES if node != victim]

    def addresses(self, *nodes: int) -> list[tuple[str, int]]:
        """Where clients reach these nodes."""
        found = [self.cluster.nodes[node] for node in nodes]
        return [(node.host, node.kafka_port) for node in found]

    def bootstrap(self, *nodes: int) -> str:
        """The same as clients take it."""
        return ",".join(f"{host}:{port}" for host, port in self.addresses(*nodes))

    def active_among(self, *nodes: int) -> int | None:
        """Which of these is the active controller."""
        asked = (self.cluster.nodes[node] for node in nodes)
        return next((node.id for node in asked if http.metric(node.http, http.ACTIVE_CONTROLLER) == 1), None)

    def led_by(self, victim: int, ask: list[int]) -> list[int] | None:
        """Partitions that a node leads, as others see it; None where nobody answers."""
        found = raw.describe(self.addresses(*ask), TOPIC)
        return [n for n, p in found.items() if p.leader in (-1, victim)] if found else None


def _scene(world: World, run: Callable[[_Scene], None]) -> None:
    network = Network(_NODES)
    cluster = world.cluster(extra={"replica.lag.time.max.ms": f"{_LAG_S * 1000:.0f}"}, hosts=network.hosts)
    cluster.launch = {node: network.launch(node) for node in _NODES}
    with cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE, client=_IMPATIENT) as load:
            warm_up(load, PARTITIONS)
            try:
                run(_Scene(world, network, cluster, load))
            finally:
                for node in _NODES:
                    network.heal(node)
            run_for(load, 1)
            flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
        verify(world, cluster, TOPIC, load)
        world.verdict()


@case("cut", "net", "mount")
def cut_off(world: World) -> None:
    """a leader is cut off from everybody, with clients that are cut off with it (P-18)"""
    _scene(world, lambda scene: _cut_off(scene, active=False))


@case("cut-controller", "net", "mount")
def cut_off_controller(world: World) -> None:
    """the active controller is cut off from everybody (P-18, C-12)"""
    _scene(world, lambda scene: _cut_off(scene, active=True))


@case("cut-from-controllers", "net", "mount")
def cut_from_controllers(world: World) -> None:
    """a broker is cut off from the controllers alone, and its own controller with it (P-16, P-18)"""
    _scene(world, _cut_from_controllers)


@case("cut-deaf", "net", "mount", long=True)
def cut_deaf(world: World) -> None:
    """a node hears nothing and is heard by all (P-19)"""
    _scene(world, lambda scene: _one_way(scene, hear=True, be_heard=False))


@case("cut-mute", "net", "mount", long=True)
def cut_mute(world: World) -> None:
    """a node hears all and is heard by nobody (P-19)"""
    _scene(world, lambda scene: _one_way(scene, hear=False, be_heard=True))


@case("cut-partial", "net", "mount", long=True)
def cut_partial(world: World) -> None:
    """two brokers cannot reach each other, both reach the active controller (P-20)"""
    _scene(world, _partial)


def _cut_off(scene: _Scene, active: bool) -> None:
    world, cluster = scene.world, scene.cluster
    first = until("an active controller", 30, lambda: scene.active_among(*_NODES))
    victim = first if active else scene.others(first)[0]
    others = scene.others(victim)
    topics.create(cluster.bootstrap, _CUT_OFF_TOPIC, PARTITIONS)
    with scene.network.inside(victim):
        inner = SteadyLoad(
            scene.bootstrap(victim), _CUT_OFF_TOPIC, PARTITIONS, _CUT_OFF_RATE,
            client={**_IMPATIENT, "message.timeout.ms": 4000},
        )
    with inner:
        warm_up(inner, PARTITIONS)
        began = time.monotonic()
        scene.network.cut(victim)
        _probe_cut(scene, victim)
        _majority_goes_on(scene, victim, began)
        if active:
            successor = until("an active controller on the other side", 20, lambda: scene.active_among(*others))
            world.measure(f"node {successor} active", f"{(time.monotonic() - began) * 1000:,.0f} ms after the cut")
        create_topic(world, cluster, "meanwhile", "F-3", CONTROLLER_LIMIT_S, others)
        until("the rest of the cut", 30, lambda: time.monotonic() > began + _CUT_S, poll_s=0.1)
        with scene.network.inside(victim):
            called = http.metric(cluster.nodes[victim].http, http.ACTIVE_CONTROLLER)
            ready = http.get(cluster.nodes[victim].http, "/readyz")
        world.check(called == 0, "C-12, B-10", f"the cut-off node's active controller count is {called}")
        ready_still = ready is not None and ready[0] == 200
        world.check(not ready_still, "readiness", f"the cut-off node calls itself ready: {ready}")
        _nothing_committed(world, inner, began, time.monotonic())
        scene.network.heal(victim)
        world.step("the cut is over")
        healed = time.monotonic()
        if flows(inner, range(PARTITIONS), FAILOVER_LIMIT_S) is None:
            world.check(False, "P-21", "clients that were cut off cannot produce any more")
        world.step(f"the clients on it produce again after {time.monotonic() - healed:.1f} s")
    verify(world, cluster, _CUT_OFF_TOPIC, inner, may_fail=True)


def _nothing_committed(world: World, inner: SteadyLoad, began: float, ended: float) -> None:
    late = [ack for ack in inner.acks.acks() if began + _ON_THE_WAY_S < ack.sent_at and ack.acked_at < ended]
    refused = len(inner.acks.errors)
    world.check(not late, "P-18", f"the cut-off side acknowledged {len(late)} records, first {late[:1]}")
    world.step(f"the cut-off side acknowledged {len(late)} records; its client gave up on {refused}")


def _probe_cut(scene: _Scene, victim: int) -> None:
    host, port = scene.addresses(victim)[0]
    if scene.world.check(not scene.network.reaches(host, port), "probe", "the cut-off node can be reached"):
        scene.world.in_force(f"node {victim} cannot be reached")


def _majority_goes_on(scene: _Scene, victim: int, began: float) -> None:
    others, world = scene.others(victim), scene.world
    try:
        until("leaders elsewhere", 20, lambda: scene.led_by(victim, others) == [])
        took = time.monotonic() - began
        world.measure("led elsewhere", f"{took * 1000:,.0f} ms after the cut")
        world.check(took <= FAILOVER_LIMIT_S, "F-1", f"leaders moved after {took:.1f} s")
    except LimitExceeded as error:
        world.check(False, "P-18, F-1", f"{error}: {scene.led_by(victim, others)}")
    _flows(scene, range(PARTITIONS), began, FAILOVER_LIMIT_S, "F-1")


def _flows(scene: _Scene, partitions: range, began: float, limit_s: float, promise: str) -> None:
    world = scene.world
    if flows(scene.load, partitions, limit_s) is None:
        done = scene.load.first_acks_after(began + limit_s, 0)
        stuck = {n: p for n, p in raw.describe(scene.addresses(*_NODES), TOPIC).items() if n not in done}
        world.check(False, promise, f"no acknowledgement in {limit_s:.0f} s on {stuck}")
        return
    stall = slowest(scene.load, began)
    world.measure("longest stall", f"{stall * 1000:,.0f} ms")
    world.check(stall <= limit_s, promise, f"a partition stood still for {stall:.1f} s")


def _cut_from_controllers(scene: _Scene) -> None:
    active = until("an active controller", 30, lambda: scene.active_among(*_NODES))
    victim = scene.others(active)[0]
    others = scene.others(victim)
    began = time.monotonic()
    scene.network.cut_ports(victim, sorted({node.controller_port for node in scene.cluster.nodes.values()}))
    node = scene.cluster.nodes[victim]
    unreachable = not scene.network.reaches(node.host, node.controller_port)
    alive = scene.network.reaches(node.host, node.kafka_port)
    if scene.world.check(unreachable and alive, "probe", f"controller port cut: {unreachable}, broker alive: {alive}"):
        scene.world.in_force(f"node {victim}: the controllers are out of reach, brokers and clients are not")
    _majority_goes_on(scene, victim, began)
    create_topic(scene.world, scene.cluster, "meanwhile", "F-3", CONTROLLER_LIMIT_S, others)
    run_for(scene.load, 2)
    found = raw.describe(scene.addresses(victim), TOPIC)
    claims = [n for n, p in found.items() if p.leader == victim]
    scene.world.step(f"the cut-off broker still names itself as leader of {claims}, which is all it can know")
    scene.network.heal(victim)


def _one_way(scene: _Scene, hear: bool, be_heard: bool) -> None:
    active = until("an active controller", 30, lambda: scene.active_among(*_NODES))
    victim = scene.others(active)[0]
    epochs = {node: _term(scene, node) for node in _NODES}
    began = time.monotonic()
    scene.network.cut(victim, hear=hear, be_heard=be_heard)
    _probe_cut(scene, victim)
    _majority_goes_on(scene, victim, began)
    create_topic(scene.world, scene.cluster, "meanwhile", "F-3", CONTROLLER_LIMIT_S, scene.others(victim))
    run_for(scene.load, 5)
    rises = {node: _term(scene, node) - epochs[node] for node in scene.others(victim)}
    scene.world.check(max(rises.values()) <= 3, "P-19", f"elections do not settle: terms rose by {rises}")
    stall = slowest(scene.load, began + FAILOVER_LIMIT_S / 2)
    scene.world.check(stall < 2, "P-19", f"long after the cut a partition stands still for {stall:.1f} s")
    scene.network.heal(victim)


def _term(scene: _Scene, node: int) -> float:
    return http.metric(scene.cluster.nodes[node].http, "kafka_server_raftmetrics_current_epoch") or 0


def _partial(scene: _Scene) -> None:
    active = until("an active controller", 30, lambda: scene.active_among(*_NODES))
    one, other = scene.others(active)
    before = {n: p.leader for n, p in raw.describe(scene.addresses(active), TOPIC).items()}
    began = time.monotonic()
    scene.network.cut_from(one, other)
    scene.world.in_force(f"node {one} drops what comes from and goes to node {other}")
    limit_s = max(FOLLOWER_LIMIT_S, _LAG_S + 2)
    _flows(scene, range(PARTITIONS), began, limit_s, "P-20, F-2")
    run_for(scene.load, 3)
    after = {n: p.leader for n, p in raw.describe(scene.addresses(active), TOPIC).items()}
    changed = [n for n in before if before[n] != after.get(n)]
    scene.world.step(f"leaders changed on {changed}")
    scene.network.heal(one)
