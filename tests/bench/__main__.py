"""kafka-producer-perf-test against Ottla and Apache Kafka: acks=all, replication factor 3, 12 partitions.

Each round starts a fresh cluster of each kind in turn, in alternating order, so that a slow minute of the machine meets
both. `flush`: acknowledged means fsynced on every in-sync replica; `page`: in the page cache of each.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from bench.perf import Measured, produce
from harness import target, topics
from harness.cluster import Cluster
from harness.console import Console
from harness.kafka import KafkaNodes, kafka_home
from harness.ottla import OttlaProcesses

PARTITIONS = 12
SIZES = (100, 1_024)
#: "Never" in the topic's own words: the mode that Kafka has by default.
_NEVER = str(2**63 - 1)
_FLUSH_MESSAGES = {"flush": "1", "page": _NEVER}

#: System, mode, record size.
Case = tuple[str, str, int]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--binary", type=Path, default=target.default_binary())
    parser.add_argument("--systems", default="kafka,ottla")
    parser.add_argument("--modes", default="page,flush")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mebibytes", type=int, default=256, help="sent in each measured run (default: 256)")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    home = kafka_home()
    if home is None:
        print("SKIPPED: bench needs KAFKA_HOME, which is not set", flush=True)
        return 0
    console = Console()
    runs: dict[Case, list[tuple[Measured, float]]] = defaultdict(list)
    systems = arguments.systems.split(",")
    for number in range(1, arguments.rounds + 1):
        for system in systems if number % 2 else systems[::-1]:
            for mode in arguments.modes.split(","):
                console.step(f"round {number}/{arguments.rounds}: {system}, {mode}")
                with _cluster(system, mode, home, arguments.binary) as cluster:
                    for size in SIZES:
                        run = _measure(cluster, home, mode, size, arguments.mebibytes)
                        runs[system, mode, size].append(run)
                        console.step(f"  {size} B: {run[0].records_per_s:,.0f} records/s, {run[0].mib_per_s:.1f} MiB/s")
    _report(console, runs)
    if arguments.json:
        result = [
            {"system": s, "mode": m, "record_bytes": b, "runs": [asdict(r) | {"cpu_s_per_gib": c} for r, c in found]}
            for (s, m, b), found in runs.items()
        ]
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _cluster(system: str, mode: str, home: Path, binary: Path) -> Cluster:
    match system:
        case "kafka":
            return KafkaNodes(home, flush=mode == "flush", heap="1g")
        case "ottla":
            target.require_binary(binary)
            return OttlaProcesses(binary)
        case _:
            sys.exit(f"--systems: {system} is neither kafka nor ottla")


def _measure(cluster: Cluster, home: Path, mode: str, size: int, mebibytes: int) -> tuple[Measured, float]:
    topic = f"bench-{size}"
    topics.create(cluster.bootstrap, topic, PARTITIONS, {"flush.messages": _FLUSH_MESSAGES[mode]})
    records = mebibytes * 2**20 // size
    produce(home, cluster.bootstrap, topic, max(1, records // 8), size)  # To warm up both sides.
    before = cluster.cpu_seconds()
    measured = produce(home, cluster.bootstrap, topic, records, size)
    return measured, (cluster.cpu_seconds() - before) * 1024 / mebibytes


def _report(console: Console, runs: dict[Case, list[tuple[Measured, float]]]) -> None:
    rows = []
    for (system, mode, size), found in sorted(runs.items(), key=lambda item: (item[0][1:], item[0][0])):
        rates = [measured.records_per_s for measured, _ in found]
        rows.append((
            mode, size, system, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}",
            statistics.median(m.mib_per_s for m, _ in found), statistics.median(m.p50_ms for m, _ in found),
            statistics.median(m.p99_ms for m, _ in found), statistics.median(cpu for _, cpu in found),
        ))
    header = ("mode", "bytes", "system", "records/s", "range", "MiB/s", "p50, ms", "p99, ms", "CPU s/GiB")
    console.table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
