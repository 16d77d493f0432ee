"""confluent-kafka, that is librdkafka."""

from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from compat.cases import World, case, equal, fresh
from harness import topics
from harness.waiting import until

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def produce(world: World, topic: str, values: list[bytes], **config: Any) -> list[Message]:
    """Sends values to partition 0; the acknowledged messages."""
    producer = Producer({"bootstrap.servers": world.bootstrap, "acks": "all", "linger.ms": 5, **config})
    answers: list[tuple[KafkaError | None, Message]] = []
    for value in values:
        producer.produce(
            topic, value, key=b"key", partition=0, headers=[("h", b"1")], on_delivery=lambda *a: answers.append(a)
        )
    equal(producer.flush(30), 0, "unanswered messages")
    for error, _ in answers:
        if error is not None:
            raise KafkaException(error)
    return [message for _, message in answers]


def consume(consumer: Consumer, count: int, limit_s: float = 30) -> list[Message]:
    """Exactly the next `count` messages."""
    got: list[Message] = []

    def more() -> bool:
        for message in consumer.consume(count - len(got), timeout=0.5):
            if message.error() is not None:
                raise KafkaException(message.error())
            got.append(message)
        return len(got) >= count

    until(f"{count} messages", limit_s, more)
    return got


def group_consumer(world: World, group: str, **config: Any) -> Consumer:
    """A consumer that starts at the beginning where its group has not committed."""
    return Consumer({
        "bootstrap.servers": world.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, **config,
    })


def error_code(future: Any) -> str:
    """The name of the error an admin call ends with."""
    try:
        future.result(30)
    except KafkaException as error:
        return str(error.args[0].name())
    return "NO_ERROR"


@case
def every_codec_round_trips(world: World) -> None:
    topic = fresh("codecs")
    topics.create(world.bootstrap, topic, 1)
    for codec in CODECS:
        produce(world, topic, [f"{codec}-{n}".encode() * 20 for n in range(100)], **{"compression.type": codec})
    consumer = group_consumer(world, fresh("g"), **{"check.crcs": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    got = consume(consumer, 100 * len(CODECS))
    consumer.close()
    equal([m.value() for m in got], [f"{c}-{n}".encode() * 20 for c in CODECS for n in range(100)], "values")
    equal([m.offset() for m in got], list(range(len(got))), "offsets")
    equal(got[0].headers(), [("h", b"1")], "headers")
    equal(got[0].key(), b"key", "key")


@case
def acks_0_1_and_idempotence(world: World) -> None:
    topic = fresh("acks")
    topics.create(world.bootstrap, topic, 1)
    for config in ({"acks": "0"}, {"acks": "1"}, {"enable.idempotence": True}):
        produce(world, topic, [b"x"] * 50, **config)
    consumer = group_consumer(world, fresh("g"))
    partition = TopicPartition(topic, 0)
    # Nobody waits for what was sent with acks=0.
    until("150 records", 10, lambda: consumer.get_watermark_offsets(partition, timeout=10) == (0, 150))
    consumer.close()


@case
def offsets_by_time(world: World) -> None:
    topic = fresh("times")
    topics.create(world.bootstrap, topic, 1)
    producer = Producer({"bootstrap.servers": world.bootstrap, "acks": "all", "linger.ms": 0})
    for n in range(10):
        producer.produce(topic, b"v", partition=0, timestamp=1_700_000_000_000 + n * 1000)
        producer.flush(10)
    consumer = group_consumer(world, fresh("g"))

    def at(timestamp: int) -> int:
        return int(consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], timeout=10)[0].offset)

    equal(at(1_700_000_000_000), 0, "at the first timestamp")
    equal(at(1_700_000_004_500), 5, "between two timestamps")
    equal(at(1_700_000_099_000), -1, "after the last (the end)")
    consumer.close()


@case
def a_group_resumes_where_it_committed(world: World) -> None:
    topic, group = fresh("resume"), fresh("g")
    topics.create(world.bootstrap, topic, 1)
    produce(world, topic, [str(n).encode() for n in range(20)])
    first = group_consumer(world, group)
    first.subscribe([topic])
    equal([m.value() for m in consume(first, 12)], [str(n).encode() for n in range(12)], "first consumer")
    first.commit(offsets=[TopicPartition(topic, 0, 12)], asynchronous=False)
    first.close()
    second = group_consumer(world, group)
    second.subscribe([topic])
    equal([m.value() for m in consume(second, 8)], [str(n).encode() for n in range(12, 20)], "second consumer")
    equal(second.committed([TopicPartition(topic, 0)], timeout=10)[0].offset, 12, "committed")
    second.close()


@case
def two_members_share_the_partitions(world: World) -> None:
    topic, group = fresh("share"), fresh("g")
    topics.create(world.bootstrap, topic, 4)
    members = [group_consumer(world, group, **{"session.timeout.ms": 10_000}) for _ in range(2)]
    for member in members:
        member.subscribe([topic])

    def balanced() -> bool:
        for member in members:
            member.poll(0.1)
        return sorted(len(member.assignment()) for member in members) == [2, 2]

    until("two partitions for each member", 60, balanced)
    all_assigned = sorted(p.partition for member in members for p in member.assignment())
    equal(all_assigned, [0, 1, 2, 3], "assigned partitions")
    admin = topics.admin(world.bootstrap)
    listed = {g.group_id for g in admin.list_consumer_groups(request_timeout=10).result().valid}
    equal(group in listed, True, "the group is listed")
    described = admin.describe_consumer_groups([group], request_timeout=10)[group].result()
    equal(len(described.members), 2, "described members")
    equal(described.state.name, "STABLE", "state")
    members[1].close()

    def taken_over() -> bool:
        members[0].poll(0.1)
        return len(members[0].assignment()) == 4

    until("all partitions for the one that stays", 30, taken_over)
    members[0].close()


@case
def topics_and_configs_over_the_admin_api(world: World) -> None:
    admin, topic = topics.admin(world.bootstrap), fresh("admin")
    topics.create(world.bootstrap, topic, 2, {"retention.ms": "86400000"})
    again = admin.create_topics([NewTopic(topic, 1, 1)])[topic]
    equal(error_code(again), "TOPIC_ALREADY_EXISTS", "creating twice")
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    until("5 partitions", 10, lambda: len(topics.describe(admin, topic) or {}) == 5)
    fewer = admin.create_partitions([NewPartitions(topic, 3)])[topic]
    equal(error_code(fewer), "INVALID_PARTITIONS", "fewer partitions")
    resource = ConfigResource(ResourceType.TOPIC, topic)
    equal(_config(admin, resource)["retention.ms"].value, "86400000", "retention.ms as created")
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("min.insync.replicas", None, incremental_operation=AlterConfigOpType.DELETE),
    ])
    admin.incremental_alter_configs([change])[change].result(30)
    until("retention.ms as altered", 10, lambda: _config(admin, resource)["retention.ms"].value == "3600000")
    equal(_config(admin, resource)["retention.ms"].is_default, False, "an altered config is no default")
    admin.delete_topics([topic])[topic].result(30)
    until("the topic is gone", 10, lambda: topic not in admin.list_topics(timeout=10).topics)


def _config(admin: Any, resource: ConfigResource) -> dict[str, ConfigEntry]:
    return dict(admin.describe_configs([resource])[resource].result(30))


@case
def bad_requests_are_refused_by_name(world: World) -> None:
    admin = topics.admin(world.bootstrap)
    cases = {
        "INVALID_REPLICATION_FACTOR": NewTopic(fresh("bad"), 1, 9),
        "INVALID_PARTITIONS": NewTopic(fresh("bad"), 0, 1),
        "INVALID_CONFIG": NewTopic(fresh("bad"), 1, 1, config={"retention.ms": "soon"}),
        "TOPIC_EXCEPTION": NewTopic("no/slashes", 1, 1),
    }
    for expected, request in cases.items():
        equal(error_code(admin.create_topics([request])[request.topic]), expected, f"creating {request.topic}")
    unknown = fresh("unknown")
    equal(error_code(admin.delete_topics([unknown])[unknown]), "UNKNOWN_TOPIC_OR_PART", "deleting an unknown topic")


@case
def a_record_too_large_is_refused(world: World) -> None:
    topic = fresh("large")
    topics.create(world.bootstrap, topic, 1, {"max.message.bytes": "1000"})
    try:
        produce(world, topic, [b"x" * 5000])
    except KafkaException as error:
        equal(error.args[0].name(), "MSG_SIZE_TOO_LARGE", "the error")
    else:
        raise AssertionError("5000 bytes were taken with max.message.bytes=1000")
    produce(world, topic, [b"x" * 100])


@case
def producing_creates_a_topic(world: World) -> None:
    topic = fresh("automatic")
    produce(world, topic, [b"x"])
    found = topics.describe(topics.admin(world.bootstrap), topic)
    equal(len(found[0].replicas) if found else 0, 3, "replicas of the topic created")


@case
def the_cluster_describes_itself(world: World) -> None:
    admin = topics.admin(world.bootstrap)
    cluster = admin.describe_cluster(request_timeout=10).result()
    equal(sorted(node.id for node in cluster.nodes), sorted(world.cluster.broker_ids), "nodes")
    equal(bool(cluster.cluster_id), True, "a cluster id")
