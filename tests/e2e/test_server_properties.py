"""server.properties: settings of a broker that show from outside, and the start without any."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from harness import paths
from harness.clients import Member, Sender, read_assigned, send_all
from harness.net import free_ports, wait_until
from harness.tools import Tools
from harness.wire import Connection, request_bytes


@pytest.fixture
def node(own_broker, request):
    """A node with the properties of the test's mark."""
    return own_broker(request.param).start()


def with_properties(**properties):
    return pytest.mark.parametrize("node", [{key.replace("_", "."): str(value) for key, value in properties.items()}], indirect=True, ids=["node"])


def metadata(node, *topics, port=None, create=True):
    with Connection("127.0.0.1", port or node.port) as connection:
        return connection.call("Metadata", 9, {"Topics": [{"Name": topic} for topic in topics], "AllowAutoTopicCreation": create})


@with_properties(num_partitions=3, log_segment_bytes=2097152, compression_type="lz4", log_message_timestamp_type="LogAppendTime", message_max_bytes=5000,
                 offsets_topic_num_partitions=7, log_retention_hours=2)
def test_defaults_of_topics_come_from_the_broker(node, tools_for):
    tools = tools_for(node)
    send_all(node.bootstrap, "auto", [b"x"])
    described = tools("kafka-topics", "--describe", "--topic", "auto").ok()
    assert "PartitionCount: 3" in described.out
    configs = dict(re.findall(r"^  (\S+?)=(\S*) ", tools("kafka-configs", "--describe", "--all", "--entity-type", "topics", "--entity-name", "auto").ok().out, re.M))
    assert configs["segment.bytes"] == "2097152" and configs["compression.type"] == "lz4" and configs["retention.ms"] == "7200000"
    (message,) = read_assigned(node.bootstrap, "auto", 3, 1)
    assert message.timestamp()[0] == 2
    sender = Sender(node.bootstrap)
    sender.send("auto", b"x" * 6000)
    sender.finish()
    assert [error.code() for error in sender.errors] == [KafkaError.MSG_SIZE_TOO_LARGE]
    member = Member(node.bootstrap, "g", ["auto"])
    member.start()
    wait_until("the group reads", lambda: member.messages)
    member.leave()
    assert "PartitionCount: 7" in tools("kafka-topics", "--describe", "--topic", "__consumer_offsets").ok().out


@with_properties(auto_create_topics_enable="false")
def test_no_auto_creation(node):
    answer = metadata(node, "absent")
    assert answer["Topics"][0]["ErrorCode"] == 3
    assert metadata(node, "absent")["Topics"][0]["ErrorCode"] == 3


@with_properties(delete_topic_enable="false")
def test_no_deletion(node):
    send_all(node.bootstrap, "kept", [b"x"])
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    with pytest.raises(KafkaException) as caught:
        admin.delete_topics(["kept"])["kept"].result(20)
    assert caught.value.args[0].code() == KafkaError.TOPIC_DELETION_DISABLED


@pytest.mark.allow_log("frame|closed|closing")
@with_properties(socket_request_max_bytes=10000)
def test_request_size_limit(node):
    with Connection("127.0.0.1", node.port) as connection:
        connection.send_raw((10001).to_bytes(4, "big"))
        assert connection.closed_by_peer()
    with Connection("127.0.0.1", node.port) as connection:
        frame = request_bytes("Metadata", 9, {"Topics": []}, 1)
        connection.send_frame(frame + b"\0" * (10000 - len(frame)))
        assert connection.receive("Metadata", 9, 1)["Brokers"]


@with_properties(connections_max_idle_ms=2000)
def test_idle_connections_are_closed(node):
    with Connection("127.0.0.1", node.port) as idle, Connection("127.0.0.1", node.port) as busy:
        idle.call("ApiVersions", 0, {})
        began = time.monotonic()
        while time.monotonic() - began < 3:
            busy.call("ApiVersions", 0, {})
            time.sleep(0.2)
        assert idle.closed_by_peer(20)
        assert busy.call("ApiVersions", 0, {})["ErrorCode"] == 0


@with_properties(group_initial_rebalance_delay_ms=3000, group_max_size=1)
def test_group_limits(node):
    send_all(node.bootstrap, "t", [b"x"])
    first = Member(node.bootstrap, "g", ["t"])
    began = time.monotonic()
    first.start()
    wait_until("the member is assigned", lambda: first.owned)
    assert time.monotonic() - began > 2.9
    second = Member(node.bootstrap, "g", ["t"])
    second.start()
    wait_until("the second is refused", lambda: second.error)
    assert second.error.args[0].code() == KafkaError.GROUP_MAX_SIZE_REACHED
    first.leave()


def test_two_listeners_each_advertise_themselves(own_broker):
    node = own_broker()
    (second,) = free_ports(1)
    node.overrides.update({
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},OTHER://127.0.0.1:{second},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port},OTHER://localhost:{second}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    })
    node.start()
    assert [(b["Host"], b["Port"]) for b in metadata(node)["Brokers"]] == [("127.0.0.1", node.port)]
    assert [(b["Host"], b["Port"]) for b in metadata(node, port=second)["Brokers"]] == [("localhost", second)]
    assert send_all(f"localhost:{second}", "t", [b"x"]) == [(0, 0)]


def test_controller_listener_serves_its_own_apis(own_broker):
    node = own_broker().start()
    with Connection("127.0.0.1", node.controller_port) as connection:
        answer = connection.call("ApiVersions", 3, {"ClientSoftwareName": "e2e", "ClientSoftwareVersion": "1"})
    keys = {entry["ApiKey"] for entry in answer["ApiKeys"]}
    # No Produce, no Metadata; DescribeQuorum and what an admin client needs with --bootstrap-controller.
    assert not keys & {0, 3, 11} and {18, 55, 60} <= keys


def free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_start_without_any_configuration(request, tool_machine, scratch):
    """One node on 127.0.0.1:9092 with its data in ./data, formatted on the first start, and the same node on the second."""
    if request.config.getoption("--broker") != "ottla":
        pytest.skip("Apache Kafka needs a configuration")
    command = [str(paths.OTTLA_BIN), "start"]
    port = 9092
    if not (free(9092) and free(9093)):
        # Somebody else's broker: the rest is still worth testing.
        port, controller = free_ports(2)
        command += ["--override", f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"]
    tools = Tools(tool_machine, f"127.0.0.1:{port}")
    cluster_ids = set()
    for start in range(2):
        with open(scratch / "log", "ab") as log:
            process = subprocess.Popen(command, cwd=scratch, stdout=log, stderr=log, env={**os.environ, "NO_COLOR": "1"})
        try:
            def answers():
                assert process.poll() is None, (scratch / "log").read_text()
                try:
                    with Connection("127.0.0.1", port) as connection:
                        return connection.call("Metadata", 1, {"Topics": []})["Brokers"]
                except OSError:
                    return None
            wait_until("it serves", answers, 60)
            tools("kafka-console-producer", "--topic", "first", stdin=f"start {start}\n").ok()
            read = tools("kafka-console-consumer", "--topic", "first", "--from-beginning", "--group", f"g{start}", "--max-messages", start + 1).ok()
            assert read.lines == [f"start {i}" for i in range(start + 1)]
            cluster_ids.add(tools("kafka-cluster", "cluster-id").ok().lines[-1])
        finally:
            process.send_signal(signal.SIGINT if start else signal.SIGTERM)
            try:
                status = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert status == 0, (scratch / "log").read_text()
    assert len(cluster_ids) == 1
    assert (scratch / "data" / "meta.properties").exists()
    banner = (scratch / "log").read_text()
    assert str(port) in banner and "panicked" not in banner


def test_format_then_start(request, own_broker, tool_machine):
    node = own_broker()
    node.write_config()
    node.format()
    assert node.cluster_id == node.wanted_cluster_id
    node.start()
    assert Tools(tool_machine, node.bootstrap)("kafka-cluster", "cluster-id").ok().lines == [f"Cluster ID: {node.wanted_cluster_id}"]
    node.stop()
    with pytest.raises(AssertionError, match="already formatted"):
        node.format()
