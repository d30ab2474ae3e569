"""Frames that no client should send: Kafka's answer or a closed connection, and nobody else disturbed."""

import random
import re
import struct
import threading
import time
from pathlib import Path

import pytest

from harness.net import wait_until
from harness.records import Record, batch, batches
from harness.wire import WireError, api, request_bytes

# What a broker may say about hostile bytes.
pytestmark = pytest.mark.allow_log("closing|closed|frame|request|decode|malformed|invalid|unsupported")

REQUEST_BYTES_MAX = 104857600


@pytest.fixture
def bystander(connect):
    """A connection opened before; it must still be served afterwards."""
    connection = connect()
    assert connection.call("ApiVersions", 0, {})["ErrorCode"] == 0
    yield connection
    assert connection.call("Metadata", 9, {"Topics": []})["Brokers"]


@pytest.mark.parametrize("size", [0, -1, -2**31, REQUEST_BYTES_MAX + 1, 2**31 - 1])
def test_frame_size_out_of_bounds_closes(connect, bystander, size):
    connection = connect()
    connection.send_raw(struct.pack(">i", size))
    assert connection.closed_by_peer()


def resident_bytes(broker):
    status = Path(f"/proc/{broker.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.stricter_than_kafka("Apache Kafka allocates the frame at once and runs out of heap")
def test_largest_frame_size_is_accepted_without_being_filled(connect, bystander, broker):
    """The size itself is legal: the broker waits for bytes, and may not have taken 100 MiB for them."""
    before = resident_bytes(broker)
    connections = [connect() for _ in range(50)]
    for connection in connections:
        connection.send_raw(struct.pack(">i", REQUEST_BYTES_MAX) + b"\x00\x12")
    assert not connections[0].closed_by_peer(0.5)
    assert resident_bytes(broker) - before < 64 << 20
    assert bystander.call("ApiVersions", 0, {})["ErrorCode"] == 0


@pytest.mark.parametrize("frame", [
    pytest.param(struct.pack(">hhih", 200, 0, 1, -1), id="unknown key"),
    pytest.param(struct.pack(">hhih", 4, 0, 1, -1), id="removed key"),
    pytest.param(struct.pack(">hhih", -1, 0, 1, -1), id="negative key"),
    pytest.param(struct.pack(">hhih", 1, 3, 1, -1), id="Fetch below its range"),
    pytest.param(struct.pack(">hhih", 1, 19, 1, -1), id="Fetch above its range"),
    pytest.param(struct.pack(">hhih", 3, -1, 1, -1), id="negative version"),
    pytest.param(struct.pack(">hhih", 3, 99, 1, -1), id="Metadata v99"),
    pytest.param(struct.pack(">hhih", 52, 0, 1, -1), id="Vote on a broker listener"),
    pytest.param(struct.pack(">hhih", 62, 0, 1, -1), id="BrokerRegistration on a broker listener"),
    pytest.param(struct.pack(">hhi", 18, 0, 1), id="no client id"),
    pytest.param(struct.pack(">h", 18), id="two bytes"),
    pytest.param(struct.pack(">hhih", 18, 0, 1, 100), id="client id longer than the frame"),
    pytest.param(struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 2**31 - 1), id="array count beyond the frame"),
    pytest.param(struct.pack(">hhih", 3, 9, 1, -1) + b"\0" + b"\xff\xff\xff\xff\x7f", id="compact count beyond any frame"),
    pytest.param(struct.pack(">hhih", 3, 9, 1, -1) + b"\0" + b"\xff" * 12, id="endless varint"),
    pytest.param(struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">ih", 1, -1), id="null where no null may be"),
    pytest.param(struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">ih", 1, 50) + b"x", id="string longer than the frame"),
    pytest.param(struct.pack(">hhih", 18, 3, 1, -1) + b"\x01\x00\xff\xff\x03" + b"\x02a\x02b\x00", id="header tag larger than the frame"),
])
def test_undecodable_request_closes(connect, bystander, frame):
    connection = connect()
    connection.send_frame(frame)
    assert connection.closed_by_peer()


@pytest.mark.parametrize("frame", [
    pytest.param(struct.pack(">hhih", 3, 1, 1, -2) + struct.pack(">i", 0), id="client id"),
    pytest.param(struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", -2), id="array"),
])
def test_length_below_minus_one_reads_as_null_or_closes(connect, bystander, frame):
    """Kafka takes any negative length for null."""
    connection = connect()
    connection.send_frame(frame)
    try:
        assert connection.receive("Metadata", 1, 1)["Brokers"]
    except (WireError, ConnectionResetError):
        pass


def sample(name):
    """A well-formed body of many parts for truncation."""
    return {
        "Metadata": {"Topics": [{"Name": "one"}, {"Name": "two"}]},
        "Produce": {"Acks": 1, "TimeoutMs": 1000, "TopicData": [{"Name": "none", "PartitionData": [{"Index": 0, "Records": batch([Record(b"x")])}]}]},
        "Fetch": {"ReplicaId": -1, "Topics": [{"Topic": "none", "Partitions": [{"Partition": 0, "PartitionMaxBytes": 1000}]}]},
        "JoinGroup": {"GroupId": "g", "SessionTimeoutMs": 10000, "ProtocolType": "consumer", "Protocols": [{"Name": "range", "Metadata": b"abc"}]},
        "CreateTopics": {"Topics": [{"Name": "a", "NumPartitions": 1, "ReplicationFactor": 1, "Configs": [{"Name": "x", "Value": "y"}]}], "validateOnly": True},
    }[name]


@pytest.mark.parametrize("name, version", [("Metadata", 1), ("Metadata", 12), ("Produce", 3), ("Produce", 9), ("Fetch", 4), ("Fetch", 12),
                                           ("JoinGroup", 5), ("JoinGroup", 9), ("CreateTopics", 4), ("CreateTopics", 7)])
def test_body_cut_anywhere_closes(connect, bystander, name, version):
    """A frame whose size is right and whose body ends early, for every cut within the body."""
    whole = request_bytes(name, version, sample(name), 1)
    empty = request_bytes(name, version, {}, 1)
    header = next(i for i in range(min(len(whole), len(empty))) if i >= 13)
    for cut in sorted({header, *range(header + 1, len(whole), max(1, len(whole) // 12)), len(whole) - 1}):
        connection = connect()
        connection.send_frame(whole[:cut])
        assert connection.closed_by_peer(), f"{name} v{version} cut at {cut} of {len(whole)}"
        connection.close()


def test_extra_bytes_after_the_body_are_ignored(connect):
    connection = connect()
    connection.send_frame(request_bytes("Metadata", 9, {"Topics": []}, 1) + b"\xaa" * 7)
    assert connection.receive("Metadata", 9, 1)["Brokers"]
    assert connection.call("ApiVersions", 0, {})["ErrorCode"] == 0


def test_client_goes_away_in_the_middle_of_a_frame(connect, bystander):
    whole = request_bytes("Metadata", 9, {"Topics": []}, 1)
    for cut in range(len(whole)):
        connection = connect()
        connection.send_raw((struct.pack(">i", len(whole)) + whole)[:cut])
        connection.close()


def test_client_goes_away_before_the_answer(broker, connect, create, bystander, name):
    """Parked fetches and large answers of clients that left hold nothing up."""
    create(name)
    for _ in range(30):
        connection = connect()
        connection.send("Fetch", 4, {"ReplicaId": -1, "MaxWaitMs": 60000, "MinBytes": 1, "Topics": [{"Topic": name, "Partitions": [{"Partition": 0, "PartitionMaxBytes": 1000}]}]})
        connection.close()
    connection = connect()
    produced = connection.call("Produce", 3, {"Acks": 1, "TimeoutMs": 1000, "TopicData": [{"Name": name, "PartitionData": [{"Index": 0, "Records": batch([Record(b"x")])}]}]})
    assert produced["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == 0


@pytest.mark.parametrize("version", [5, 99, 32767, -1])
def test_api_versions_falls_back(connect, version):
    """An unknown version is answered in version 0 with error 35, naming ApiVersions only, and the connection goes on."""
    connection = connect()
    connection.send_frame(struct.pack(">hhih", 18, version, 7, -1) + b"\x00\x01\x01\x00")
    frame = connection.receive_frame()
    assert frame == struct.pack(">ihihhh", 7, 35, 1, 18, 0, 4)
    assert connection.call("ApiVersions", 3, {"ClientSoftwareName": "e2e", "ClientSoftwareVersion": "1"})["ErrorCode"] == 0


@pytest.mark.parametrize("software", [("", "1"), ("e2e", ""), ("with space", "1"), ("-lead", "1"), ("trail-", "1"), ("ünï", "1")])
def test_api_versions_checks_the_software_name(connect, software):
    connection = connect()
    answer = connection.call("ApiVersions", 3, {"ClientSoftwareName": software[0], "ClientSoftwareVersion": software[1]})
    assert answer["ErrorCode"] == 42
    assert connection.call("ApiVersions", 0, {})["ErrorCode"] == 0


def test_one_byte_at_a_time(connect):
    connection = connect()
    for name, version, body in (("ApiVersions", 3, {"ClientSoftwareName": "e2e", "ClientSoftwareVersion": "1"}), ("Metadata", 12, {"Topics": None})):
        connection.correlation_id += 1
        frame = request_bytes(name, version, body, connection.correlation_id)
        for byte in struct.pack(">i", len(frame)) + frame:
            connection.send_raw(bytes([byte]))
        assert connection.receive(name, version)["ErrorCode" if name == "ApiVersions" else "ThrottleTimeMs"] == 0


def test_slow_sender_holds_only_its_own_connection(connect, bystander):
    """Twenty connections stuck within a frame; others are answered as fast as ever."""
    frame = request_bytes("Metadata", 9, {"Topics": []}, 1)
    data = struct.pack(">i", len(frame)) + frame
    stuck = [connect() for _ in range(20)]
    for i, connection in enumerate(stuck):
        connection.send_raw(data[:1 + i])
    began = time.monotonic()
    for _ in range(50):
        bystander.call("ApiVersions", 0, {})
    assert time.monotonic() - began < 5
    for i, connection in enumerate(stuck):
        connection.send_raw(data[1 + i:])
        assert connection.receive("Metadata", 9, 1)["Brokers"]


def test_slow_reader_holds_only_its_own_connection(connect, bystander, create, name):
    """A client that asks for much and reads nothing: what is kept for it is bounded, and others are served."""
    create(name)
    connection = connect()
    value = b"v" * 900_000
    for _ in range(8):
        produced = connection.call("Produce", 3, {"Acks": 1, "TimeoutMs": 5000, "TopicData": [{"Name": name, "PartitionData": [{"Index": 0, "Records": batch([Record(value)])}]}]})
        assert produced["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == 0
    greedy = connect()
    fetch = {"ReplicaId": -1, "MaxWaitMs": 100, "MinBytes": 1, "Topics": [{"Topic": name, "Partitions": [{"Partition": 0, "PartitionMaxBytes": 50_000_000}]}]}
    for _ in range(20):
        greedy.send("Fetch", 4, fetch)
    began = time.monotonic()
    for _ in range(20):
        assert bystander.call("ApiVersions", 0, {})["ErrorCode"] == 0
    assert time.monotonic() - began < 5
    for i in range(1, 21):
        answer = greedy.receive("Fetch", 4, i)
        assert [len(b.records()[0].value) for b in batches(answer["Responses"][0]["Partitions"][0]["Records"])] == [900_000] * 8


def test_pipelined_requests_are_answered_in_order(connect, create, name):
    create(name)
    connection = connect()
    fetch = {"ReplicaId": -1, "MaxWaitMs": 700, "MinBytes": 1, "Topics": [{"Topic": name, "Partitions": [{"Partition": 0, "PartitionMaxBytes": 1000}]}]}
    plan = [("ApiVersions", 0, {}), ("Fetch", 4, fetch), ("Metadata", 9, {"Topics": []}), ("ListGroups", 0, {}), ("Fetch", 4, fetch), ("ApiVersions", 0, {})] * 2
    began = time.monotonic()
    sent = [(name, version, connection.send(name, version, body)) for name, version, body in plan]
    for name, version, correlation_id in sent:
        connection.receive(name, version, correlation_id)
    # The four fetches found nothing and waited one after the other, or overlapped.
    assert 0.6 < time.monotonic() - began < 6


def test_pipelined_produces_keep_their_order(connect, create, name):
    create(name)
    connection = connect()
    count = 200
    for i in range(count):
        connection.send("Produce", 7, {"Acks": -1 if i % 2 else 1, "TimeoutMs": 5000, "TopicData": [{"Name": name, "PartitionData": [{"Index": 0, "Records": batch([Record(b"%d" % i)])}]}]})
    for i in range(count):
        partition = connection.receive("Produce", 7, i + 1)["Responses"][0]["PartitionResponses"][0]
        assert (partition["ErrorCode"], partition["BaseOffset"]) == (0, i)
    fetched = connection.call("Fetch", 4, {"ReplicaId": -1, "MaxWaitMs": 100, "MinBytes": 1, "Topics": [{"Topic": name, "Partitions": [{"Partition": 0, "PartitionMaxBytes": 1 << 20}]}]})
    values = [record.value for b in batches(fetched["Responses"][0]["Partitions"][0]["Records"]) for record in b.records()]
    assert values == [b"%d" % i for i in range(count)]


def test_many_requests_in_one_write(connect):
    connection = connect()
    data = b""
    for i in range(1, 501):
        frame = request_bytes("ApiVersions", 0, {}, i)
        data += struct.pack(">i", len(frame)) + frame
    writer = threading.Thread(target=connection.send_raw, args=(data,))
    writer.start()
    for i in range(1, 501):
        assert connection.receive("ApiVersions", 0, i)["ErrorCode"] == 0
    writer.join(10)


def test_acks_0_error_closes_the_connection(connect, create, bystander, name):
    """The producer has no other way to notice."""
    create(name)
    connection = connect()

    def produce(topic, version=3):
        connection.send("Produce", version, {"Acks": 0, "TimeoutMs": 1000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 0, "Records": batch([Record(b"x")])}]}]})
    produce(name)
    # Nothing is answered: what comes next is the answer to the next request.
    assert connection.call("ApiVersions", 0, {})["ErrorCode"] == 0
    wait_until("the record is there", lambda: connection.call("ListOffsets", 1, {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]})["Topics"][0]["Partitions"][0]["Offset"] == 1)
    produce(f"{name}-none")
    assert connection.closed_by_peer()


def test_invalid_acks(connect, create, name):
    create(name)
    answer = connect().call("Produce", 3, {"Acks": 2, "TimeoutMs": 1000, "TopicData": [{"Name": name, "PartitionData": [{"Index": 0, "Records": batch([Record(b"x")])}]}]})
    assert answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == 21


@pytest.mark.parametrize("version", [0, 1, 2])
def test_old_produce_versions_are_advertised_but_refused(connect, version):
    connection = connect()
    connection.send_frame(struct.pack(">hhih", 0, version, 1, -1) + struct.pack(">hii", 1, 1000, 0))
    assert connection.closed_by_peer()


def test_every_api_survives_an_empty_body(connect, bystander):
    """Whatever it does with it: an answer or a closed connection within bounds, for every advertised version."""
    advertised = connect().call("ApiVersions", 0, {})["ApiKeys"]
    for entry in advertised:
        for version in range(entry["MinVersion"], entry["MaxVersion"] + 1):
            connection = connect()
            connection.send_frame(struct.pack(">hhih", entry["ApiKey"], version, 1, -1))
            try:
                connection.receive_frame()
            except (WireError, ConnectionResetError):
                pass
            except TimeoutError:
                raise AssertionError(f"neither an answer nor an end: key {entry['ApiKey']} version {version}")
            connection.close()


def test_random_bytes(connect, bystander):
    """300 frames of seeded noise under plausible headers."""
    dice = random.Random(3)
    advertised = connect().call("ApiVersions", 0, {})["ApiKeys"]
    # Requests that would change the broker when noise happens to decode are left out.
    keys = [entry for entry in advertised if entry["ApiKey"] in (0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 23, 32, 35, 60, 75)]
    for _ in range(300):
        entry = dice.choice(keys)
        version = dice.randint(entry["MinVersion"], entry["MaxVersion"])
        connection = connect(timeout=5)
        connection.send_frame(struct.pack(">hhih", entry["ApiKey"], version, 1, -1) + dice.randbytes(dice.randint(0, 60)))
        connection.close()


def test_request_names_are_those_of_the_schemas():
    """The tests' own codec knows the APIs it is asked about."""
    assert api("Produce")[0].api_key == 0 and api("DescribeTopicPartitions")[0].api_key == 75
