"""A process that stands still for longer than its session, and then goes on as if nothing had been (P-29)."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from confluent_kafka import Consumer, KafkaException, TopicPartition

from faults import raw
from faults.cases import World, case
from faults.flow import flows, run_for, slowest, warm_up
from faults.verify import CONTROLLER_LIMIT_S, FAILOVER_LIMIT_S, create_topic, verify
from harness import http, topics
from harness.load import SteadyLoad
from harness.ottla import OttlaProcesses
from harness.topics import CLIENT
from harness.waiting import LimitExceeded, until

TOPIC, PARTITIONS, RATE = "pause", 12, 600.0
_PAUSE_S = 5.0
#: F-1 for silence, which only the session of 2 s tells.
_SILENCE_TARGET_S = 4.0
_GROUP = "paused-group"
#: A connection to a stopped process stays open: only the client's own patience ends its waiting there.
_IMPATIENT = {"socket.timeout.ms": 1500, "request.timeout.ms": 1500}


@case("pause")
def pause_leader(world: World) -> None:
    """SIGSTOP of a leader that is not the active controller, 5 s"""
    with world.cluster() as cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE, client=_IMPATIENT) as load:
            warm_up(load, PARTITIONS)
            active = until("an active controller", 30, cluster.active_controller)
            victim = next(node for node in cluster.node_ids if node != active)
            others = [("127.0.0.1", n.kafka_port) for n in cluster.nodes.values() if n.id != victim]
            led = [n for n, p in raw.describe(others, TOPIC).items() if p.leader == victim]
            stale = raw.RawConnection(("127.0.0.1", cluster.nodes[victim].kafka_port))
            with _paused(world, cluster, victim) as began:
                until("leaders elsewhere", 20, lambda: _is_led_without(others, victim))
                took = time.monotonic() - began
                world.measure(f"{len(led)} leaderships moved after", f"{took * 1000:,.0f} ms")
                world.check(took <= FAILOVER_LIMIT_S, "F-1", f"leaders moved after {took:.1f} s")
                _fails_over(world, load, began)
                end = _end_offset(others, led[0])
                stale.send(raw.LIST_OFFSETS, 2, raw.list_offsets(TOPIC, led[0]))
            _answers_nothing_old(world, stale, end)
            stale.close()
            run_for(load, 2)
            flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
        verify(world, cluster, TOPIC, load)
        world.verdict()


@case("pause-controller")
def pause_controller(world: World) -> None:
    """SIGSTOP of the active controller, 5 s"""
    with world.cluster() as cluster:
        topics.create(cluster.bootstrap, TOPIC, PARTITIONS)
        with SteadyLoad(cluster.bootstrap, TOPIC, PARTITIONS, RATE, client=_IMPATIENT) as load:
            warm_up(load, PARTITIONS)
            victim = until("an active controller", 30, cluster.active_controller)
            others = [node for node in cluster.node_ids if node != victim]
            with _paused(world, cluster, victim) as began:
                active = until("another active controller", 20, partial(_active_besides, cluster, victim))
                took = time.monotonic() - began
                world.measure(f"node {active} became active after", f"{took * 1000:,.0f} ms")
                create_topic(world, cluster, "meanwhile", "F-3", CONTROLLER_LIMIT_S, others)
                _fails_over(world, load, began)
            try:
                until("one active controller", CONTROLLER_LIMIT_S, lambda: _active(cluster) == 1)
            except LimitExceeded:
                world.check(False, "C-12, B-10", f"{_active(cluster):.0f} nodes call themselves active")
            create_topic(world, cluster, "afterwards", "F-7", CONTROLLER_LIMIT_S)
            flows(load, range(PARTITIONS), FAILOVER_LIMIT_S)
        verify(world, cluster, TOPIC, load)
        world.verdict()


@case("pause-coordinator")
def pause_coordinator(world: World) -> None:
    """SIGSTOP of a group's coordinator: once it goes on it gives no offset from before"""
    with world.cluster() as cluster:
        topics.create(cluster.bootstrap, TOPIC, 1)
        committer = Consumer({
            "bootstrap.servers": cluster.bootstrap, "group.id": _GROUP, "enable.auto.commit": False, "log_level": 2,
            "socket.timeout.ms": 1500, **CLIENT,
        })
        _commit(committer, 100, 30)
        coordinator = _coordinator(cluster, 1)
        address = ("127.0.0.1", cluster.nodes[coordinator].kafka_port)
        # Both connections are there before the pause; one request waits in the socket of the paused node.
        with raw.RawConnection(address) as early, raw.RawConnection(address) as late:
            with _paused(world, cluster, coordinator):
                began = time.monotonic()
                _commit(committer, 200, 30)
                world.measure("a commit succeeded elsewhere after", f"{(time.monotonic() - began) * 1000:,.0f} ms")
                witness = next(node for node in cluster.node_ids if node != coordinator)
                successor = _coordinator(cluster, witness)
                world.check(successor != coordinator, "G-6", "the paused node is named as coordinator")
                early.send(raw.OFFSET_FETCH, 5, raw.offset_fetch(_GROUP, TOPIC, 0))
            late.send(raw.OFFSET_FETCH, 5, raw.offset_fetch(_GROUP, TOPIC, 0))
            for name, connection in (("sent during the pause", early), ("sent after it", late)):
                answer = connection.receive(15)
                code, offset = raw.fetched_offset(answer) if answer else (-1, -1)
                said = "closed" if answer is None else f"error {code}, offset {offset}"
                world.step(f"OffsetFetch {name}: {said}")
                fresh = answer is None or code != 0 or offset == 200
                world.check(fresh, "P-44, G-6", f"OffsetFetch {name} was answered with offset {offset}")
        found = committer.committed([TopicPartition(TOPIC, 0)], timeout=30)[0].offset
        world.check(found == 200, "P-44", f"the group's offset is {found}")
        committer.close()
        world.verdict()


@contextmanager
def _paused(world: World, cluster: OttlaProcesses, node: int) -> Iterator[float]:
    process = cluster.process(node)
    began = process.signal(signal.SIGSTOP)
    try:
        until("a stopped process", 5, lambda: process.state == "T")
        silent = http.get(cluster.nodes[node].http, "/healthz", limit_s=0.3) is None
        if world.check(silent, "probe", "the stopped process answers"):
            world.in_force(f"node {node} is stopped")
        yield began
        until(f"{_PAUSE_S:.0f} s of pause", 60, lambda: time.monotonic() > began + _PAUSE_S)
    finally:
        process.signal(signal.SIGCONT)
    world.step(f"node {node} goes on after {time.monotonic() - began:.1f} s")


def _fails_over(world: World, load: SteadyLoad, began: float) -> None:
    if flows(load, range(PARTITIONS), FAILOVER_LIMIT_S) is None:
        world.check(False, "F-1", f"no acknowledgement on every partition in {FAILOVER_LIMIT_S:.0f} s")
        return
    stall = slowest(load, began)
    world.measure("longest stall", f"{stall * 1000:,.0f} ms (target {_SILENCE_TARGET_S:.0f} s)")
    world.check(stall <= FAILOVER_LIMIT_S, "F-1", f"a partition stood still for {stall:.1f} s")


def _end_offset(others: list[tuple[str, int]], partition: int) -> int:
    """The end of a partition as its leader tells it, which is one of these."""

    def asked() -> int | None:
        for address in others:
            with raw.RawConnection(address) as connection:
                connection.send(raw.LIST_OFFSETS, 2, raw.list_offsets(TOPIC, partition))
                answer = connection.receive(5)
            code, offset = raw.listed_offset(answer) if answer else (-1, -1)
            if code == 0:
                return offset
        return None

    return until("the end offset", 10, asked)


def _answers_nothing_old(world: World, stale: raw.RawConnection, end: int) -> None:
    answer = stale.receive(15)
    code, offset = raw.listed_offset(answer) if answer else (-1, -1)
    world.step(f"ListOffsets sent during the pause: error {code}, offset {offset}; the new leader had said {end}")
    old = answer is not None and code == 0 and offset < end
    world.check(not old, "P-29, P-42", f"the paused leader gives its old end offset {offset}, clients have seen {end}")


def _is_led_without(others: list[tuple[str, int]], victim: int) -> bool:
    found = raw.describe(others, TOPIC)
    return bool(found) and all(p.leader not in (-1, victim) for p in found.values())


def _active(cluster: OttlaProcesses) -> float:
    return sum(http.metric(node.http, http.ACTIVE_CONTROLLER) or 0 for node in cluster.nodes.values())


def _active_besides(cluster: OttlaProcesses, victim: int) -> int | None:
    others = (node for node in cluster.nodes.values() if node.id != victim)
    return next((node.id for node in others if http.metric(node.http, http.ACTIVE_CONTROLLER) == 1), None)


def _commit(committer: Consumer, offset: int, limit_s: float) -> None:
    def committed() -> bool:
        try:
            committer.commit(offsets=[TopicPartition(TOPIC, 0, offset)], asynchronous=False)
        except KafkaException:
            return False
        return True

    until(f"a commit of offset {offset}", limit_s, committed)


def _coordinator(cluster: OttlaProcesses, witness: int) -> int:
    """The coordinator of the group as this node names it."""

    def found() -> int | None:
        with raw.RawConnection(("127.0.0.1", cluster.nodes[witness].kafka_port)) as connection:
            connection.send(raw.FIND_COORDINATOR, 1, raw.find_coordinator(_GROUP))
            answer = connection.receive(5)
        code, node = raw.found_coordinator(answer) if answer else (-1, -1)
        return node if code == 0 else None

    return until("the group's coordinator", 20, found)
