"""kcat, as Debian ships it: an older librdkafka than the one in confluent-kafka."""

import json
import shutil
import subprocess

from compat.cases import Skipped, World, case, equal, fresh
from harness import topics


def _kcat(world: World, *arguments: str, stdin: str = "") -> str:
    command = shutil.which("kcat") or shutil.which("kafkacat")
    if command is None:
        raise Skipped("kcat is not installed (apt-get install kcat)")
    done = subprocess.run(
        [command, "-b", world.bootstrap, *arguments], input=stdin, capture_output=True, text=True, timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"kcat {arguments}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


@case
def produces_consumes_and_queries(world: World) -> None:
    topic = fresh("kcat")
    topics.create(world.bootstrap, topic, 2)
    lines = "".join(f"k{n}:value {n}\n" for n in range(50))
    _kcat(world, "-P", "-t", topic, "-p", "0", "-K", ":", "-z", "gzip", "-X", "acks=all", stdin=lines)
    read = _kcat(world, "-C", "-t", topic, "-e", "-q", "-K", ":", "-o", "beginning")
    equal(sorted(read.splitlines()), sorted(lines.splitlines()), "lines")
    tail = _kcat(world, "-C", "-t", topic, "-p", "0", "-e", "-q", "-o", "-3")
    equal(tail.splitlines(), ["value 47", "value 48", "value 49"], "the last three")
    metadata = json.loads(_kcat(world, "-L", "-J", "-t", topic))
    equal(sorted(b["id"] for b in metadata["brokers"]), sorted(world.cluster.broker_ids), "brokers")
    equal(len(metadata["topics"][0]["partitions"]), 2, "partitions")
    equal(_kcat(world, "-Q", "-t", f"{topic}:0:-1").split()[-1], "50", "the end offset")
    equal(_kcat(world, "-Q", "-t", f"{topic}:0:-2").split()[-1], "0", "the start offset")
