"""aiokafka."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from compat.cases import World, case, equal, fresh
from harness import topics


@case
def produces_and_consumes_in_a_group(world: World) -> None:
    topic, group = fresh("aio"), fresh("g")
    topics.create(world.bootstrap, topic, 2)
    asyncio.run(asyncio.wait_for(_round_trip(world.bootstrap, topic, group), 60))


async def _round_trip(bootstrap: str, topic: str, group: str) -> None:
    codecs = (None, "gzip", "snappy", "lz4", "zstd")
    for codec in codecs:
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, compression_type=codec
        )
        async with producer:
            await asyncio.gather(*[
                producer.send_and_wait(topic, b"%d" % n, partition=n % 2) for n in range(50)
            ])
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
    )
    expected = 50 * len(codecs)
    got: list[int] = []
    async with consumer:
        while len(got) < expected:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                got.extend(int(record.value) for record in records if record.value)
        await consumer.commit()
        committed = [await consumer.committed(TopicPartition(topic, n)) for n in range(2)]
    equal(sorted(got), sorted(list(range(50)) * len(codecs)), "values")
    equal(sum(offset or 0 for offset in committed), expected, "sum of committed offsets")
