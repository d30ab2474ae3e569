"""aiokafka: a client with no line of librdkafka or of Kafka's own in it."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import MessageSizeTooLargeError

from harness.records import now_ms

SHAPES = [{"key": k, "value": v, "headers": h} for k in (None, b"", b"key") for v in (None, b"", b"value" * 500) for h in ([], [("h", b"1"), ("h", b"")])
          # The client itself refuses a record without both.
          if k is not None or v is not None]


async def until(what, condition, timeout=30.0):
    async def loop():
        while not condition():
            await asyncio.sleep(0.05)
    try:
        await asyncio.wait_for(loop(), timeout)
    except asyncio.TimeoutError:
        raise AssertionError(f"waited {timeout} s in vain until {what}") from None


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("acks, idempotent", [(0, False), (1, False), ("all", False), ("all", True)])
def test_every_record_shape(broker, create, name, codec, acks, idempotent):
    create(name)

    async def main():
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, compression_type=codec, acks=acks, enable_idempotence=idempotent, linger_ms=10) as producer:
            sent = [await producer.send(name, partition=0, **shape) for shape in SHAPES]
            await producer.flush()
            if acks != 0:
                assert [(await future).offset for future in sent] == list(range(len(SHAPES)))
        async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", check_crcs=True) as reader:
            reader.assign([TopicPartition(name, 0)])
            for offset, shape in enumerate(SHAPES):
                message = await asyncio.wait_for(reader.getone(), 15)
                assert (message.offset, message.key, message.value, list(message.headers)) == (offset, shape["key"], shape["value"], shape["headers"])
    asyncio.run(main())


@pytest.mark.parametrize("assignor", [RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor], ids=["range", "roundrobin", "sticky"])
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_group_of_three_with_rebalances(broker, create, name, assignor, static):
    create(name, 6)

    async def main():
        received: list[tuple[int, int]] = []
        tasks: dict = {}

        async def join(index):
            extra = {"group_instance_id": f"{name}-{index}"} if static else {}
            reader = AIOKafkaConsumer(name, bootstrap_servers=broker.bootstrap, group_id=name, auto_offset_reset="earliest", enable_auto_commit=False,
                                      session_timeout_ms=6000, heartbeat_interval_ms=300, partition_assignment_strategy=[assignor], **extra)
            await reader.start()

            async def read():
                async for message in reader:
                    received.append((message.partition, message.offset))
                    await reader.commit({TopicPartition(name, message.partition): message.offset + 1})
            tasks[reader] = asyncio.create_task(read())
            return reader

        async def leave(reader):
            tasks.pop(reader).cancel()
            await reader.stop()

        def shared():
            owned = [p.partition for reader in tasks for p in reader.assignment()]
            return sorted(owned) == list(range(6)) and all(reader.assignment() for reader in tasks)

        sent = 0
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True) as producer:
            async def produce():
                nonlocal sent
                for _ in range(60):
                    await producer.send_and_wait(name, b"%d" % sent, partition=sent % 6)
                    sent += 1
            readers = []
            for index in range(3):
                readers.append(await join(index))
                await until(f"{index + 1} members share the partitions", shared)
                await produce()
            await leave(readers[1])
            await until("two members share the partitions", shared)
            await produce()
            await join(1)
            await until("three members share the partitions again", shared)
            await produce()
        await until("everything is read", lambda: len(set(received)) == sent)
        for reader in list(tasks):
            await leave(reader)
        async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, group_id=name, enable_auto_commit=False) as reader:
            committed = [await reader.committed(TopicPartition(name, p)) for p in range(6)]
        assert committed == [sent // 6] * 6
    asyncio.run(main())


def test_message_too_large(broker, create, name):
    create(name, 1, max_message_bytes=1000)

    async def main():
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, max_request_size=5_000_000) as producer:
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait(name, b"x" * 2000)
            assert (await producer.send_and_wait(name, b"x" * 500)).offset == 0
    asyncio.run(main())


def test_admin_and_offsets(broker, name):
    base = now_ms() - 3600_000

    async def main():
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, 2, 1)])
            (described,) = await admin.describe_topics([name])
            assert described["topic"] == name and len(described["partitions"]) == 2
            async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
                for i in range(5):
                    await producer.send_and_wait(name, b"%d" % i, partition=1, timestamp_ms=base + i)
            partition = TopicPartition(name, 1)
            async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap) as reader:
                assert await reader.beginning_offsets([partition]) == {partition: 0}
                assert await reader.end_offsets([partition]) == {partition: 5}
                found = await reader.offsets_for_times({partition: base + 3})
                assert found[partition].offset == 3
            await admin.delete_topics([name])
        finally:
            await admin.close()
    asyncio.run(main())
