"""One run of `kafka-producer-perf-test`."""

import re
from dataclasses import dataclass
from pathlib import Path

from harness import kafka

_SUMMARY = re.compile(
    r"(?P<records>\d+) records sent, (?P<rate>[\d.]+) records/sec \((?P<mib>[\d.]+) MB/sec\), "
    r"(?P<avg>[\d.]+) ms avg latency, (?P<max>[\d.]+) ms max latency, "
    r"(?P<p50>\d+) ms 50th, (?P<p95>\d+) ms 95th, (?P<p99>\d+) ms 99th, (?P<p999>\d+) ms 99\.9th"
)


@dataclass(frozen=True)
class Measured:
    """What the tool printed last."""

    records: int
    records_per_s: float
    mib_per_s: float
    avg_ms: float
    p50_ms: int
    p99_ms: int
    p999_ms: int
    max_ms: float


def produce(home: Path, bootstrap: str, topic: str, records: int, size: int) -> Measured:
    """Sends `records` records of `size` bytes as fast as they go, acks=all, the client's defaults otherwise."""
    output = kafka.tool(
        home, "kafka-producer-perf-test.sh", "--bootstrap-server", bootstrap, "--topic", topic,
        "--num-records", str(records), "--record-size", str(size), "--throughput", "-1",
        "--command-property", "acks=all", jvm=kafka.FULL_JVM, limit_s=600,
    )
    found = list(_SUMMARY.finditer(output))
    if not found or int(found[-1]["records"]) != records:
        raise RuntimeError(f"kafka-producer-perf-test: no summary of {records} records in:\n{output[-2000:]}")
    last = found[-1]
    return Measured(
        int(last["records"]), float(last["rate"]), float(last["mib"]), float(last["avg"]),
        int(last["p50"]), int(last["p99"]), int(last["p999"]), float(last["max"]),
    )
