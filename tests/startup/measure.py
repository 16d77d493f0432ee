"""Three nodes on empty directories: from exec to the first acknowledged acks=all produce, and idle memory.

The produce goes to a topic with replication factor 3 and min.insync.replicas 2 that the same client creates first.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import NewTopic

from harness import target, topics
from harness.cluster import Cluster
from harness.console import Console
from harness.waiting import until


def main() -> int:
    parser = argparse.ArgumentParser(prog="startup.measure", description=__doc__)
    target.add_arguments(parser)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=10, help="seconds at rest before memory is read")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    console = Console()
    first_acks: list[float] = []
    memory: list[dict[int, int]] = []
    for run in range(1, arguments.runs + 1):
        cluster = target.make(arguments)
        with _Prober(cluster) as prober, cluster:
            acked = until("the first acknowledgement", 60, prober.first_ack)
            first_acks.append(acked - cluster.began)
            console.step(f"run {run}/{arguments.runs}: first acknowledgement after {first_acks[-1] * 1000:,.0f} ms")
            time.sleep(arguments.idle)  # Being at rest is the absence of events: there is none to wait for.
            memory.append({node: cluster.rss_bytes(node) for node in cluster.node_ids})
    rows = [
        (run + 1, first_acks[run] * 1000, *(bytes_ / 2**20 for bytes_ in memory[run].values()))
        for run in range(len(memory))
    ]
    nodes = [f"node {node}, MiB" for node in memory[0]]
    console.table(("run", "exec to first ack, ms", *nodes), rows)
    console.step(f"{cluster.name}: median {statistics.median(first_acks) * 1000:,.0f} ms")
    if arguments.json:
        result = {"cluster": cluster.name, "first_ack_s": first_acks, "idle_rss_bytes": memory}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


class _Prober:
    """Clients that are there before the cluster, and try from then on."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acked_at: float | None = None

    def __enter__(self) -> "_Prober":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def first_ack(self) -> float | None:
        """When the first acknowledgement came, if it did."""
        return self.acked_at

    def _run(self) -> None:
        bootstrap, topic = self._cluster.bootstrap, "startup"
        admin = topics.admin(bootstrap)
        while not self._stop.is_set():
            request = NewTopic(topic, 12, 3, config={"min.insync.replicas": "2"})
            try:
                admin.create_topics([request], request_timeout=1, operation_timeout=1)[topic].result(2)
                break
            except (KafkaException, TimeoutError):
                time.sleep(0.02)
        producer = Producer({
            "bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "retry.backoff.ms": 20,
            "retry.backoff.max.ms": 100, "log_level": 2, **topics.CLIENT,
        })
        while not self._stop.is_set() and self.acked_at is None:
            producer.produce(topic, b"first", on_delivery=self._answered)
            producer.flush(5)

    def _answered(self, error: object, _: object) -> None:
        if error is None:
            self.acked_at = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
