"""Topics as a client sees them: creation, who leads, who is in sync."""

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from harness.cluster import Cluster
from harness.waiting import until

#: Short back-offs: a test measures the cluster, not the client's patience with a node that is down.
CLIENT = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100}


@dataclass(frozen=True)
class Partition:
    """One partition in the metadata."""

    leader: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


def admin(bootstrap: str) -> AdminClient:
    """An admin client, silent about nodes that are down."""
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 2, **CLIENT})


def create(
    bootstrap: str, topic: str, partitions: int = 12, config: Mapping[str, str] | None = None, limit_s: float = 30
) -> None:
    """Creates a topic with replication factor 3 and min.insync.replicas 2, and waits until every partition is led."""
    settings = {"min.insync.replicas": "2", **(config or {})}
    client = admin(bootstrap)
    request = NewTopic(topic, partitions, 3, config=settings)
    client.create_topics([request], operation_timeout=limit_s)[topic].result(limit_s)
    until(f"leaders of {topic}", limit_s, lambda: _all_led(client, topic, partitions))


def describe(client: AdminClient, topic: str) -> dict[int, Partition] | None:
    """The partitions by number; None where nobody answers."""
    try:
        # All topics, since asking for one by name may create it.
        found = client.list_topics(timeout=2).topics.get(topic)
    except KafkaException:
        return None
    if found is None or found.error is not None:
        return None
    return {
        number: Partition(p.leader, tuple(p.replicas), tuple(sorted(p.isrs))) for number, p in found.partitions.items()
    }


def wait_in_sync(cluster: Cluster, topic: str) -> dict[int, Partition]:
    """Waits until every replica of every partition is in its ISR."""
    client = admin(cluster.bootstrap)

    def whole() -> dict[int, Partition] | None:
        found = describe(client, topic)
        good = found and all(p.leader >= 0 and len(p.isr) == len(p.replicas) for p in found.values())
        return found if good else None

    return until(f"every replica of {topic} in sync", cluster.heal_limit_s, whole, poll_s=0.1)


def _all_led(client: AdminClient, topic: str, partitions: int) -> bool:
    found = describe(client, topic)
    return found is not None and len(found) == partitions and all(p.leader >= 0 for p in found.values())
