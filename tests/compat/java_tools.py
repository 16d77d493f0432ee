"""Kafka's own command-line tools, that is the Java clients."""

import re

from compat.cases import Skipped, World, case, contains, equal, fresh
from harness import kafka, topics


def _tool(world: World, name: str, *arguments: str, stdin: str | None = None) -> str:
    if world.kafka_home is None:
        raise Skipped("KAFKA_HOME is not set")
    return kafka.tool(
        world.kafka_home, f"kafka-{name}.sh", *arguments, "--bootstrap-server", world.bootstrap, stdin=stdin
    )


def _console_produce(world: World, topic: str, lines: int) -> None:
    text = "".join(f"key{n % 5}:line {n}\n" for n in range(lines))
    properties = ("--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
    _tool(world, "console-producer", "--topic", topic, *properties, stdin=text)


@case
def topics_are_created_described_altered_deleted(world: World) -> None:
    topic = fresh("jt")
    shape = ("--partitions", "3", "--replication-factor", "3", "--config", "retention.ms=3600000")
    _tool(world, "topics", "--create", "--topic", topic, *shape)
    described = _tool(world, "topics", "--describe", "--topic", topic)
    contains(described, ["PartitionCount: 3", "ReplicationFactor: 3", "retention.ms=3600000"], "describe")
    equal(len(re.findall(r"Leader: [123]\b", described)), 3, "led partitions")
    contains(_tool(world, "topics", "--list"), [topic], "list")
    _tool(world, "topics", "--alter", "--topic", topic, "--partitions", "6")
    contains(_tool(world, "topics", "--describe", "--topic", topic), ["PartitionCount: 6"], "after alter")
    _tool(world, "topics", "--delete", "--topic", topic)
    equal(topic in _tool(world, "topics", "--list").split(), False, "listed after delete")


@case
def a_bad_config_value_is_refused(world: World) -> None:
    topic = fresh("jtbad")
    try:
        _tool(world, "topics", "--create", "--topic", topic, "--config", "flush.messages=0")
    except RuntimeError as error:
        contains(str(error), ["flush.messages"], "the refusal names the key")
    else:
        raise AssertionError("flush.messages=0 was taken")


@case
def configs_are_described_and_altered(world: World) -> None:
    topic = fresh("jc")
    topics.create(world.bootstrap, topic, 1)
    entity = ("--entity-type", "topics", "--entity-name", topic)
    _tool(world, "configs", *entity, "--alter", "--add-config", "retention.ms=1234567,max.message.bytes=2000000")
    described = _tool(world, "configs", *entity, "--describe")
    contains(described, ["retention.ms=1234567", "max.message.bytes=2000000"], "describe")
    _tool(world, "configs", *entity, "--alter", "--delete-config", "retention.ms")
    equal("retention.ms=1234567" in _tool(world, "configs", *entity, "--describe"), False, "after delete")
    every = _tool(world, "configs", *entity, "--describe", "--all")
    contains(every, ["cleanup.policy=delete", "segment.bytes=", "flush.messages="], "describe --all")
    broker = str(world.cluster.broker_ids[0])
    of_broker = _tool(world, "configs", "--entity-type", "brokers", "--entity-name", broker, "--describe", "--all")
    contains(of_broker, [f"node.id={broker} ", "log.segment.bytes="], "a broker's configs")


@case
def the_console_clients_and_offsets(world: World) -> None:
    topic, group = fresh("console"), fresh("g")
    topics.create(world.bootstrap, topic, 3)
    _console_produce(world, topic, 60)
    read = _tool(
        world, "console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "60", "--group", group,
        "--timeout-ms", "30000",
    )
    equal(sorted(read.splitlines()), sorted(f"line {n}" for n in range(60)), "lines read")
    ends = _tool(world, "get-offsets", "--topic", topic, "--time", "latest")
    equal(sum(int(line.split(":")[2]) for line in ends.split()), 60, "sum of end offsets")
    starts = _tool(world, "get-offsets", "--topic", topic, "--time", "earliest")
    equal(sum(int(line.split(":")[2]) for line in starts.split()), 0, "sum of start offsets")
    contains(_tool(world, "consumer-groups", "--list"), [group], "list of groups")
    rows = _lag(_tool(world, "consumer-groups", "--describe", "--group", group), group)
    equal(sum(current for current, _, _ in rows), 60, "sum of committed offsets")
    equal([lag for _, _, lag in rows], [0] * len(rows), "lag")
    state = _tool(world, "consumer-groups", "--describe", "--group", group, "--state")
    contains(state, [group, "Empty"], "state")


def _lag(described: str, group: str) -> list[tuple[int, int, int]]:
    """(current offset, end offset, lag) of each partition described."""
    found = re.findall(rf"^{group}\s+\S+\s+\d+\s+(\d+)\s+(\d+)\s+(\d+)", described, re.MULTILINE)
    if not found:
        raise AssertionError(f"no partitions in\n{described}")
    return [(int(current), int(end), int(lag)) for current, end, lag in found]


@case
def offsets_of_a_group_are_reset(world: World) -> None:
    topic, group = fresh("reset"), fresh("g")
    topics.create(world.bootstrap, topic, 1)
    _console_produce(world, topic, 10)
    reset = ("--reset-offsets", "--to-offset", "4", "--topic", topic, "--execute")
    _tool(world, "consumer-groups", "--group", group, *reset)
    rows = _lag(_tool(world, "consumer-groups", "--describe", "--group", group), group)
    equal(rows, [(4, 10, 6)], "current, end, lag")


@case
def api_versions_and_cluster_id(world: World) -> None:
    versions = _tool(world, "broker-api-versions")
    contains(versions, ["Produce(0): ", "Fetch(1): ", "ApiVersions(18): "], "api versions")
    equal(len(re.findall(r"\(id: [123] rack", versions)), 3, "brokers")
    contains(_tool(world, "cluster", "cluster-id"), ["Cluster ID: "], "cluster id")
