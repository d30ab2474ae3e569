"""ottla.metrics.listen as Prometheus' own client library reads it, and `ottla top` on a terminal."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
import urllib.request

import pytest
from kafka import KafkaConsumer, KafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from harness.net import free_ports, wait_until

pytestmark = pytest.mark.stricter_than_kafka("Apache Kafka has no such endpoint")

SECONDS_MAX = 60


@pytest.fixture
def node(own_broker):
    port, = free_ports(1)
    broker = own_broker({"ottla.metrics.listen": f"127.0.0.1:{port}"})
    broker.metrics = f"127.0.0.1:{port}"
    return broker.start()


def scrape(node) -> dict[tuple, float]:
    """Values by name and labels, each family's type checked."""
    with urllib.request.urlopen(f"http://{node.metrics}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read().decode()
    values = {}
    for family in text_string_to_metric_families(text):
        assert family.type in ("counter", "gauge", "histogram") and family.documentation, family
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in values, key
            values[key] = sample.value
    return values


def total(values: dict[tuple, float], name: str, **labels: str) -> float:
    return sum(value for (found, labelled), value in values.items() if found == name and labels.items() <= dict(labelled).items())


def stage(values: dict[tuple, float], api: str, name: str) -> float:
    return total(values, "ottla_request_stage_seconds_count", api=api, stage=name)


def test_what_clients_did_is_counted(node, name):
    records = 40
    producer = KafkaProducer(bootstrap_servers=node.bootstrap, acks="all", linger_ms=0)
    for number in range(records):
        producer.send(name, b"%d" % number).get(timeout=SECONDS_MAX)
    producer.close()
    consumer = KafkaConsumer(name, bootstrap_servers=node.bootstrap, group_id=name, auto_offset_reset="earliest", consumer_timeout_ms=SECONDS_MAX * 1000)
    read = [next(consumer).value for _ in range(records)]
    assert sorted(map(int, read)) == list(range(records))
    consumer.commit()
    consumer.close()
    values = wait_until("all connections have ended", lambda: (found := scrape(node)) and total(found, "ottla_connections") == 0 and found)
    # A produce to a topic that is being created is sent again.
    assert stage(values, "Produce", "total") >= records
    assert total(values, "ottla_topic_produce_batches_total", topic=name) == records
    assert total(values, "ottla_topic_produce_batch_bytes_count", topic=name) == records
    written = total(values, "ottla_topic_produce_bytes_total", topic=name)
    assert total(values, "ottla_topic_fetch_bytes_total", topic=name) >= written > 0
    for api in ("Metadata", "Fetch", "FindCoordinator", "JoinGroup", "SyncGroup", "OffsetCommit", "LeaveGroup"):
        assert stage(values, api, "answered") >= stage(values, api, "total") > 0, api
    assert total(values, "ottla_connections_closed_total", reason="peer") == total(values, "ottla_connections_accepted_total") > 0


def test_top_runs_on_a_terminal_until_it_is_told_to_quit(node, name):
    KafkaProducer(bootstrap_servers=node.bootstrap).send(name, b"x").get(timeout=SECONDS_MAX)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    command = [str(node.binary), "top", "--metrics", node.metrics, "--interval", "0.2"]
    top = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm-256color"}, start_new_session=True)
    os.close(theirs)
    shown = b""

    def read_until(condition) -> None:
        nonlocal shown
        end = time.monotonic() + SECONDS_MAX
        while not condition():
            ready, _, _ = select.select([ours], [], [], max(0, end - time.monotonic()))
            assert ready, f"nothing new on the screen: {shown[-2000:]!r}"
            try:
                shown += os.read(ours, 65536)
            except OSError:
                # The other end is closed: the program has ended.
                return

    try:
        read_until(lambda: all(text in shown for text in (b"Cores", b"Produce", name.encode(), b"quit")))
        os.write(ours, b"q")
        read_until(lambda: top.poll() is not None)
        assert top.wait(SECONDS_MAX) == 0
        # It leaves the alternate screen behind as it found it.
        assert shown.rindex(b"\x1b[?1049l") > shown.index(b"\x1b[?1049h")
    finally:
        if top.poll() is None:
            os.killpg(top.pid, signal.SIGKILL)
            top.wait()
        os.close(ours)
