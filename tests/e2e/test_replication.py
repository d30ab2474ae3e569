"""Three nodes with three replicas of every record."""

import tempfile
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from harness.clients import consumer, send_all
from harness.cluster import Cluster

PARTITIONS = 4


@pytest.fixture
def cluster(request):
    if request.config.getoption("--broker") == "kafka":
        pytest.skip("runs Ottla's nodes")
    with tempfile.TemporaryDirectory(prefix="ottla-replication-") as directory:
        running = Cluster(Path(directory), 3, ottla_cores=2, broker_session_timeout_ms=3000, broker_heartbeat_interval_ms=500)
        try:
            yield running
        finally:
            running.down()


def read_all(cluster: Cluster, topic: str) -> dict[tuple[int, int], bytes]:
    """Every record that consumers may read, by partition and offset."""
    reader = consumer(cluster.bootstrap, "reader")
    try:
        partitions = [TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)]
        ends = {p.partition: reader.get_watermark_offsets(p, timeout=30)[1] for p in partitions}
        reader.assign(partitions)
        found = {}
        missing = {partition: end for partition, end in ends.items() if end > 0}
        while missing:
            message = reader.poll(30)
            assert message is not None, f"nothing more comes, of {missing}{cluster.logs()}"
            assert message.error() is None, message.error()
            found[message.partition(), message.offset()] = message.value()
            if message.offset() + 1 >= missing.get(message.partition(), 0):
                missing.pop(message.partition(), None)
        return found
    finally:
        reader.close()


@pytest.mark.timeout(120)
def test_replicas_have_the_same_bytes(cluster):
    for name, configs in [("os", {}), ("fsync", {"flush_messages": 1})]:
        cluster.create_topic(name, PARTITIONS, 3, min_insync_replicas=2, **configs)
        values = [f"{number}-{'x' * (number % 300)}".encode() for number in range(2_000)]
        assert len(send_all(cluster.bootstrap, name, values, acks="all", linger_ms=1)) == 2_000
        assert cluster.await_same_bytes(name, PARTITIONS) > 2_000 * 100
        cluster.await_isr(name, {1, 2, 3})
        assert len(read_all(cluster, name)) == 2_000

