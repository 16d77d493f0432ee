"""Our files, read by Kafka's own `kafka-dump-log`."""

import random
import re
from pathlib import Path

from confluent_kafka import Producer

from compat.cases import Skipped, World, case, equal, fresh
from harness import kafka, topics
from harness.local import LocalCluster

_RECORDS = 500
_RECORD_BYTES = 2_000


@case
def segments_indexes_and_snapshots_are_kafkas(world: World) -> None:
    if world.kafka_home is None:
        raise Skipped("KAFKA_HOME is not set")
    if not isinstance(world.cluster, LocalCluster):
        raise Skipped("the data directories are inside containers")
    topic = fresh("disk")
    # Small segments and a dense index: several files of each kind.
    topics.create(world.bootstrap, topic, 1, {"segment.bytes": str(1 << 20), "index.interval.bytes": "1000"})
    _fill(world, topic)
    topics.wait_in_sync(world.cluster, topic)
    for node in world.cluster.broker_ids:
        _check(world.kafka_home, world.cluster.data_dir(node) / f"{topic}-0")


def _fill(world: World, topic: str) -> None:
    noise = random.Random(1)  # Codecs must not shrink it: three segments are to be filled.
    for codec in ("none", "zstd", "lz4"):
        config = {"enable.idempotence": True, "compression.type": codec, "batch.num.messages": 10}
        producer = Producer({"bootstrap.servers": world.bootstrap, **config})
        for n in range(_RECORDS):
            producer.produce(topic, noise.randbytes(_RECORD_BYTES), key=b"%d" % n)
        equal(producer.flush(30), 0, "unanswered records")


def _check(home: Path, partition: Path) -> None:
    def dump(*arguments: str | Path) -> str:
        return kafka.tool(home, "kafka-dump-log.sh", *arguments)

    def named(suffix: str) -> list[Path]:
        return sorted(partition.glob(f"*{suffix}"))

    segments = named(".log")
    if len(segments) < 2:
        raise AssertionError(f"{partition}: {len(segments)} segments, more expected")
    records = dump("--deep-iteration", "--files", ",".join(map(str, segments)))
    offsets = [int(number) for number in re.findall(r"^\| offset: (\d+)", records, re.MULTILINE)]
    equal(offsets, list(range(3 * _RECORDS)), f"offsets in {partition}")
    equal("isvalid: false" in records.lower(), False, "invalid batches")
    # Those of the active segment are preallocated, with zeros at the end.
    indexes = ",".join(map(str, [*named(".index")[:-1], *named(".timeindex")[:-1]]))
    sanity = dump("--index-sanity-check", "--files", indexes)
    equal("mismatch" in sanity.lower() or "corrupt" in sanity.lower(), False, f"index check: {sanity}")
    verified = dump("--verify-index-only", "--files", indexes)
    equal("mismatch" in verified.lower() or "found" in verified.lower(), False, f"index contents: {verified}")
    snapshots = dump("--files", ",".join(map(str, named(".snapshot"))))
    equal("producerId: " in snapshots, True, f"producer snapshots: {snapshots}")
    epochs = (partition / "leader-epoch-checkpoint").read_text().split()
    equal(epochs[0], "0", "version of leader-epoch-checkpoint")
