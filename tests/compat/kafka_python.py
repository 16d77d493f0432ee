"""kafka-python, written from the protocol's description alone."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError

from compat.cases import World, case, equal, fresh
from harness import topics
from harness.waiting import until


@case
def produces_and_consumes_in_a_group(world: World) -> None:
    topic, group, servers = fresh("kp"), fresh("g"), world.bootstrap.split(",")
    topics.create(world.bootstrap, topic, 3)
    for codec in (None, "gzip", "zstd"):
        producer = KafkaProducer(bootstrap_servers=servers, acks="all", compression_type=codec, linger_ms=5)
        sent = [producer.send(topic, value=b"%d" % n, key=b"%d" % (n % 7), headers=[("a", b"b")]) for n in range(100)]
        producer.flush(30)
        for future in sent:
            future.get(30)
        producer.close()
    consumer = KafkaConsumer(
        topic, bootstrap_servers=servers, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
    )
    got: list[int] = []

    def all_read() -> bool:
        for records in consumer.poll(timeout_ms=500).values():
            got.extend(int(record.value) for record in records)
        return len(got) >= 300

    until("300 records", 60, all_read)
    equal(sorted(got), sorted(list(range(100)) * 3), "values")
    consumer.commit()
    committed = sum(consumer.committed(TopicPartition(topic, n)) or 0 for n in range(3))
    equal(committed, 300, "sum of committed offsets")
    consumer.close()


@case
def idempotent_produce(world: World) -> None:
    topic, servers = fresh("kpi"), world.bootstrap.split(",")
    topics.create(world.bootstrap, topic, 1)
    producer = KafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    offsets = [producer.send(topic, b"x", partition=0).get(30).offset for _ in range(20)]
    producer.close()
    equal(offsets, list(range(20)), "offsets")


@case
def seeks_and_looks_up_offsets(world: World) -> None:
    topic, servers = fresh("kps"), world.bootstrap.split(",")
    topics.create(world.bootstrap, topic, 1)
    producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    for n in range(10):
        producer.send(topic, b"%d" % n, partition=0, timestamp_ms=1_700_000_000_000 + n).get(30)
    producer.close()
    consumer, partition = KafkaConsumer(bootstrap_servers=servers), TopicPartition(topic, 0)
    consumer.assign([partition])
    equal(consumer.beginning_offsets([partition])[partition], 0, "beginning")
    equal(consumer.end_offsets([partition])[partition], 10, "end")
    equal(consumer.offsets_for_times({partition: 1_700_000_000_004})[partition].offset, 4, "by time")
    consumer.seek(partition, 7)
    got: list[bytes] = []

    def all_read() -> bool:
        for records in consumer.poll(timeout_ms=500).values():
            got.extend(record.value for record in records)
        return len(got) >= 3

    until("3 records", 30, all_read)
    equal(got, [b"7", b"8", b"9"], "after the seek")
    consumer.close()


@case
def administers_topics(world: World) -> None:
    topic, admin = fresh("kpa"), KafkaAdminClient(bootstrap_servers=world.bootstrap.split(","))
    admin.create_topics([NewTopic(topic, 2, 3)])
    try:
        admin.create_topics([NewTopic(topic, 2, 3)])
    except TopicAlreadyExistsError:
        pass
    else:
        raise AssertionError("a topic was created twice")
    until("the topic is listed", 10, lambda: topic in admin.list_topics())
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    equal("retention.ms" in str(described), True, "retention.ms is described")
    admin.delete_topics([topic])
    until("the topic is gone", 10, lambda: topic not in admin.list_topics())
    admin.close()
