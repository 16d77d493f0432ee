"""What happens to the cluster while the flights go through it."""

from dataclasses import dataclass
from typing import Protocol

from harness.cluster import Cluster
from harness.console import Console
from harness.topics import wait_in_sync
from harness.waiting import until


@dataclass(frozen=True)
class Fault:
    """One node goes down when a share of the flights was sent, and stays down for a share of the planned time."""

    what: str
    down_at: float
    down_for: float
    graceful: bool


SCHEDULE = (
    Fault("SIGKILL to a broker", 0.12, 0.12, graceful=False),
    Fault("SIGKILL to the node with the active controller", 0.40, 0.12, graceful=False),
    Fault("graceful stop of another node", 0.68, 0.12, graceful=True),
)


class Progress(Protocol):
    """The run as the schedule sees it. Both waits show progress."""

    def reach(self, share: float) -> None:
        """Waits until this share of the flights was sent."""

    def spend(self, share: float) -> None:
        """Waits for this share of the planned time."""


def controller(cluster: Cluster, limit_s: float = 60) -> int:
    """The active controller, waited for."""
    return until("an active controller", limit_s, cluster.active_controller, poll_s=0.1)


def run(cluster: Cluster, topic: str, console: Console, progress: Progress) -> None:
    """Carries the schedule out.

    A node goes down only while every replica is in sync: with two of three down, nothing could be acknowledged.
    """
    killed: set[int] = set()
    for fault in SCHEDULE:
        progress.reach(fault.down_at)
        wait_in_sync(cluster, topic)
        active = controller(cluster)
        victim = active if "controller" in fault.what else _other(cluster, active, killed)
        killed.add(victim)
        role = "the active controller" if victim == active else "not the active controller"
        console.step(f"FAULT: {fault.what}: node {victim} ({role})")
        if fault.graceful:
            cluster.stop(victim)
            console.step(f"node {victim} has stopped")
        else:
            cluster.kill(victim)
        progress.spend(fault.down_for)
        console.step(f"node {victim} is started again")
        cluster.restart(victim)
        console.step(f"node {victim} is ready; waiting until every replica is in sync")
        partitions = wait_in_sync(cluster, topic)
        led = sum(p.leader == victim for p in partitions.values())
        console.step(f"every replica is in sync; node {victim} leads {led} of {len(partitions)} partitions")


def _other(cluster: Cluster, active: int, killed: set[int]) -> int:
    """A node that has not been down yet, if possible one without the active controller."""
    fresh = [node for node in cluster.node_ids if node not in killed] or list(cluster.node_ids)
    return next((node for node in fresh if node != active), fresh[0])
