"""kafka-dump-log over the data directory: data segments and indexes, __consumer_offsets, __cluster_metadata.

Every field that the tool prints is compared with what was written.
"""

import random
import re
import struct
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from harness.clients import Member, commit_offsets, send_all
from harness.dump import parse
from harness.net import wait_until
from harness.records import Record, batch, batches, now_ms
from harness.tools import run_process
from harness.wire import Connection

# An hour ago: young enough for every retention.
FIXED_TIME = now_ms() - 3600_000


@pytest.fixture
def dump(tool_machine):
    def run(*arguments: object, process: bool = False):
        args = [str(argument) for argument in arguments]
        result = run_process("kafka-dump-log", args) if process else tool_machine.run("kafka-dump-log", args)
        result.ok()
        assert "Exception" not in result.err, result.err
        return parse(result.out)
    return run


def produce(node, topic, data, partition=0):
    with Connection("127.0.0.1", node.port) as connection:
        def send():
            answer = connection.call("Produce", 9, {"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": partition, "Records": data}]}]})
            return answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"]
        # New partitions may still be without a leader.
        wait_until("the batch is accepted", lambda: send() == 0)


def segments(node, topic, partition=0) -> list[Path]:
    return sorted((node.data / f"{topic}-{partition}").glob("*.log"))


def test_data_segment_field_by_field(own_broker, tools_for, dump):
    node = own_broker().start()
    tools_for(node)("kafka-topics", "--create", "--topic", "t").ok()
    plain = batch([Record(b"v0", b"k0", [("h1", b"1"), ("h2", None)], FIXED_TIME), Record(None, b"k1", [], FIXED_TIME + 7), Record(b"", None, [], FIXED_TIME + 3)])
    idempotent = batch([Record(b"v3", b"k3", [], FIXED_TIME + 9), Record(b"v4", b"k4", [], FIXED_TIME + 8)], producer_id=4711, producer_epoch=3, base_sequence=0)
    following = batch([Record(b"v5", b"k5", [], FIXED_TIME + 10)], producer_id=4711, producer_epoch=3, base_sequence=2)
    written = [plain, idempotent, following]
    for data in written:
        produce(node, "t", data)
    node.stop()

    (file,) = segments(node, "t")
    dumped = dump("--files", file, "--print-data-log", process=True)
    position = offset = 0
    sequences = [(-1, -1), (0, 1), (2, 2)]
    for shown, data, (first, last) in zip(dumped.batches, written, sequences, strict=True):
        (sent,) = batches(data)
        expected = {
            "baseOffset": offset, "lastOffset": offset + sent.last_offset_delta, "count": sent.record_count, "baseSequence": first, "lastSequence": last,
            "producerId": sent.producer_id, "producerEpoch": sent.producer_epoch, "partitionLeaderEpoch": 0, "isTransactional": "false",
            "isControl": "false", "deleteHorizonMs": "OptionalLong.empty", "position": position, "CreateTime": sent.max_timestamp, "size": len(data),
            "magic": 2, "compresscodec": "none", "crc": sent.crc, "isvalid": "true",
        }
        assert shown.fields == {key: str(value) for key, value in expected.items()}
        for i, (record, original) in enumerate(zip(shown.records, sent.records(), strict=True)):
            assert record.fields["offset"] == str(offset + i)
            assert record.fields["CreateTime"] == str(original.timestamp)
            assert record.fields["keySize"] == str(-1 if original.key is None else len(original.key))
            assert record.fields["valueSize"] == str(-1 if original.value is None else len(original.value))
            assert record.fields["headerKeys"] == ",".join(name for name, _ in original.headers)
            assert (record.key or "").encode() == (original.key or b"") and (record.payload or "").encode() == (original.value or b"")
        position += len(data)
        offset += sent.record_count
    assert file.stat().st_size == position
    # But for offset and leader epoch the bytes are those that were sent.
    stored = file.read_bytes()
    expected = b""
    offset = 0
    for data in written:
        expected += struct.pack(">q", offset) + data[8:12] + struct.pack(">i", 0) + data[16:]
        offset += batches(data)[0].record_count
    assert stored == expected


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compressed_segments_and_indexes(own_broker, dump, codec, tools_for):
    """Several segments of a real producer: log, offset index, time index and producer snapshot agree with each other."""
    node = own_broker().start()
    tools_for(node)("kafka-topics", "--create", "--topic", "t", "--config", "segment.bytes=1048576", "--config", "index.interval.bytes=4096").ok()
    dice = random.Random(5)
    values = [dice.randbytes(300) + b"x" * 200 for _ in range(5000)]
    send_all(node.bootstrap, "t", [{"value": v, "timestamp": FIXED_TIME + i} for i, v in enumerate(values)], compression_type=codec,
             enable_idempotence=True, batch_num_messages=20)
    for after in ("running", "stopped"):
        if after == "stopped":
            node.stop()
        files = segments(node, "t")
        assert len(files) >= 2
        offset = 0
        for file in files:
            assert int(file.stem) == offset
            dumped = dump("--files", file, "--deep-iteration")
            for shown in dumped.batches:
                assert shown.fields["compresscodec"] == codec and shown.fields["baseOffset"] == str(offset)
                for record in shown.records:
                    assert (record.fields["offset"], record.fields["CreateTime"], record.fields["valueSize"]) == (str(offset), str(FIXED_TIME + offset), "500")
                    offset += 1
        assert offset == len(values)
        closed = files if after == "stopped" else files[:-1]
        for file in closed:
            index = dump("--files", file.with_suffix(".index"), "--index-sanity-check").text
            assert "passed sanity check" in index
            entries = dump("--files", file.with_suffix(".index")).text
            assert len(re.findall(r"offset: \d+ position: \d+", entries)) > 20
            dump("--files", file.with_suffix(".index"), "--verify-index-only")
            times = dump("--files", file.with_suffix(".timeindex"), "--index-sanity-check").text
            assert "passed sanity check" in times
            entries = dump("--files", file.with_suffix(".timeindex")).text
            assert len(re.findall(r"timestamp: \d+ offset: \d+", entries)) > 20
    snapshots = sorted((node.data / "t-0").glob("*.snapshot"))
    shown = dump("--files", snapshots[-1]).text
    match = re.search(r"producerId: (\d+) producerEpoch: (\d+) coordinatorEpoch: (-?\d+) currentTxnFirstOffset: (\S+) lastTimestamp: (\d+) firstSequence: (\d+) lastSequence: (\d+) lastOffset: (\d+) offsetDelta: (\d+) timestamp: (\d+)", shown)
    assert match, shown
    assert int(snapshots[-1].stem) == len(values)
    assert match[8] == str(len(values) - 1) and match[7] == str(len(values) - 1) and match[10] == str(FIXED_TIME + len(values) - 1)


def test_consumer_offsets_with_the_decoder(own_broker, tools_for, dump):
    node = own_broker().start()
    tools = tools_for(node)
    tools("kafka-topics", "--create", "--topic", "t", "--partitions", 2).ok()
    send_all(node.bootstrap, "t", [b"x"] * 10)
    member = Member(node.bootstrap, "grp", ["t"], client_id="cid", commit=False)
    member.start()
    wait_until("assigned", lambda: len(member.owned) == 2)
    member.extra.append([TopicPartition("t", 0, 4, metadata="four"), TopicPartition("t", 1, 5)])
    wait_until("the offsets are committed", lambda: "4" in tools("kafka-consumer-groups", "--describe", "--group", "grp").out.split())
    member.leave()
    assert member.error is None
    commit_offsets(node.bootstrap, "simple", [TopicPartition("t", 0, 7)])
    tools("kafka-consumer-groups", "--delete-offsets", "--group", "grp", "--topic", "t:1").ok()
    tools("kafka-consumer-groups", "--delete", "--group", "simple").ok()
    node.stop()

    records = []
    for directory in node.data.glob("__consumer_offsets-*"):
        for file in directory.glob("*.log"):
            if file.stat().st_size:
                records += dump("--files", file, "--offsets-decoder", "--print-data-log").records()
    commits, metadata = [], []
    for record in records:
        key = record.key_json()
        value = None if record.payload in (None, "null", "<DELETE>") else record.json()
        (commits if key["type"] in ("0", "1") else metadata).append((key, value))

    seen = [(k["data"]["group"], k["data"]["topic"], k["data"]["partition"], v and (v["version"], v["data"]["offset"], v["data"]["metadata"], v["data"]["leaderEpoch"])) for k, v in commits]
    by_group = {(g, p): [v for gg, _, pp, v in seen if (gg, pp) == (g, p)] for g, _, p, _ in seen}
    assert [v[1] for v in by_group["grp", 0] if v] == [4] and by_group["grp", 0][-1] is not None
    assert [v and v[1] for v in by_group["grp", 1]] == [5, None]
    assert [v and v[1] for v in by_group["simple", 0]] == [7, None]
    # The Python client counts the end of the C string in.
    assert by_group["grp", 0][0][2].rstrip("\0") == "four"

    grp = [v for k, v in metadata if k["data"]["group"] == "grp"]
    assert all(k["type"] == "2" for k, _ in metadata)
    stable = [v for v in grp if v and v["data"]["members"]]
    assert stable, grp
    data = stable[-1]["data"]
    assert (data["protocolType"], data["protocol"]) == ("consumer", "range") and data["generation"] >= 1
    (only,) = data["members"]
    assert only["clientId"] == "cid" and only["clientHost"] == "/127.0.0.1" and only["sessionTimeout"] == 10000 and only["groupInstanceId"] is None
    assert data["leader"] == only["memberId"] and only["memberId"].startswith("cid-")
    # The last word on a group that everybody left: no members.
    assert grp[-1]["data"]["members"] == [] and grp[-1]["data"]["leader"] is None
    assert [v for k, v in metadata if k["data"]["group"] == "simple"][-1:] in ([None], [])


def test_cluster_metadata_with_the_decoder(own_broker, tools_for, dump):
    node = own_broker().start()
    tools = tools_for(node)
    tools("kafka-topics", "--create", "--topic", "kept", "--partitions", 2, "--config", "retention.ms=77").ok()
    tools("kafka-topics", "--create", "--topic", "gone").ok()
    tools("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", "kept", "--delete-config", "retention.ms").ok()
    tools("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", "kept", "--add-config", "segment.bytes=2000000").ok()
    tools("kafka-topics", "--alter", "--topic", "kept", "--partitions", 3).ok()
    described = tools("kafka-topics", "--describe", "--topic", "kept").ok().out
    topic_id = re.search(r"TopicId: (\S+)", described)[1]
    gone_id = re.search(r"TopicId: (\S+)", tools("kafka-topics", "--describe", "--topic", "gone").ok().out)[1]
    tools("kafka-topics", "--delete", "--topic", "gone").ok()
    send_all(node.bootstrap, "kept", [b"x"], enable_idempotence=True)
    node.stop()

    files = sorted((node.data / "__cluster_metadata-0").glob("*.log"))
    dumped = dump("--files", ",".join(map(str, files)), "--cluster-metadata-decoder", process=True)
    assert [batch.fields["isvalid"] for batch in dumped.batches] == ["true"] * len(dumped.batches)
    offsets = [int(record.fields["offset"]) for record in dumped.records()]
    assert offsets == list(range(len(offsets)))
    records = [record.json() for record in dumped.records() if record.payload and record.payload.startswith('{"type"')]

    def of(kind):
        return [record["data"] for record in records if record["type"] == kind]
    registered = of("REGISTER_BROKER_RECORD")
    assert [r["brokerId"] for r in registered] == [1] * len(registered) and registered
    endpoints = {e["name"]: (e["host"], e["port"], e["securityProtocol"]) for e in registered[0]["endPoints"]}
    assert endpoints["PLAINTEXT"] == ("127.0.0.1", node.port, 0)
    features = {r["name"]: r["featureLevel"] for r in of("FEATURE_LEVEL_RECORD")}
    assert features.get("metadata.version", 0) >= 7
    topics = {r["name"]: r["topicId"] for r in of("TOPIC_RECORD")}
    assert topics["kept"] == topic_id and topics["gone"] == gone_id
    partitions = sorted((p for p in of("PARTITION_RECORD") if p["topicId"] == topic_id), key=lambda p: p["partitionId"])
    assert [(p["partitionId"], p["replicas"], p["isr"], p["leader"], p["leaderEpoch"]) for p in partitions] == [(i, [1], [1], 1, 0) for i in range(3)]
    directory = dict(line.split("=", 1) for line in (node.data / "meta.properties").read_text().splitlines() if "=" in line)["directory.id"]
    assert all(p.get("directories") == [directory] for p in partitions)
    configs = [(r["name"], r["value"]) for r in of("CONFIG_RECORD") if (r["resourceType"], r["resourceName"]) == (2, "kept")]
    assert configs == [("retention.ms", "77"), ("retention.ms", None), ("segment.bytes", "2000000")]
    assert [r["topicId"] for r in of("REMOVE_TOPIC_RECORD")] == [gone_id]
    assert of("PRODUCER_IDS_RECORD")[0]["brokerId"] == 1
    assert "LeaderChange" in dumped.text


def test_dump_of_our_own_agrees_with_kafkas(own_broker, tools_for, tool_machine):
    """`ottla dump-log` on the same file prints the same batches."""
    node = own_broker().start()
    if node.kind != "ottla":
        pytest.skip("a command of Ottla's")
    tools_for(node)("kafka-topics", "--create", "--topic", "t").ok()
    send_all(node.bootstrap, "t", [{"key": b"k%d" % i, "value": b"v%d" % i} for i in range(100)], batch_num_messages=7)
    node.stop()
    (file,) = segments(node, "t")
    ours = subprocess.run([str(node.binary), "dump-log", str(file)], capture_output=True, text=True, timeout=30)
    assert ours.returncode == 0, ours.stderr
    theirs = tool_machine.run("kafka-dump-log", ["--files", str(file)]).ok().out
    wanted = [line for line in theirs.splitlines() if line.startswith("baseOffset: ")]
    for line in wanted:
        numbers = dict(re.findall(r"(\w+): (\S+)", line))
        assert any(all(re.search(rf"\b{re.escape(numbers[key])}\b", own) for key in ("baseOffset", "lastOffset", "count", "size", "crc")) for own in ours.stdout.splitlines()), f"{line}\nnot in\n{ours.stdout[:2000]}"
