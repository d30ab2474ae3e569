"""confluent-kafka (librdkafka): every codec and setting, groups with rebalances, administration, errors."""

import random
import threading
import time

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType)

from harness.clients import Member, Sender, consumer, poll_messages, read_assigned, send_all
from harness.net import wait_until

MAX_MESSAGE_BYTES = 1048588
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.fixture
def admin(broker):
    return AdminClient({"bootstrap.servers": broker.bootstrap})


def done(futures):
    """The results of an admin call by name."""
    return {name: future.result(20) for name, future in futures.items()}


# What a record can be made of; every combination goes through every codec.
KEYS = [None, b"", b"key", b"k" * 3000]
VALUES = [None, b"", b"value", bytes(range(256)) * 40]
HEADERS = [None, [("h", b"1")], [("a", None), ("a", b""), ("b", b"\x00\xff")]]
EVERY_RECORD = [{"key": k, "value": v, "headers": h} for k in KEYS for v in VALUES for h in HEADERS]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("acks, idempotent", [("0", False), ("1", False), ("all", False), ("all", True)])
def test_every_record_shape(broker, create, name, codec, acks, idempotent):
    create(name)
    send_all(broker.bootstrap, name, EVERY_RECORD, compression_type=codec, acks=acks, enable_idempotence=idempotent, linger_ms=20)
    # Without acknowledgement the records may still be on their way: the reader waits for them.
    messages = read_assigned(broker.bootstrap, name, 1, len(EVERY_RECORD), check_crcs=True)
    assert [m.offset() for m in messages] == list(range(len(EVERY_RECORD)))
    for message, record in zip(messages, EVERY_RECORD):
        assert (message.key(), message.value(), message.headers()) == (record["key"], record["value"], record["headers"])


@pytest.mark.parametrize("codec", CODECS)
def test_largest_record(broker, create, name, codec):
    """A record that fills max.message.bytes to the last byte, of bytes that don't shrink."""
    create(name)
    # 61 bytes of batch header; the record's own: length 3, attributes, timestamp, offset, key -1, value length 3, headers.
    overhead = 61 + 3 + 1 + 1 + 1 + 1 + 3 + 1
    value = random.Random(1).randbytes(MAX_MESSAGE_BYTES - overhead if codec == "none" else 1_040_000)
    larger = value + b"x" if codec == "none" else random.Random(2).randbytes(1_150_000)
    settings = {"compression_type": codec, "message_max_bytes": 2_000_000}
    assert send_all(broker.bootstrap, name, [value], **settings) == [(0, 0)]
    (message,) = read_assigned(broker.bootstrap, name, 1, 1, check_crcs=True)
    assert message.value() == value

    sender = Sender(broker.bootstrap, **settings)
    sender.send(name, larger)
    sender.finish()
    assert [error.code() for error in sender.errors] == [KafkaError.MSG_SIZE_TOO_LARGE]


def test_record_larger_than_the_fetch_limits_still_comes(broker, create, name):
    create(name)
    send_all(broker.bootstrap, name, [b"a" * 500_000, b"b" * 500_000, b"c"], linger_ms=0, batch_num_messages=1)
    messages = read_assigned(broker.bootstrap, name, 1, 3, fetch_message_max_bytes=1000, max_partition_fetch_bytes=1000)
    assert [m.value()[:1] for m in messages] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("topic_codec", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_topic_compression_type(broker, create, name, codec, topic_codec):
    """compression.type of the topic overrules the producer's: the broker rewrites the batches."""
    create(name, 1, compression_type=topic_codec)
    send_all(broker.bootstrap, name, EVERY_RECORD, compression_type=codec, linger_ms=20)
    messages = read_assigned(broker.bootstrap, name, 1, len(EVERY_RECORD), check_crcs=True)
    assert [(m.offset(), m.key(), m.value(), m.headers()) for m in messages] == [
        (i, r["key"], r["value"], r["headers"]) for i, r in enumerate(EVERY_RECORD)]


@pytest.mark.parametrize("codec", CODECS)
def test_log_append_time(broker, create, name, codec):
    create(name, 1, message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    send_all(broker.bootstrap, name, [{"value": b"x", "timestamp": 1000}, {"value": b"y", "timestamp": 2000}], compression_type=codec, linger_ms=20)
    messages = read_assigned(broker.bootstrap, name, 1, 2, check_crcs=True)
    kind_log_append = 2
    assert {m.timestamp()[0] for m in messages} == {kind_log_append}
    assert all(before - 1 <= m.timestamp()[1] <= time.time() * 1000 + 1 for m in messages)


def test_timestamps_out_of_range_are_refused(broker, create, name):
    create(name)
    sender = Sender(broker.bootstrap)
    sender.send(name, b"from the future", timestamp=int(time.time() * 1000) + 7200_000)
    sender.finish()
    assert [error.code() for error in sender.errors] == [KafkaError.INVALID_TIMESTAMP]
    assert read_end(broker, name) == 0


def read_end(broker, topic, partition=0):
    reader = consumer(broker.bootstrap, "unused")
    try:
        return reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
    finally:
        reader.close()


def test_keyless_record_in_a_compacted_topic_is_refused(broker, create, name):
    create(name, 1, cleanup_policy="compact")
    sender = Sender(broker.bootstrap)
    sender.send(name, b"no key")
    sender.finish()
    assert [error.code() for error in sender.errors] == [KafkaError.INVALID_RECORD]
    assert send_all(broker.bootstrap, name, [{"key": b"k", "value": b"v"}]) == [(0, 0)]


def test_auto_creation(broker, admin, name):
    """Producing to a topic that isn't there makes it; asking for it as a consumer doesn't."""
    assert send_all(broker.bootstrap, name, [b"x"]) == [(0, 0)]
    assert len(admin.list_topics(name, timeout=10).topics[name].partitions) == 1
    reader = consumer(broker.bootstrap, name, allow_auto_create_topics=False)
    reader.subscribe([f"{name}-none"])
    with pytest.raises(KafkaException) as caught:
        poll_messages(reader, 1, 10)
    assert caught.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    reader.close()


def test_idempotent_producer_survives_many_small_batches(broker, create, name):
    create(name, 4)
    count = 20_000
    sent = send_all(broker.bootstrap, name, [{"value": b"%d" % i, "partition": i % 4} for i in range(count)], enable_idempotence=True,
                    batch_num_messages=50, linger_ms=0)
    assert len(sent) == count
    messages = read_assigned(broker.bootstrap, name, 4, count)
    for partition in range(4):
        assert [int(m.value()) for m in messages if m.partition() == partition] == list(range(partition, count, 4))


def test_large_volume_over_many_partitions(broker, create, name):
    create(name, 8)
    count = 100_000
    send_all(broker.bootstrap, name, ({"value": b"%08d" % i, "key": b"%d" % (i % 1000)} for i in range(count)), compression_type="lz4", linger_ms=5)
    messages = read_assigned(broker.bootstrap, name, 8, count)
    assert sorted(int(m.value()) for m in messages) == list(range(count))
    by_key: dict = {}
    for m in messages:
        by_key.setdefault(m.key(), []).append(int(m.value()))
    assert len(by_key) == 1000 and all(values == sorted(values) for values in by_key.values())


# --- groups

STRATEGIES = ["range", "roundrobin", "cooperative-sticky"]


def balanced(members, partitions):
    owned = [p for member in members for p in member.owned]
    return len(owned) == len(set(owned)) == partitions and all(member.owned for member in members)


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_group_of_three_with_rebalances(broker, create, name, strategy, static):
    """Members join one by one, one leaves, one comes back; meanwhile a producer goes on. Nothing is lost, order holds."""
    create(name, 6)
    members: list[Member] = []

    def join(index):
        settings = {"group_instance_id": f"{name}-{index}"} if static else {}
        member = Member(broker.bootstrap, name, [name], partition_assignment_strategy=strategy, session_timeout_ms=6000, **settings)
        member.start()
        members.append(member)
        return member

    stop = threading.Event()
    sender = Sender(broker.bootstrap, enable_idempotence=True)
    sent = 0

    def produce():
        nonlocal sent
        while not stop.is_set():
            sender.send(name, b"%d" % sent, partition=sent % 6)
            sent += 1
            time.sleep(0.002)
    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for index in range(3):
            join(index)
            wait_until(f"{index + 1} members share the partitions", lambda: balanced(members, 6), 30)
        gone = members.pop(1)
        gone.leave()
        # A static member keeps its partitions until its session ends.
        wait_until("two members share the partitions", lambda: balanced(members, 6), 30)
        join(1)
        wait_until("three members share the partitions again", lambda: balanced(members, 6), 30)
    finally:
        stop.set()
        producer.join()
        sender.finish()
    assert not sender.errors
    everyone = [*members, gone]

    def read():
        return {(m.partition(), m.offset()) for member in everyone for m in member.messages}
    wait_until("all that was sent is read", lambda: len(read()) == sent, 30)
    wait_until("all that was read is committed", lambda: not any(member.uncommitted for member in members), 30)
    for member in members:
        member.leave()
    assert [member.error for member in everyone] == [None] * 4
    for member in everyone:
        order: dict = {}
        for rebalances, message in member.received:
            order.setdefault((rebalances, message.partition()), []).append(int(message.value()))
        assert all(values == sorted(set(values)) for values in order.values())
    # What was committed is the end: nothing comes twice, nothing is left.
    reader = consumer(broker.bootstrap, name)
    committed = reader.committed([TopicPartition(name, p) for p in range(6)], timeout=10)
    reader.close()
    assert sum(p.offset for p in committed) == sent, committed
    if strategy == "cooperative-sticky" and not static:
        # KIP-429: the first member never gave all of its partitions up at once.
        assert all(len(gone_now) < 6 for gone_now in members[0].revoked[:-1])


def test_static_member_returns_without_a_rebalance(broker, create, name):
    """KIP-345: a member with an instance id that restarts within its session gets its partitions back quietly."""
    create(name, 2)

    def join(index):
        member = Member(broker.bootstrap, name, [name], group_instance_id=f"{name}-{index}", session_timeout_ms=20000)
        member.start()
        return member
    first, second = join(0), join(1)
    wait_until("both have a partition", lambda: balanced([first, second], 2))
    before, rebalances = set(second.owned), first.rebalances
    second.leave()
    second = join(1)
    wait_until("the member has its partition back", lambda: second.owned == before)
    assert first.rebalances == rebalances
    first.leave()
    second.leave()


def test_two_static_members_of_one_name_fence(broker, create, name):
    create(name)
    first = Member(broker.bootstrap, name, [name], group_instance_id="same", session_timeout_ms=20000)
    first.start()
    wait_until("the first is there", lambda: first.owned)
    second = Member(broker.bootstrap, name, [name], group_instance_id="same", session_timeout_ms=20000)
    second.start()
    wait_until("the first is fenced", lambda: first.error is not None)
    assert first.error.args[0].code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL)
    wait_until("the second has the partition", lambda: second.owned)
    second.leave()


def test_member_that_dies_is_replaced_after_its_session(broker, create, name):
    create(name, 2)
    dead = consumer(broker.bootstrap, name, session_timeout_ms=6000, max_poll_interval_ms=6000)
    dead.subscribe([name])
    wait_until("it has both partitions", lambda: dead.poll(0.2) or len(dead.assignment()) == 2)
    other = Member(broker.bootstrap, name, [name], session_timeout_ms=6000)
    other.start()
    # It isn't polled any more, and so neither rejoins nor leaves.
    wait_until("the other has both partitions", lambda: len(other.owned) == 2, 30)
    other.leave()
    # Nor is it closed: librdkafka's close can wait for ever, holding the interpreter's lock, where a revocation after
    # max.poll.interval.ms hasn't been served; it does so against Apache Kafka too.


def test_subscription_by_pattern_follows_new_topics(broker, create, name):
    create(f"{name}.a")
    member = Member(broker.bootstrap, name, [f"^{name}[.].*"], topic_metadata_refresh_interval_ms=500)
    member.start()
    wait_until("the first topic is assigned", lambda: member.owned == {(f"{name}.a", 0)})
    create(f"{name}.b")
    wait_until("the second topic is assigned", lambda: member.owned == {(f"{name}.a", 0), (f"{name}.b", 0)})
    member.leave()


def test_new_partitions_are_assigned(broker, admin, create, name):
    create(name, 1)
    member = Member(broker.bootstrap, name, [name], topic_metadata_refresh_interval_ms=500)
    member.start()
    wait_until("the partition is assigned", lambda: len(member.owned) == 1)
    done(admin.create_partitions([NewPartitions(name, 3)]))
    wait_until("all three are assigned", lambda: len(member.owned) == 3)
    member.leave()


def test_commit_metadata_and_large_offsets(broker, create, name):
    create(name)
    reader = consumer(broker.bootstrap, name)
    reader.commit(offsets=[TopicPartition(name, 0, 2**62, metadata="note: ünï")], asynchronous=False)
    (back,) = reader.committed([TopicPartition(name, 0)], timeout=10)
    assert (back.offset, back.metadata) == (2**62, "note: ünï")
    with pytest.raises(KafkaException) as caught:
        reader.commit(offsets=[TopicPartition(name, 0, 1, metadata="x" * 4097)], asynchronous=False)
    assert caught.value.args[0].code() == KafkaError.OFFSET_METADATA_TOO_LARGE
    reader.close()


# --- fetch

def test_long_poll_answers_when_data_arrives(broker, create, name):
    """A waiting fetch is completed by the append, not by a timer: far below fetch.wait.max.ms."""
    create(name)
    send_all(broker.bootstrap, name, [b"first"])
    reader = consumer(broker.bootstrap, "unused", fetch_wait_max_ms=20000, socket_timeout_ms=60000)
    reader.assign([TopicPartition(name, 0, 0)])
    poll_messages(reader, 1)
    latencies = []
    sender = Sender(broker.bootstrap, linger_ms=0)
    for i in range(20):
        time.sleep(0.05)
        began = time.monotonic()
        sender.send(name, b"%d" % i)
        sender.producer.flush(10)
        poll_messages(reader, 1)
        latencies.append(time.monotonic() - began)
    reader.close()
    assert sorted(latencies)[len(latencies) // 2] < 0.25, latencies


def test_offset_out_of_range_resets(broker, create, name):
    create(name)
    send_all(broker.bootstrap, name, [b"a", b"b"])
    reader = consumer(broker.bootstrap, "unused", auto_offset_reset="error")
    reader.assign([TopicPartition(name, 0, 99)])
    with pytest.raises(KafkaException) as caught:
        poll_messages(reader, 1, 15)
    assert caught.value.args[0].code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)
    reader.close()
    reader = consumer(broker.bootstrap, "unused", auto_offset_reset="earliest")
    reader.assign([TopicPartition(name, 0, 99)])
    assert poll_messages(reader, 1)[0].value() == b"a"
    reader.close()


def test_offsets_for_times(broker, create, name):
    create(name)
    base = int(time.time() * 1000) - 100_000
    send_all(broker.bootstrap, name, [{"value": b"%d" % i, "timestamp": base + i * 1000} for i in range(10)])
    reader = consumer(broker.bootstrap, "unused")
    for stamp, offset in ((base, 0), (base + 1, 1), (base + 9000, 9), (base + 9001, -1), (0, 0)):
        (found,) = reader.offsets_for_times([TopicPartition(name, 0, stamp)], timeout=10)
        assert found.offset == offset, stamp
    reader.close()


def test_offsets_by_timestamp_over_many_index_entries(broker, create, name):
    """Several segments and index entries: every answer is the first record at or after the time."""
    create(name, 1, segment_bytes=1048576, index_interval_bytes=4096)
    base = int(time.time() * 1000) - 10_000_000
    count = 3000
    send_all(broker.bootstrap, name, [{"value": b"x" * 1000, "timestamp": base + i * 1000} for i in range(count)], batch_num_messages=10)
    reader = consumer(broker.bootstrap, "unused")
    for i in range(0, count, 97):
        (found,) = reader.offsets_for_times([TopicPartition(name, 0, base + i * 1000)], timeout=10)
        assert found.offset == i
        (found,) = reader.offsets_for_times([TopicPartition(name, 0, base + i * 1000 - 999)], timeout=10)
        assert found.offset == i
    reader.close()


# --- administration

def test_admin_topics(admin, name):
    assert done(admin.create_topics([NewTopic(name, 2, 1, config={"retention.ms": "5000"}), NewTopic(f"{name}-2", 1, 1)])) == {name: None, f"{name}-2": None}
    with pytest.raises(KafkaException) as caught:
        done(admin.create_topics([NewTopic(name, 1, 1)]))
    assert caught.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    done(admin.create_topics([NewTopic(f"{name}-dry", 1, 1)], validate_only=True))
    assert f"{name}-dry" not in admin.list_topics(timeout=10).topics

    described = done(admin.describe_topics(TopicCollection([name])))[name]
    assert [p.id for p in described.partitions] == [0, 1] and described.partitions[0].leader.id == 1
    assert not described.is_internal

    done(admin.create_partitions([NewPartitions(name, 4)]))
    wait_until("four partitions", lambda: len(admin.list_topics(name, timeout=10).topics[name].partitions) == 4)

    assert done(admin.delete_topics([name, f"{name}-2"])) == {name: None, f"{name}-2": None}
    wait_until("the topics are gone", lambda: not {name, f"{name}-2"} & set(admin.list_topics(timeout=10).topics))
    with pytest.raises(KafkaException) as caught:
        done(admin.delete_topics([name]))
    assert caught.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_created_topic_can_be_used_at_once(broker, admin, name):
    """The answer to CreateTopics leaves when every core knows the topic."""
    for i in range(20):
        topic = f"{name}-{i}"
        done(admin.create_topics([NewTopic(topic, 4, 1)]))
        sent = send_all(broker.bootstrap, topic, [{"value": b"x", "partition": p} for p in range(4)], allow_auto_create_topics=False)
        assert sorted(sent) == [(p, 0) for p in range(4)]
        done(admin.delete_topics([topic]))


def test_admin_configs(admin, create, name):
    create(name)
    resource = ConfigResource(ResourceType.TOPIC, name)
    resource.add_incremental_config(ConfigEntry("retention.ms", "7000", incremental_operation=AlterConfigOpType.SET))
    resource.add_incremental_config(ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND))
    done(admin.incremental_alter_configs([resource]))
    configs = done(admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]))
    entries = next(iter(configs.values()))
    assert (entries["retention.ms"].value, entries["retention.ms"].source, entries["retention.ms"].is_default) == ("7000", 1, False)
    assert entries["cleanup.policy"].value == "delete,compact"
    assert (entries["segment.bytes"].value, entries["segment.bytes"].source) == ("1073741824", 5)

    resource = ConfigResource(ResourceType.TOPIC, name)
    resource.add_incremental_config(ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SUBTRACT))
    resource.add_incremental_config(ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE))
    done(admin.incremental_alter_configs([resource]))
    entries = next(iter(done(admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)])).values()))
    assert entries["cleanup.policy"].value == "compact" and entries["retention.ms"].source == 5

    # The old request replaces everything that is set.
    done(admin.alter_configs([ConfigResource(ResourceType.TOPIC, name, set_config={"segment.bytes": "2000000"})]))
    entries = next(iter(done(admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)])).values()))
    assert entries["segment.bytes"].value == "2000000" and entries["cleanup.policy"].source == 5

    for key, value in (("no.such", "1"), ("retention.ms", "x")):
        resource = ConfigResource(ResourceType.TOPIC, name)
        resource.add_incremental_config(ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET))
        with pytest.raises(KafkaException) as caught:
            done(admin.incremental_alter_configs([resource]))
        assert caught.value.args[0].code() == KafkaError.INVALID_CONFIG


def test_admin_cluster_and_groups(admin, broker, create, name):
    cluster = admin.describe_cluster().result(10)
    assert cluster.cluster_id == broker.cluster_id
    assert [(node.id, node.host, node.port) for node in cluster.nodes] == [(1, "127.0.0.1", broker.port)]

    create(name, 2)
    member = Member(broker.bootstrap, name, [name], client_id="who")
    member.start()
    wait_until("assigned", lambda: len(member.owned) == 2)
    groups = admin.list_consumer_groups().result(10)
    assert not groups.errors and name in {g.group_id for g in groups.valid}
    described = done(admin.describe_consumer_groups([name]))[name]
    assert described.state.name == "STABLE" and described.partition_assignor == "range" and not described.is_simple_consumer_group
    assert described.coordinator.id == 1
    (only,) = described.members
    assert only.client_id == "who" and only.host == "/127.0.0.1"
    assert {(p.topic, p.partition) for p in only.assignment.topic_partitions} == {(name, 0), (name, 1)}
    member.leave()

    wanted = ConsumerGroupTopicPartitions(name, [TopicPartition(name, 0, 5)])
    done(admin.alter_consumer_group_offsets([wanted]))
    (listed,) = done(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])).values()
    assert [(p.topic, p.partition, p.offset) for p in listed.topic_partitions] == [(name, 0, 5)]
    done(admin.delete_consumer_groups([name]))
    with pytest.raises(KafkaException) as caught:
        done(admin.delete_consumer_groups([name]))
    assert caught.value.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND


def test_admin_list_and_delete_records(admin, broker, create, name):
    create(name)
    base = int(time.time() * 1000) - 5000
    send_all(broker.bootstrap, name, [{"value": b"x", "timestamp": base + (4000 if i == 3 else i)} for i in range(10)], batch_num_messages=1)
    partition = TopicPartition(name, 0)

    def offset(spec):
        (result,) = done(admin.list_offsets({partition: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED)).values()
        return result.offset
    assert (offset(OffsetSpec.earliest()), offset(OffsetSpec.latest()), offset(OffsetSpec.max_timestamp())) == (0, 10, 3)
    assert offset(OffsetSpec.for_timestamp(base + 2)) == 2
    (deleted,) = done(admin.delete_records([TopicPartition(name, 0, 6)])).values()
    assert deleted.low_watermark == 6
    assert offset(OffsetSpec.earliest()) == 6
