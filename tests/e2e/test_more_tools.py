"""kafka-get-offsets, -log-dirs, -delete-records, -broker-api-versions, -metadata-quorum, -cluster, -features."""

import json
import re

import pytest

from harness.clients import send_all
from harness.net import wait_until
from harness.records import now_ms
from harness.tools import write_file
from harness.wire import api


@pytest.fixture
def filled(broker, create, name):
    """Two partitions: ten records a minute apart in the first, with the third the youngest; the second is empty."""
    create(name, 2)
    base = now_ms() - 3600_000
    for i in range(10):
        stamp = base + (3000_000 if i == 2 else i * 60_000)
        send_all(broker.bootstrap, name, [{"value": b"%d" % i, "partition": 0, "timestamp": stamp}])
    return name, base


@pytest.mark.parametrize("spec, first, second", [("latest", "10", "0"), ("-1", "10", "0"), ("earliest", "0", "0"), ("-2", "0", "0"),
                                                 ("max-timestamp", "2", None), ("-3", "2", None), ("earliest-local", "0", "0"), ("-4", "0", "0")])
def test_get_offsets_special_times(tools, filled, spec, first, second):
    topic, _ = filled
    lines = tools("kafka-get-offsets", "--topic", topic, "--time", spec).ok().lines
    expected = [f"{topic}:0:{first}"] + ([] if second is None else [f"{topic}:1:{second}"])
    assert [line for line in lines if not line.endswith(":-1")] == expected


@pytest.mark.parametrize("spec", ["latest-tiered", "earliest-pending-upload"])
def test_get_offsets_tiered_times_without_tiering(tools, filled, spec):
    topic, _ = filled
    result = tools("kafka-get-offsets", "--topic", topic, "--time", spec).ok()
    assert [line for line in result.lines if not line.endswith((":-1", ":"))] == []


def test_get_offsets_by_timestamp_in_own_process(tools, filled):
    topic, base = filled
    for stamp, offset in ((base + 4 * 60_000, 2), (base + 60_000, 1), (base + 60_001, 2), (0, 0)):
        lines = tools("kafka-get-offsets", "--topic", topic, "--time", stamp).ok().lines
        assert lines[0] == f"{topic}:0:{offset}", stamp
    lines = tools.process("kafka-get-offsets", "--topic", topic, "--time", base + 3600_000).ok().lines
    assert [line for line in lines if re.search(r":\d+:\d+$", line)] == []


def test_get_offsets_selections(tools, filled):
    topic, _ = filled
    assert tools("kafka-get-offsets", "--topic", topic, "--partitions", "0").ok().lines == [f"{topic}:0:10"]
    assert tools("kafka-get-offsets", "--topic-partitions", f"{topic}:1-").ok().lines == [f"{topic}:1:0"]
    everything = tools("kafka-get-offsets").ok().lines
    assert f"{topic}:0:10" in everything
    assert not any(line.startswith("__") for line in tools("kafka-get-offsets", "--exclude-internal-topics").ok().lines)


def test_log_dirs_in_own_process(tools, broker, filled):
    topic, _ = filled
    lines = tools.process("kafka-log-dirs", "--describe", "--topic-list", topic).ok().lines
    report = json.loads(lines[-1])
    assert [node["broker"] for node in report["brokers"]] == [1]
    (directory,) = report["brokers"][0]["logDirs"]
    assert directory["logDir"] == str(broker.data) and directory["error"] is None
    sizes = {p["partition"]: p["size"] for p in directory["partitions"]}
    on_disk = {p: sum(f.stat().st_size for f in (broker.data / f"{topic}-{p}").glob("*.log")) for p in (0, 1)}
    assert sizes == {f"{topic}-{p}": size for p, size in on_disk.items()}
    assert on_disk[0] > 0 and on_disk[1] == 0
    assert all(p["offsetLag"] == 0 and p["isFuture"] is False for p in directory["partitions"])
    everything = json.loads(tools("kafka-log-dirs", "--describe").ok().lines[-1])
    assert f"{topic}-0" in {p["partition"] for p in everything["brokers"][0]["logDirs"][0]["partitions"]}


def test_delete_records_in_own_process(tools, filled, scratch):
    topic, _ = filled

    def delete(partition, offset, run=tools):
        plan = {"version": 1, "partitions": [{"topic": topic, "partition": partition, "offset": offset}]}
        return run("kafka-delete-records", "--offset-json-file", write_file(scratch, "plan.json", json.dumps(plan))).ok().out
    assert f"partition: {topic}-0\tlow_watermark: 4" in delete(0, 4, tools.process)
    assert tools("kafka-get-offsets", "--topic", topic, "--partitions", "0", "--time", "earliest").ok().lines == [f"{topic}:0:4"]
    read = tools("kafka-console-consumer", "--topic", topic, "--partition", 0, "--offset", "earliest", "--max-messages", 6).ok()
    assert read.lines == ["4", "5", "6", "7", "8", "9"]
    # Lower than the start: nothing happens.
    assert f"partition: {topic}-0\tlow_watermark: 4" in delete(0, 2)
    assert "OffsetOutOfRangeException" in delete(0, 11)
    # -1: up to the high watermark.
    assert f"partition: {topic}-0\tlow_watermark: 10" in delete(0, -1)


def test_delete_records_of_a_compacted_topic_is_refused(tools, create, name, scratch):
    create(name, 1, cleanup_policy="compact")
    plan = {"version": 1, "partitions": [{"topic": name, "partition": 0, "offset": 0}]}
    result = tools("kafka-delete-records", "--offset-json-file", write_file(scratch, "plan.json", json.dumps(plan)))
    assert "PolicyViolationException" in result.out + result.err


def test_broker_api_versions_in_own_process(tools, broker):
    """What is advertised is within Kafka's own ranges, and everything that this broker must serve is there."""
    lines = tools.process("kafka-broker-api-versions").ok().lines
    assert re.match(rf"127\.0\.0\.1:{broker.port} \(id: 1 rack: null", lines[0])
    advertised = {}
    for line in lines[1:]:
        match = re.match(r"\s+(\w+)\((\d+)\): (\d+)(?: to (\d+))?( \[|,|$)", line)
        if match:
            advertised[match[1]] = (int(match[3]), int(match[4] or match[3]))
        else:
            # An API that the client knows and the broker doesn't.
            assert "UNSUPPORTED" in line or line == ")", line
    served = {"ApiVersions", "Metadata", "Produce", "Fetch", "ListOffsets", "InitProducerId", "FindCoordinator", "JoinGroup", "SyncGroup",
              "Heartbeat", "LeaveGroup", "OffsetCommit", "OffsetFetch", "OffsetDelete", "ListGroups", "DescribeGroups", "DeleteGroups",
              "CreateTopics", "DeleteTopics", "CreatePartitions", "DeleteRecords", "DescribeConfigs", "AlterConfigs",
              "IncrementalAlterConfigs", "DescribeCluster", "DescribeTopicPartitions", "AlterReplicaLogDirs", "DescribeLogDirs", "OffsetForLeaderEpoch", "DescribeQuorum"}
    assert served <= set(advertised)
    for name, (first, last) in advertised.items():
        valid = api(name)[0].valid
        # librdkafka wants to see Produce from 0 on, and version 6 of InitProducerId isn't stable yet.
        full = (0 if name == "Produce" else valid.first, 5 if name == "InitProducerId" else valid.last)
        assert full[0] <= first and last <= full[1], name
        assert name not in served or (first, last) == full, name


def test_metadata_quorum_in_own_process(tools, broker):
    status = dict(line.split(":", 1) for line in tools.process("kafka-metadata-quorum", "describe", "--status").ok().lines)
    assert status["ClusterId"].strip() == broker.cluster_id
    assert status["LeaderId"].strip() == "1"
    assert int(status["LeaderEpoch"]) >= 1 and int(status["HighWatermark"]) > 0
    assert json.loads(status["CurrentVoters"])[0]["id"] == 1
    rows = tools("kafka-metadata-quorum", "describe", "--replication").ok().rows("NodeId")
    assert len(rows) == 1 and rows[0]["NodeId"] == "1" and rows[0]["Lag"] == "0" and rows[0]["Status"] == "Leader"
    assert int(rows[0]["LogEndOffset"]) > 0
    readable = tools("kafka-metadata-quorum", "describe", "--replication", "--human-readable").ok().lines[-1]
    assert "ms ago" in readable


def test_metadata_log_grows_with_topics(tools, create, name):
    def high_watermark():
        status = tools("kafka-metadata-quorum", "describe", "--status").ok()
        return int(re.search(r"HighWatermark:\s+(\d+)", status.out)[1])
    before = high_watermark()
    create(name, 3)
    # A TopicRecord and three PartitionRecords at least.
    wait_until("the topic's records are committed", lambda: high_watermark() >= before + 4)


def test_cluster_in_own_process(tools, broker):
    assert tools.process("kafka-cluster", "cluster-id").ok().lines == [f"Cluster ID: {broker.cluster_id}"]
    rows = tools("kafka-cluster", "list-endpoints").ok().lines
    assert re.split(r"\s+", rows[-1].strip())[:3] == ["1", "127.0.0.1", str(broker.port)]


def test_features_describe(tools):
    lines = tools("kafka-features", "describe").ok().lines
    features = {m[1]: m.groups()[1:] for m in (re.match(r"Feature: (\S+)\s+SupportedMinVersion: (\S+)\s+SupportedMaxVersion: (\S+)\s+FinalizedVersionLevel: (\S+)", line) for line in lines) if m}
    assert "metadata.version" in features
