"""The same requests to the broker under test and to Apache Kafka: the answers must be the same, field by field.

A case is a function that talks over one raw connection and returns what it was answered. What differs by nature
(ids, ports, times) is masked by name; every other difference is an error, or stands in KNOWN_DIFFERENCES with its
reason. Cases run in every version that Kafka advertises for the API.
"""

import re
import uuid

import pytest

from harness.net import wait_until
from harness.records import Record, batch, now_ms
from harness.wire import UUID_ZERO, Connection, WireError, api

pytestmark = [pytest.mark.reference, pytest.mark.allow_log("closing|closed|request|produce|invalid|left members without an assignment")]

# By nature different on two brokers.
MASKED = {"Port", "ClusterId", "TopicId", "Host", "LogAppendTimeMs", "ThrottleTimeMs", "ProducerId", "TopicAuthorizedOperations", "MemberId",
          "Leader", "SessionId", "TotalBytes", "UsableBytes", "LogDir", "FinalizedFeaturesEpoch", "FinalizedFeatures", "SupportedFeatures",
          # Ours is in our own words.
          "Documentation"}
# An hour ago: young enough for every retention.
FIXED_TIME = now_ms() - 3600_000
SOME_ID = uuid.UUID(int=0x1234567890)

# Where this broker differs on purpose: the beginning of the case's name, what the difference's line says, and why.
KNOWN_DIFFERENCES = [
    ("produce garbage records", r"ErrorCode: 87, Kafka: -1$", "Kafka's decoder throws what its handler doesn't expect; the producer is told what is wrong"),
    ("incremental alter configs", r"\[17\].*ErrorCode: 42, Kafka: -1$", "Kafka doesn't expect an unknown operation; the client is told that its request is invalid"),
    ("incremental alter configs", r"\[17\].*'Unknown operation type 9.', Kafka: None$", "the same, in words"),
]

CASES = {}


def case(name, api_name, versions=None):
    """Registers a case for each version that Kafka serves, or for those given."""
    def register(function):
        valid = api(api_name)[0].valid
        last = 5 if api_name == "InitProducerId" else valid.last
        first = 3 if api_name == "Produce" else valid.first
        for version in versions or range(first, last + 1):
            CASES[f"{name} v{version}"] = (function, version)
        return function
    return register


def masked(value, key=None):
    if isinstance(value, dict):
        return {k: masked(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v, key) for v in value]
    if key in MASKED and value is not None:
        return "..."
    return value


class Session:
    """A connection with what cases need: names of their own, topics and their ids."""

    def __init__(self, broker, case_name):
        self.connection = Connection("127.0.0.1", broker.port)
        self.prefix = "d-" + "".join(c if c.isalnum() else "-" for c in case_name)
        self.count = 0

    def find_coordinator(self):
        """The first one to ask makes the offsets topic, and its partitions take a moment to load."""
        wait_until("there is a coordinator", lambda: self.call("FindCoordinator", 3, {"Key": self.prefix})["ErrorCode"] == 0)
        asked = {"GroupId": self.prefix, "Topics": []}
        wait_until("it has loaded", lambda: self.call("OffsetFetch", 5, asked)["ErrorCode"] == 0)

    def call(self, name, version, body, client_id="e2e"):
        try:
            return self.connection.call(name, version, body, client_id)
        except (WireError, ConnectionResetError):
            self.connection.close()
            return "closed"

    def topic(self, partitions=1, **configs):
        self.count += 1
        name = f"{self.prefix}-{self.count}"
        answer = self.call("CreateTopics", 7, {"Topics": [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": [
            {"Name": k.replace("_", "."), "Value": str(v)} for k, v in configs.items()]}], "timeoutMs": 10000})
        assert answer["Topics"][0]["ErrorCode"] == 0, answer
        # Kafka answers before its partitions are leaders.
        asked = {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [{"PartitionIndex": p, "Timestamp": -1} for p in range(partitions)]}]}
        wait_until("the topic has leaders", lambda: all(p["ErrorCode"] == 0 for p in self.call("ListOffsets", 4, asked)["Topics"][0]["Partitions"]), pause=0.01)
        return name, answer["Topics"][0]["TopicId"]

    def barrier(self):
        """Until what was answered before is what every read sees: a topic made later is there."""
        self.topic()

    def produce(self, topic, records, version=9, acks=-1, partition=0):
        name, topic_id = topic
        where = {"Name": name} if version <= 12 else {"TopicId": topic_id}
        return self.call("Produce", version, {"Acks": acks, "TimeoutMs": 5000, "TopicData": [{**where, "PartitionData": [{"Index": partition, "Records": records}]}]})

    def fetch(self, topic, version, offset=0, partition=0, **kwargs):
        name, topic_id = topic
        where = {"Topic": name} if version <= 12 else {"TopicId": topic_id}
        part = {"Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20}
        for key in ("CurrentLeaderEpoch", "LastFetchedEpoch", "PartitionMaxBytes"):
            if key in kwargs:
                part[key] = kwargs.pop(key)
        return self.call("Fetch", version, {"MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1 << 20, "Topics": [{**where, "Partitions": [part]}],
                                            **({"ReplicaId": -1} if version <= 14 else {}), **kwargs})


def records(*values, **kwargs):
    return batch([Record(v, timestamp=FIXED_TIME) for v in values or (b"a", b"b")], **kwargs)


# --- Metadata and friends

@case("metadata of nothing", "Metadata", range(1, 14))
def _(s, v):
    return s.call("Metadata", v, {"Topics": []})


@case("metadata of unknown and bad names", "Metadata", range(4, 14))
def _(s, v):
    return [s.call("Metadata", v, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": False}) for n in ("nowhere", "bad name", "", "x" * 250, "..", "a/b")]


@case("metadata of a topic", "Metadata", range(0, 14))
def _(s, v):
    name, _ = s.topic(3)
    return s.call("Metadata", v, {"Topics": [{"Name": name}]})["Topics"]


@case("metadata of an unknown id", "Metadata", range(12, 14))
def _(s, v):
    return s.call("Metadata", v, {"Topics": [{"Name": None, "TopicId": SOME_ID}]})


@case("metadata by id", "Metadata", range(10, 14))
def _(s, v):
    name, topic_id = s.topic()
    return s.call("Metadata", v, {"Topics": [{"Name": None, "TopicId": topic_id}]})


@case("metadata with a name and an id", "Metadata", range(12, 14))
def _(s, v):
    name, topic_id = s.topic()
    return s.call("Metadata", v, {"Topics": [{"Name": name, "TopicId": topic_id}]})


@case("metadata of one topic twice", "Metadata", range(4, 14))
def _(s, v):
    name, _ = s.topic()
    return s.call("Metadata", v, {"Topics": [{"Name": name}, {"Name": name}]})


@case("describe cluster", "DescribeCluster")
def _(s, v):
    return [s.call("DescribeCluster", v, {}), *([s.call("DescribeCluster", v, {"EndpointType": t}) for t in (2, 3)] if v >= 1 else [])]


@case("describe topic partitions", "DescribeTopicPartitions")
def _(s, v):
    name, _ = s.topic(5)
    call = lambda **body: s.call("DescribeTopicPartitions", v, body)
    return [call(Topics=[{"Name": name}]), call(Topics=[{"Name": name}], ResponsePartitionLimit=2),
            call(Topics=[{"Name": name}], ResponsePartitionLimit=2, Cursor={"TopicName": name, "PartitionIndex": 2}),
            call(Topics=[{"Name": "nowhere"}]), call(Topics=[{"Name": name}], ResponsePartitionLimit=0),
            call(Topics=[{"Name": name}], Cursor={"TopicName": name, "PartitionIndex": -1}),
            call(Topics=[{"Name": name}], Cursor={"TopicName": name, "PartitionIndex": 99})]


@case("find coordinator", "FindCoordinator", range(0, 7))
def _(s, v):
    if v >= 4:
        return [s.call("FindCoordinator", v, {"KeyType": 0, "CoordinatorKeys": keys}) for keys in (["g"], ["g", "h"], [])] + [
            s.call("FindCoordinator", v, {"KeyType": 9, "CoordinatorKeys": ["g"]})]
    return [s.call("FindCoordinator", v, {"Key": "g"})] + ([s.call("FindCoordinator", v, {"Key": "g", "KeyType": 9})] if v >= 1 else [])


@case("describe quorum", "DescribeQuorum")
def _(s, v):
    def shape(answer):
        """Offsets and times go on by themselves."""
        for topic in answer["Topics"] if answer != "closed" else ():
            for partition in topic["Partitions"]:
                partition["HighWatermark"] = partition["LeaderEpoch"] = "..."
                for replica in partition["CurrentVoters"] + partition["Observers"]:
                    for key in replica:
                        if key not in ("ReplicaId",):
                            replica[key] = "..."
        return answer
    asked = {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]}
    wrong = {"Topics": [{"TopicName": "other", "Partitions": [{"PartitionIndex": 0}]}]}
    return [shape(s.call("DescribeQuorum", v, asked)), s.call("DescribeQuorum", v, wrong), s.call("DescribeQuorum", v, {"Topics": []})]


# --- Produce

PRODUCE_CASES = {
    "good": lambda: records(),
    "empty": lambda: b"",
    "two batches": lambda: records() + records(),
    "magic 1": lambda: records(magic=1),
    "magic 3": lambda: records(magic=3),
    "base offset 5": lambda: records(base_offset=5),
    "leader epoch 7": lambda: records(leader_epoch=7),
    "wrong crc": lambda: records(crc=1),
    "control bit": lambda: records(attributes=0x20),
    "log append time bit": lambda: records(attributes=0x08),
    "transactional bit": lambda: records(attributes=0x10),
    "delete horizon bit": lambda: records(attributes=0x40),
    "unused attribute bit": lambda: records(attributes=0x80),
    "last offset delta too large": lambda: records(last_offset_delta=5),
    "last offset delta too small": lambda: records(last_offset_delta=0),
    "last offset delta negative": lambda: records(last_offset_delta=-1),
    "record count 0": lambda: records(record_count=0, last_offset_delta=0),
    "record count 0, delta -1": lambda: records(record_count=0, last_offset_delta=-1),
    "record count -1": lambda: records(record_count=-1, last_offset_delta=-2),
    "record count beyond the batch": lambda: records(record_count=50, last_offset_delta=49),
    "no records": lambda: batch([]),
    "sequence without producer": lambda: records(base_sequence=0),
    "producer without sequence": lambda: records(producer_id=5, producer_epoch=0),
    "producer with sequence": lambda: records(producer_id=5_000_000, producer_epoch=0, base_sequence=0),
    "future timestamp": lambda: batch([Record(b"x", timestamp=now_ms() + 7200_000)]),
    "timestamp -1": lambda: batch([Record(b"x", timestamp=-1)]),
    "timestamp -2": lambda: batch([Record(b"x", timestamp=-2)]),
    "max timestamp too low": lambda: records(max_timestamp=0),
    "length too large": lambda: records(length=10_000),
    "length too small": lambda: records(length=48),
    "length 0": lambda: records(length=0),
    "length negative": lambda: records(length=-5),
    "codec 5": lambda: records(attributes=5),
    "codec 7": lambda: records(attributes=7),
    "gzip that isn't": lambda: records(attributes=1),
    "snappy that isn't": lambda: records(attributes=2),
    "lz4 that isn't": lambda: records(attributes=3),
    "zstd that isn't": lambda: records(attributes=4),
    "garbage records": lambda: records(payload=b"\xff" * 30),
    "record longer than the batch": lambda: records(payload=b"\xc8\x01" + b"\0" * 10),
    "records with bytes behind": lambda: records(payload=Record(b"a").encode(0, 0) + Record(b"b").encode(1, 0) + b"\0" * 5),
    "offset deltas from 1": lambda: records(payload=Record(b"a").encode(1, 0) + Record(b"b").encode(2, 0)),
    "offset deltas with a gap": lambda: records(payload=Record(b"a").encode(0, 0) + Record(b"b").encode(2, 0)),
    "torn header": lambda: records()[:40],
    "torn batch": lambda: records()[:-1],
    "bytes behind the batch": lambda: records() + b"\0" * 7,
    "too large": lambda: batch([Record(b"x" * 1_048_600, timestamp=FIXED_TIME)]),
}


def add_produce_case(name, make):
    @case(f"produce {name}", "Produce", [3, 7, 8, 9, 12, 13] if name in ("good", "empty", "future timestamp", "wrong crc", "too large") else [9])
    def _(s, v):
        topic = s.topic()
        answer = s.produce(topic, make(), v)
        if answer == "closed":
            return answer
        end = s.call("ListOffsets", 2, {"ReplicaId": -1, "Topics": [{"Name": topic[0], "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]})
        return [strip_time(answer), end["Topics"][0]["Partitions"][0]["Offset"]]


def strip_time(answer):
    """The message about a bad time names the time."""
    for topic in answer["Responses"]:
        for partition in topic["PartitionResponses"]:
            for error in partition.get("RecordErrors") or []:
                error["BatchIndexErrorMessage"] = error["BatchIndexErrorMessage"] and error["BatchIndexErrorMessage"][:20]
            if partition.get("ErrorMessage"):
                partition["ErrorMessage"] = partition["ErrorMessage"][:40]
    return answer


for produce_name, produce_make in PRODUCE_CASES.items():
    add_produce_case(produce_name, produce_make)


@case("produce to nowhere", "Produce", range(3, 14))
def _(s, v):
    unknown = s.produce(("nowhere-at-all", SOME_ID), records(), v)
    return [unknown, s.produce(s.topic(), records(), v, partition=7), s.produce(("bad name", UUID_ZERO), records(), v)]


@case("produce to an internal topic", "Produce", [9, 12])
def _(s, v):
    s.call("FindCoordinator", 3, {"Key": "g"})
    return s.produce(("__consumer_offsets", UUID_ZERO), records(), v)


@case("produce with bad acks", "Produce", [3, 9, 13])
def _(s, v):
    topic = s.topic()
    return [s.produce(topic, records(), v, acks=a) for a in (2, -2, 7)]


@case("produce sequences", "Produce", [9])
def _(s, v):
    topic = s.topic()

    def send(sequence, epoch=0, count=1):
        answer = s.produce(topic, batch([Record(b"x", timestamp=FIXED_TIME)] * count, producer_id=7_000_001, producer_epoch=epoch, base_sequence=sequence), v)
        partition = answer["Responses"][0]["PartitionResponses"][0]
        return partition["ErrorCode"], partition["BaseOffset"]
    return [send(0), send(1), send(2, count=3), send(5), send(5), send(2, count=3), send(2), send(7), send(6), send(7), send(0), send(1), send(8, epoch=1),
            send(0, epoch=1), send(8), send(1, epoch=1), send(1, epoch=1), send(0, epoch=1), send(3, epoch=3), send(0, epoch=3)]


@case("produce to a compacted topic without a key", "Produce", [9])
def _(s, v):
    return s.produce(s.topic(cleanup_policy="compact"), records(), v)


@case("produce more than segment.bytes", "Produce", [9])
def _(s, v):
    topic = s.topic(segment_bytes=1048576, max_message_bytes=5_000_000)
    return s.produce(topic, batch([Record(b"x" * 1_200_000, timestamp=FIXED_TIME)]), v)


@case("produce log append time", "Produce", [3, 9])
def _(s, v):
    topic = s.topic(message_timestamp_type="LogAppendTime")
    answer = s.produce(topic, records(), v)
    assert answer["Responses"][0]["PartitionResponses"][0]["LogAppendTimeMs"] > FIXED_TIME
    return answer


# --- Fetch

@case("fetch", "Fetch")
def _(s, v):
    topic = s.topic(2)
    s.produce(topic, records(b"a"))
    s.produce(topic, records(b"b", b"c"))
    return [s.fetch(topic, v), s.fetch(topic, v, 1), s.fetch(topic, v, 2), s.fetch(topic, v, 3), s.fetch(topic, v, 4), s.fetch(topic, v, -1),
            s.fetch(topic, v, partition=1), s.fetch(topic, v, partition=9), s.fetch(("nowhere", SOME_ID), v), s.fetch(topic, v, PartitionMaxBytes=80),
            s.fetch(topic, v, PartitionMaxBytes=0), s.fetch(topic, v, MaxBytes=1), s.fetch(topic, v, IsolationLevel=1)]


@case("fetch with leader epochs", "Fetch", range(9, 19))
def _(s, v):
    topic = s.topic()
    s.produce(topic, records())
    out = [s.fetch(topic, v, CurrentLeaderEpoch=e) for e in (0, 1, 5)]
    if v >= 12:
        out += [s.fetch(topic, v, offset=o, LastFetchedEpoch=e) for e in (0, 3) for o in (0, 2)]
    return out


@case("fetch sessions", "Fetch", [7, 12, 13, 18])
def _(s, v):
    first, second = s.topic(2), s.topic()
    s.produce(first, records())
    session = 0

    def where(topic):
        return {"Topic": topic[0]} if v <= 12 else {"TopicId": topic[1]}

    def call(session_id, epoch, parts, forget=()):
        body = {"MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1 << 20, "SessionId": session_id, "SessionEpoch": epoch,
                "Topics": [{**where(t), "Partitions": [{"Partition": p, "FetchOffset": o, "PartitionMaxBytes": 1 << 20}]} for t, p, o in parts],
                "ForgottenTopicsData": [{**where(t), "Partitions": [p]} for t, p in forget], **({"ReplicaId": -1} if v <= 14 else {})}
        return s.call("Fetch", v, body)
    opened = call(0, 0, [(first, 0, 0), (first, 1, 0), (second, 0, 0)])
    session = opened["SessionId"]
    out = [opened, session != 0]
    out.append(call(session, 1, []))
    out.append(call(session, 2, [(first, 0, 2)]))
    out.append(call(session, 3, []))
    s.produce(second, records(b"new"))
    out.append(call(session, 4, []))
    out.append(call(session, 4, []))
    out.append(call(session, 9, []))
    out.append(call(session, 5, [], [(second, 0)]))
    out.append(call(session + 1000, 1, []))
    out.append(call(session, 6, [(second, 0, 0)]))
    out.append(call(session, -1, [(first, 0, 0)]))
    out.append(call(session, 7, []))
    return out


# --- ListOffsets, OffsetForLeaderEpoch, DeleteRecords

@case("list offsets", "ListOffsets")
def _(s, v):
    topic = s.topic(2)
    for i in range(5):
        s.produce(topic, batch([Record(b"x", timestamp=FIXED_TIME + (1000 if i == 2 else i * 10))]))

    def ask(timestamp, partition=0, name=topic[0], epoch=-1):
        part = {"PartitionIndex": partition, "Timestamp": timestamp}
        if v >= 4:
            part["CurrentLeaderEpoch"] = epoch
        return s.call("ListOffsets", v, {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [part]}]})
    out = [ask(t) for t in (-1, -2, -3, -4, -5, -6, -7, 0, FIXED_TIME, FIXED_TIME + 1, FIXED_TIME + 35, FIXED_TIME + 1000, FIXED_TIME + 1001)]
    out += [ask(-1, 1), ask(-2, 1), ask(-3, 1), ask(0, 1), ask(-1, 9), ask(-1, 0, "nowhere")]
    if v >= 4:
        out += [ask(-1, epoch=0), ask(-1, epoch=5)]
    both = [{"PartitionIndex": 0, "Timestamp": -1}, {"PartitionIndex": 0, "Timestamp": -2}]
    out.append(s.call("ListOffsets", v, {"ReplicaId": -1, "Topics": [{"Name": topic[0], "Partitions": both}]}))
    return out


@case("offset for leader epoch", "OffsetForLeaderEpoch")
def _(s, v):
    topic = s.topic()
    s.produce(topic, records())
    return [s.call("OffsetForLeaderEpoch", v, {**({"ReplicaId": -1} if v >= 3 else {}), "Topics": [{"Topic": name, "Partitions": [
        {"Partition": p, "CurrentLeaderEpoch": c, "LeaderEpoch": e}]}]})
        for name, p, c, e in ((topic[0], 0, -1, 0), (topic[0], 0, 0, 0), (topic[0], 0, 3, 0), (topic[0], 0, -1, 5), (topic[0], 0, -1, -1), (topic[0], 7, -1, 0), ("nowhere", 0, -1, 0))]


@case("delete records", "DeleteRecords")
def _(s, v):
    topic = s.topic()
    for _ in range(5):
        s.produce(topic, records(b"x"))

    def delete(offset, partition=0, name=topic[0]):
        return s.call("DeleteRecords", v, {"Topics": [{"Name": name, "Partitions": [{"PartitionIndex": partition, "Offset": offset}]}], "TimeoutMs": 3000})
    return [delete(2), delete(1), delete(99), delete(-2), delete(-1), delete(0, 9), delete(0, 0, "nowhere"), s.fetch(topic, 12, 0), s.fetch(topic, 12, 5)]


# --- Groups

def join(s, v, group, member="", protocols=(("range", b"m"),), instance=None, session=10000, kind="consumer", rebalance=3000):
    body = {"GroupId": group, "SessionTimeoutMs": session, "MemberId": member, "ProtocolType": kind, "Protocols": [{"Name": n, "Metadata": m} for n, m in protocols]}
    if v >= 1:
        body["RebalanceTimeoutMs"] = rebalance
    if instance is not None and v >= 5:
        body["GroupInstanceId"] = instance
    return s.call("JoinGroup", v, body)


def whole_join(s, v, group, **kwargs):
    """Joins with the detour over MEMBER_ID_REQUIRED."""
    answer = join(s, v, group, **kwargs)
    if answer["ErrorCode"] == 79:
        answer = join(s, v, group, member=answer["MemberId"], **kwargs)
    return answer


@case("join group errors", "JoinGroup")
def _(s, v):
    g = s.prefix
    out = [join(s, v, ""), join(s, v, g, session=1), join(s, v, g, session=10_000_000), join(s, v, g, member="who"), join(s, v, g, protocols=()),
           join(s, v, g, kind="")]
    if v >= 5:
        out += [join(s, v, g + instance[:3], instance=instance) for instance in ("bad instance", "")]
    return out


@case("join, sync, heartbeat, leave", "JoinGroup")
def _(s, v):
    g = s.prefix
    joined = whole_join(s, v, g)
    member, generation = joined["MemberId"], joined["GenerationId"]
    sync = lambda m=member, gen=generation, a=b"assigned", **kw: s.call("SyncGroup", 5 if kw else 3, {"GroupId": g, "GenerationId": gen, "MemberId": m, "Assignments": [{"MemberId": m, "Assignment": a}], **kw})
    beat = lambda m=member, gen=generation: s.call("Heartbeat", 3, {"GroupId": g, "GenerationId": gen, "MemberId": m})
    out = [joined, beat(), sync("who"), sync(gen=9), sync(ProtocolType="other", ProtocolName="range"), sync(ProtocolType="consumer", ProtocolName="other"), sync(), sync(), beat(), beat("who"), beat(gen=generation + 1), beat(gen=-1)]
    out.append(join(s, v, g, member=member))
    out.append(join(s, v, g, protocols=(("other", b"m"),)))
    out.append(join(s, v, g, kind="connect"))
    out.append(s.call("LeaveGroup", 2, {"GroupId": g, "MemberId": "who"}))
    out.append(s.call("LeaveGroup", 3, {"GroupId": g, "Members": [{"MemberId": member}, {"MemberId": "who"}, {"MemberId": "", "GroupInstanceId": "who"}]}))
    out.append(s.call("LeaveGroup", 2, {"GroupId": g, "MemberId": member}))
    out.append(beat())
    return out


@case("describe and list groups", "DescribeGroups")
def _(s, v):
    g = s.prefix
    joined = whole_join(s, 5, g)

    def describe():
        answer = s.call("DescribeGroups", v, {"Groups": [g, f"{g}-none", ""]})
        return sorted(answer["Groups"], key=lambda described: described["GroupId"])
    out = [describe()]
    s.call("SyncGroup", 3, {"GroupId": g, "GenerationId": joined["GenerationId"], "MemberId": joined["MemberId"], "Assignments": [{"MemberId": joined["MemberId"], "Assignment": b"assigned"}]})
    out.append(describe())
    out += [sorted(map(repr, (x for x in s.call("ListGroups", lv, body)["Groups"] if x["GroupId"] == g)))
            for lv, body in ((0, {}), (3, {}), (4, {"StatesFilter": ["Stable"]}), (4, {"StatesFilter": ["Empty"]}), (4, {"StatesFilter": ["stable"]}),
                             (5, {"TypesFilter": ["classic"]}), (5, {"TypesFilter": ["consumer"]}), (5, {"TypesFilter": ["Classic"]}))]
    out.append(sorted(s.call("DeleteGroups", 2, {"GroupsNames": [g, f"{g}-none", ""]})["Results"], key=lambda deleted: deleted["GroupId"]))
    s.call("LeaveGroup", 2, {"GroupId": g, "MemberId": joined["MemberId"]})
    out.append(describe())
    out.append(s.call("DeleteGroups", 2, {"GroupsNames": [g]}))
    out.append(describe())
    return out


@case("offset commit and fetch", "OffsetCommit")
def _(s, v):
    topic = s.topic(2)
    g = s.prefix

    def commit(group=g, generation=-1, member="", name=topic, partition=0, offset=5, metadata="m", instance=None):
        where = {"Name": name[0]} if v <= 9 else {"TopicId": name[1]}
        body = {"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member, "Topics": [{**where, "Partitions": [
            {"PartitionIndex": partition, "CommittedOffset": offset, "CommittedMetadata": metadata}]}]}
        if instance is not None and v >= 7:
            body["GroupInstanceId"] = instance
        return s.call("OffsetCommit", v, body)
    out = [commit(), commit(partition=1, offset=0, metadata=None), commit(partition=9), commit(name=("nowhere", SOME_ID)), commit(metadata="x" * 4097), commit(group=""),
           commit(generation=3), commit(generation=3, member="who"), commit(member="who"), commit(group=f"{g}-2", generation=0, member="x"), commit(offset=-5), commit(instance="i")]
    for fv in range(1, 11):
        where = {"Name": topic[0]} if fv <= 9 else {"TopicId": topic[1]}
        none = {"Name": "nowhere"} if fv <= 9 else {"TopicId": SOME_ID}
        topics = [{**where, "PartitionIndexes": [0, 1, 9]}, {**none, "PartitionIndexes": [0]}]
        if fv <= 7:
            out.append(s.call("OffsetFetch", fv, {"GroupId": g, "Topics": topics}))
            if fv >= 2:
                out.append(s.call("OffsetFetch", fv, {"GroupId": g, "Topics": None}))
            out.append(s.call("OffsetFetch", fv, {"GroupId": f"{g}-none", "Topics": topics}))
        else:
            out.append(s.call("OffsetFetch", fv, {"Groups": [{"GroupId": g, "Topics": topics}, {"GroupId": f"{g}-none", "Topics": topics}, {"GroupId": g, "Topics": None}]}))
            out.append(s.call("OffsetFetch", fv, {"Groups": [{"GroupId": g, "Topics": topics}], "RequireStable": True}))
            if fv >= 9:
                out.append(s.call("OffsetFetch", fv, {"Groups": [{"GroupId": g, "MemberId": "who", "MemberEpoch": 3, "Topics": topics}]}))
    joined = whole_join(s, 5, g)
    out += [commit(), commit(generation=joined["GenerationId"], member=joined["MemberId"]), commit(generation=joined["GenerationId"] + 1, member=joined["MemberId"]),
            commit(generation=joined["GenerationId"], member="who")]
    s.call("SyncGroup", 3, {"GroupId": g, "GenerationId": joined["GenerationId"], "MemberId": joined["MemberId"], "Assignments": []})
    out += [commit(generation=joined["GenerationId"], member=joined["MemberId"], offset=6), commit(generation=joined["GenerationId"], member=joined["MemberId"], instance="other")]
    s.call("LeaveGroup", 2, {"GroupId": g, "MemberId": joined["MemberId"]})
    return out


@case("offset delete", "OffsetDelete")
def _(s, v):
    topic = s.topic(2)
    g = s.prefix
    s.call("OffsetCommit", 8, {"GroupId": g, "GenerationIdOrMemberEpoch": -1, "Topics": [{"Name": topic[0], "Partitions": [{"PartitionIndex": p, "CommittedOffset": 1} for p in (0, 1)]}]})
    delete = lambda group, partition, name=topic[0]: s.call("OffsetDelete", v, {"GroupId": group, "Topics": [{"Name": name, "Partitions": [{"PartitionIndex": partition}]}]})
    return [delete(g, 0), delete(g, 0), delete(g, 9), delete(g, 0, "nowhere"), delete(f"{g}-none", 0), delete("", 0)]


@case("static members", "JoinGroup", [5, 7, 9])
def _(s, v):
    g = s.prefix
    first = whole_join(s, v, g, instance="i")
    generation, member = first["GenerationId"], first["MemberId"]
    s.call("SyncGroup", 3, {"GroupId": g, "GenerationId": generation, "MemberId": member, "GroupInstanceId": "i", "Assignments": [{"MemberId": member, "Assignment": b"a"}]})
    again = join(s, v, g, instance="i")
    beat = lambda m, gen, i="i": s.call("Heartbeat", 3, {"GroupId": g, "GenerationId": gen, "MemberId": m, "GroupInstanceId": i})
    out = [first, again, beat(member, generation), beat(again["MemberId"], again["GenerationId"]), beat(again["MemberId"], again["GenerationId"], "j")]
    out.append(s.call("SyncGroup", 3, {"GroupId": g, "GenerationId": again["GenerationId"], "MemberId": again["MemberId"], "GroupInstanceId": "i"}))
    out.append(join(s, v, g, member=member, instance="i"))
    out.append(join(s, v, g, member="who", instance="j"))
    out.append(s.call("LeaveGroup", 4, {"GroupId": g, "Members": [{"MemberId": member, "GroupInstanceId": "i"}, {"MemberId": "", "GroupInstanceId": "i"}]}))
    return out


# --- Topics

def topic_request(name, partitions=1, replication=1, configs=(), assignments=()):
    return {"Name": name, "NumPartitions": partitions, "ReplicationFactor": replication, "Configs": [{"Name": k, "Value": x} for k, x in configs],
            "Assignments": [{"PartitionIndex": p, "BrokerIds": b} for p, b in assignments]}


@case("create topics", "CreateTopics")
def _(s, v):
    n = s.prefix
    s.topic()

    def create(*topics, validate=False):
        answer = s.call("CreateTopics", v, {"Topics": list(topics), "timeoutMs": 5000, "validateOnly": validate})
        if answer != "closed":
            answer["Topics"].sort(key=lambda t: t["Name"])
            for t in answer["Topics"]:
                t["Configs"] = sorted(repr(c) for c in t.get("Configs") or [])
        return answer
    return [create(topic_request(n + "a", 2)), create(topic_request(n + "a")), create(topic_request(n + "-1")), create(topic_request("")), create(topic_request("bad name")),
            create(topic_request(".")), create(topic_request("x" * 250)), create(topic_request(n + "b", 0)), create(topic_request(n + "b", -1, -1)), create(topic_request(n + "c", -2)),
            create(topic_request(n + "c", 1, 0)), create(topic_request(n + "c", 1, 3)), create(topic_request(n + "c", 1, -1, (("no.such", "1"),))),
            create(topic_request(n + "c", 1, 1, (("retention.ms", "x"),))), create(topic_request(n + "c", 1, 1, (("retention.ms", None),))),
            create(topic_request(n + "c", 1, 1, (("retention.ms", "5"), ("retention.ms", "6")))),
            create(topic_request(n + "c", 1, 1, (("cleanup.policy", "compact,delete"),))),
            create(topic_request(n + "d", 1, 1, assignments=((0, [1]),))), create(topic_request(n + "d", -1, -1, assignments=((0, [1]), (1, [1])))),
            create(topic_request(n + "e", -1, -1, assignments=((0, [9]),))), create(topic_request(n + "e", -1, -1, assignments=((0, [1, 1]),))),
            create(topic_request(n + "e", -1, -1, assignments=((1, [1]),))), create(topic_request(n + "e", -1, -1, assignments=((0, []),))),
            create(topic_request(n + "e", -1, -1, assignments=((0, [1]), (0, [1])))),
            create(topic_request(n + "f"), topic_request(n + "f")), create(topic_request(n + "g"), topic_request(n + "h", 0)),
            create(topic_request(n + "i"), validate=True), create(topic_request(n + "j.k")), create(topic_request(n + "j_k")), create(topic_request(n + "l", 10001)),
            create(topic_request("__consumer_offsets")), create(topic_request("__cluster_metadata")), create()]


@case("delete topics", "DeleteTopics")
def _(s, v):
    first, second = s.topic(), s.topic()

    def delete(*names, ids=()):
        if v >= 6:
            return s.call("DeleteTopics", v, {"Topics": [{"Name": n} for n in names] + [{"Name": None, "TopicId": i} for i in ids], "TimeoutMs": 5000})
        return s.call("DeleteTopics", v, {"TopicNames": list(names), "TimeoutMs": 5000})
    out = [delete(first[0]), delete(first[0]), delete("nowhere"), delete(""), delete(second[0], second[0]), delete(), delete("bad name")]
    if v >= 6:
        third = s.topic()
        out += [delete(ids=[SOME_ID]), delete(third[0], ids=[third[1]]), delete(ids=[third[1]]), delete(ids=[UUID_ZERO])]
    return out


@case("create partitions", "CreatePartitions")
def _(s, v):
    name, _ = s.topic(2)

    def more(count, assignments=None, name=name, validate=False):
        return s.call("CreatePartitions", v, {"Topics": [{"Name": name, "Count": count, "Assignments": None if assignments is None else [{"BrokerIds": b} for b in assignments]}], "TimeoutMs": 5000, "ValidateOnly": validate})
    twice = s.call("CreatePartitions", v, {"Topics": [{"Name": name, "Count": 9, "Assignments": None}] * 2, "TimeoutMs": 5000})
    return [more(2), more(1), more(0), more(-1), more(3), more(4, [[1]]), more(6, [[1]]), more(5, [[9]]), more(5, [[1, 1]]), more(5, [[]]), more(5, validate=True), more(5, name="nowhere"), twice]


# --- Configs

@case("describe configs", "DescribeConfigs")
def _(s, v):
    name, _ = s.topic(retention_ms=5, cleanup_policy="compact")

    def describe(kind, resource, keys=None, synonyms=True, documentation=False):
        answer = s.call("DescribeConfigs", v, {"Resources": [{"ResourceType": kind, "ResourceName": resource, "ConfigurationKeys": keys}], "IncludeSynonyms": synonyms,
                                               **({"IncludeDocumentation": documentation} if v >= 3 else {})})
        for result in answer["Results"]:
            # Kafka's order is that of a hash table.
            result["Configs"] = sorted(result["Configs"], key=lambda c: c["Name"])
        return answer
    return [describe(2, name), describe(2, name, ["retention.ms"]), describe(2, name, ["no.such"]), describe(2, name, []), describe(2, name, ["retention.ms", "segment.bytes"], False),
            describe(2, name, ["retention.ms", "cleanup.policy"], True, True), describe(2, "nowhere"), describe(2, "bad name"), describe(2, ""), describe(4, "9"), describe(4, "x"),
            describe(4, "1", ["num.partitions", "log.retention.ms", "node.id", "log.cleaner.threads", "message.max.bytes"]), describe(4, ""), describe(77, "x"), describe(32, "group")]


@case("describe all configs of a broker", "DescribeConfigs", [1, 4])
def _(s, v):
    answer = s.call("DescribeConfigs", v, {"Resources": [{"ResourceType": 4, "ResourceName": "1", "ConfigurationKeys": None}], "IncludeSynonyms": True})
    out = {}
    for config in answer["Results"][0]["Configs"]:
        if config["Name"].startswith("ottla.") or config["Name"] in ("listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"):
            continue
        out[config["Name"]] = config
    return out


@case("incremental alter configs", "IncrementalAlterConfigs")
def _(s, v):
    name, _ = s.topic()

    def alter(*configs, kind=2, resource=name, validate=False):
        return s.call("IncrementalAlterConfigs", v, {"Resources": [{"ResourceType": kind, "ResourceName": resource, "Configs": [
            {"Name": k, "ConfigOperation": op, "Value": value} for k, op, value in configs]}], "ValidateOnly": validate})

    def shown(key):
        s.barrier()
        answer = s.call("DescribeConfigs", 4, {"Resources": [{"ResourceType": 2, "ResourceName": name, "ConfigurationKeys": [key]}], "IncludeSynonyms": True})
        return answer["Results"][0]["Configs"]
    return [alter(("retention.ms", 0, "77")), shown("retention.ms"), alter(("retention.ms", 0, "x")), alter(("retention.ms", 0, None)), alter(("retention.ms", 2, "1")), alter(("retention.ms", 3, "1")),
            alter(("cleanup.policy", 2, "compact")), shown("cleanup.policy"), alter(("cleanup.policy", 2, "compact")), alter(("cleanup.policy", 3, "delete")), shown("cleanup.policy"),
            alter(("cleanup.policy", 3, "nothing")), alter(("cleanup.policy", 1, None)), shown("cleanup.policy"), alter(("no.such", 0, "1")), alter(("no.such", 1, None)),
            alter(("retention.ms", 0, "1"), ("retention.ms", 0, "2")), alter(("retention.ms", 9, "1")), alter(("retention.ms", 0, "99"), validate=True), shown("retention.ms"),
            alter(("retention.ms", 0, "1"), resource="nowhere"), alter(("retention.ms", 0, "1"), resource=""), alter(("retention.ms", 0, "1"), resource="bad name"), alter(("x", 0, "1"), kind=77),
            alter(("x", 0, "1"), kind=4, resource="9"), alter(("node.id", 0, "9"), kind=4, resource="1"), alter(("log.retention.ms", 0, "x"), kind=4, resource="1"), alter(("x", 0, "1"), kind=4, resource="y"),
            alter(("consumer.session.timeout.ms", 0, "50000"), kind=32, resource="grp"), alter(("consumer.session.timeout.ms", 1, None), kind=32, resource="grp"), alter(("no.such", 0, "1"), kind=32, resource="grp"),
            alter(("consumer.session.timeout.ms", 0, "1"), kind=32, resource="grp"), alter(("x", 0, "1"), kind=32, resource=""), alter(), alter(("segment.bytes", 0, "1048576"), ("retention.ms", 0, "x"))]


@case("alter configs", "AlterConfigs")
def _(s, v):
    name, _ = s.topic(cleanup_policy="compact")

    def alter(*configs, kind=2, resource=name, validate=False):
        return s.call("AlterConfigs", v, {"Resources": [{"ResourceType": kind, "ResourceName": resource, "Configs": [{"Name": k, "Value": x} for k, x in configs]}], "ValidateOnly": validate})

    def shown(key):
        s.barrier()
        answer = s.call("DescribeConfigs", 4, {"Resources": [{"ResourceType": 2, "ResourceName": name, "ConfigurationKeys": [key]}], "IncludeSynonyms": True})
        return answer["Results"][0]["Configs"]
    return [alter(("retention.ms", "5")), shown("retention.ms"), shown("cleanup.policy"), alter(("retention.ms", "x")), alter(("no.such", "1")), alter(("retention.ms", None)), alter(("retention.ms", "7"), validate=True),
            shown("retention.ms"), alter(("retention.ms", "1"), ("retention.ms", "2")), alter(), shown("retention.ms"), alter(("a", "b"), resource="nowhere"), alter(("a", "b"), kind=77), alter(("node.id", "2"), kind=4, resource="1")]


# --- The rest

@case("init producer id", "InitProducerId")
def _(s, v):
    call = lambda **body: s.call("InitProducerId", v, {"TransactionTimeoutMs": 60000, **body})
    # The first one to ask makes the broker fetch a block of ids.
    wait_until("there are ids", lambda: call(TransactionalId=None)["ErrorCode"] == 0)
    out = [call(TransactionalId=None), call(TransactionalId="")]
    if v >= 3:
        out += [call(TransactionalId=None, ProducerId=123, ProducerEpoch=4), call(TransactionalId=None, ProducerId=-1, ProducerEpoch=3)]
    return out


@case("describe log dirs", "DescribeLogDirs")
def _(s, v):
    topic = s.topic(2)
    s.produce(topic, records())

    def sizes(answer):
        for result in answer["Results"]:
            for t in result["Topics"]:
                t["Partitions"].sort(key=lambda p: p["PartitionIndex"])
        return answer
    ask = lambda name, partitions: s.call("DescribeLogDirs", v, {"Topics": [{"Topic": name, "Partitions": partitions}]})
    return [sizes(ask(topic[0], [0, 1])), sizes(ask(topic[0], [1])), sizes(ask(topic[0], [9])), sizes(ask("nowhere", [0])), sizes(s.call("DescribeLogDirs", v, {"Topics": []}))]


@pytest.fixture(scope="session")
def answers(reference_broker):
    """Kafka's answer to each case, asked once."""
    remembered: dict = {}

    def ask(name):
        if name not in remembered:
            remembered[name] = run_case(reference_broker, name)
        return remembered[name]
    return ask


def run_case(broker, name):
    function, version = CASES[name]
    session = Session(broker, name)
    try:
        session.find_coordinator()
        return masked(function(session, version))
    finally:
        session.connection.close()


def differences(expected, actual, path=""):
    """Every place where two answers differ, as readable lines."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys(), key=str):
            if key not in actual:
                yield f"{path}.{key}: {expected[key]!r} is missing"
            elif key not in expected:
                yield f"{path}.{key}: {actual[key]!r} where Kafka has nothing"
            else:
                yield from differences(expected[key], actual[key], f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield f"{path}: {len(actual)} items, Kafka has {len(expected)}: {actual!r} vs {expected!r}"
        else:
            for i, (e, a) in enumerate(zip(expected, actual)):
                yield from differences(e, a, f"{path}[{i}]")
    elif expected != actual:
        yield f"{path}: {actual!r}, Kafka: {expected!r}"


@pytest.mark.parametrize("name", CASES)
def test_same_answer_as_kafka(broker, answers, name):
    known = [pattern for case_name, pattern, _ in KNOWN_DIFFERENCES if name.startswith(case_name)] if broker.kind == "ottla" else []
    every = list(differences(answers(name), run_case(broker, name)))
    for pattern in known:
        assert any(re.search(pattern, line) for line in every), f"{name}: no longer different, take {pattern!r} out of the known differences"
    found = [line for line in every if not any(re.search(pattern, line) for pattern in known)]
    assert not found, f"{name}:\n" + "\n".join(line[:600] for line in found[:25])
