"""What is there after a stop: topics, configs, records, groups and offsets; and Apache Kafka taking the directory over."""

import re

import pytest
from confluent_kafka import TopicPartition

from harness.broker import KafkaBroker
from harness.clients import commit_offsets, consumer, poll_messages, read_assigned, send_all
from harness.net import wait_until
from harness.records import Record, batch
from harness.wire import Connection

pytestmark = pytest.mark.allow_log("unclean|recover|truncat|clean shutdown")


def fill(node, tools):
    """Topics with configs, records of every codec, a group that read half, a broker config and a group config."""
    tools("kafka-topics", "--create", "--topic", "kept", "--partitions", 3, "--config", "retention.ms=86400000", "--config", "segment.bytes=1048576").ok()
    tools("kafka-topics", "--create", "--topic", "gone", "--partitions", 2).ok()
    tools("kafka-topics", "--delete", "--topic", "gone").ok()
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        send_all(node.bootstrap, "kept", [{"value": b"%s %d" % (codec.encode(), i), "key": b"%d" % i, "headers": [("codec", codec.encode())], "partition": i % 3}
                                          for i in range(300)], compression_type=codec, enable_idempotence=True)
    commit_offsets(node.bootstrap, "readers", [TopicPartition("kept", p, 100 + p, metadata=f"at {p}") for p in range(3)])
    tools("kafka-configs", "--alter", "--entity-type", "brokers", "--entity-name", "1", "--add-config", "log.retention.ms=99999999").ok()


def snapshot(node, tools):
    """All that a client can see of it."""
    describe = tools("kafka-topics", "--describe").ok().lines
    records = read_assigned(node.bootstrap, "kept", 3, 1500, check_crcs=True)
    reader = consumer(node.bootstrap, "readers")
    committed = [(p.partition, p.offset, p.metadata) for p in reader.committed([TopicPartition("kept", p) for p in range(3)], timeout=20)]
    reader.close()
    return {
        # Kafka adds its own topics when it likes.
        "topics": sorted(line for line in describe if "__" not in line),
        "records": sorted((m.partition(), m.offset(), m.timestamp(), m.key(), m.value(), tuple(m.headers())) for m in records),
        "offsets": tools("kafka-get-offsets", "--topic", "kept").ok().lines,
        "start offsets": tools("kafka-get-offsets", "--topic", "kept", "--time", "earliest").ok().lines,
        "committed": committed,
        "groups": tools("kafka-consumer-groups", "--list").ok().lines,
        "configs": tools("kafka-configs", "--describe", "--entity-type", "topics", "--entity-name", "kept").ok().lines,
        "broker configs": tools("kafka-configs", "--describe", "--entity-type", "brokers", "--entity-name", "1").ok().lines,
        "cluster": tools("kafka-cluster", "cluster-id").ok().lines,
    }


@pytest.mark.timeout(300)
def test_everything_is_there_after_clean_stops_and_kills(own_broker, tools_for):
    node = own_broker().start()
    tools = tools_for(node)
    fill(node, tools)
    before = snapshot(node, tools)
    assert [line.split(":")[2] for line in before["offsets"]] == ["500"] * 3
    assert before["committed"] == [(p, 100 + p, f"at {p}") for p in range(3)]
    for end in ("stop", "kill", "stop"):
        getattr(node, end)()
        node.start()
        assert snapshot(node, tools) == before, end
    # And it goes on where it was.
    assert send_all(node.bootstrap, "kept", [{"value": b"more", "partition": 1}]) == [(1, 500)]
    reader = consumer(node.bootstrap, "readers")
    reader.subscribe(["kept"])
    assert min((m.partition(), m.offset()) for m in poll_messages(reader, 900)) == (0, 100)
    reader.close()


def test_clean_stop_is_quick_and_quiet(own_broker):
    node = own_broker().start()
    send_all(node.bootstrap, "t", [b"x"])
    assert node.stop() in (0, 143)
    assert (node.data / ".kafka_cleanshutdown").exists()


@pytest.mark.timeout(300)
def test_log_start_offset_survives(own_broker, tools_for, scratch):
    node = own_broker().start()
    tools = tools_for(node)
    tools("kafka-topics", "--create", "--topic", "t", "--config", "segment.bytes=1048576").ok()
    send_all(node.bootstrap, "t", [b"x" * 10_000] * 500, batch_num_messages=10)
    (scratch / "plan.json").write_text('{"partitions": [{"topic": "t", "partition": 0, "offset": 321}], "version": 1}')
    tools("kafka-delete-records", "--offset-json-file", scratch / "plan.json").ok()
    node.restart()
    assert tools("kafka-get-offsets", "--topic", "t", "--time", "earliest").ok().lines == ["t:0:321"]
    assert tools("kafka-get-offsets", "--topic", "t").ok().lines == ["t:0:500"]
    segments = sorted(p.name for p in (node.data / "t-0").glob("*.log"))
    assert len(segments) >= 2


def test_idempotent_producer_goes_on_over_a_restart(own_broker):
    """Producer state is kept: a retry after the restart is a duplicate, not a second record."""
    node = own_broker().start()

    def produce(sequence):
        with Connection("127.0.0.1", node.port) as connection:
            answer = connection.call("Produce", 9, {"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": "t", "PartitionData": [{"Index": 0, "Records": batch(
                [Record(b"%d" % sequence)], producer_id=1000, producer_epoch=0, base_sequence=sequence)}]}]})
        partition = answer["Responses"][0]["PartitionResponses"][0]
        return partition["ErrorCode"], partition["BaseOffset"]
    send_all(node.bootstrap, "t", [b"first"])
    assert [produce(s) for s in (0, 1, 2)] == [(0, 1), (0, 2), (0, 3)]
    for end in ("stop", "kill"):
        getattr(node, end)()
        node.start()
        wait_until("the partition has its leader", lambda: produce(2) == (0, 3))
        assert produce(7)[0] == 45
    assert produce(3) == (0, 4)


def test_second_process_on_the_same_directory_is_refused(own_broker):
    node = own_broker().start()
    other = own_broker(directory=node.directory)
    # The same files, other ports.
    other.config = node.directory / "second.properties"
    other.log = node.directory / "second.log"
    with pytest.raises(AssertionError):
        other.start()
    assert re.search("(?i)lock", other.log_text())
    assert send_all(node.bootstrap, "t", [b"still here"]) == [(0, 0)]


@pytest.mark.reference
@pytest.mark.timeout(300)
def test_kafka_serves_the_directory_after_our_clean_stop(own_broker, tools_for, request):
    """The same ports, configuration and files, another program: nothing that a client sees may differ."""
    node = own_broker().start()
    tools = tools_for(node)
    fill(node, tools)
    before = snapshot(node, tools)
    node.stop()
    kafka = KafkaBroker(node.overrides, directory=node.directory)
    kafka.port, kafka.controller_port = node.port, node.controller_port
    kafka.log = node.directory / "kafka.log"
    try:
        kafka.start()
        # Kafka loads a group's offsets after it answers.
        wait_until("Kafka has loaded the offsets", lambda: "readers" in tools("kafka-consumer-groups", "--list").lines)
        after = snapshot(kafka, tools)
        assert send_all(kafka.bootstrap, "kept", [{"value": b"more", "partition": 1}]) == [(1, 500)]
        kafka.stop()
    finally:
        if kafka.running():
            kafka.kill()
    assert after == before
    # Kafka always opens its metadata log as after a crash.
    log = [line for line in kafka.log_text().splitlines() if "partition=__cluster_metadata-0" not in line]
    for word in ("ERROR", "orrupt", "stray", "Recovering unflushed", "truncat"):
        lines = [line for line in log if word in line]
        assert not lines, "\n".join(lines[:5])
