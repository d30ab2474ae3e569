"""A log directory on a small file system of its own that runs full, and one that takes no writes any more."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.net import wait_until
from harness.records import Record, batch
from harness.wire import Connection

MIB = 1 << 20
NONE, KAFKA_STORAGE_ERROR = 0, 56

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")


@contextmanager
def small_file_system(at: Path, size: int):
    """A loop device with ext4, mounted there; a missing tool fails the test."""
    image = at.parent / f"{at.name}.img"
    at.mkdir(parents=True, exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-e", "remount-ro", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True)
    try:
        # Nothing but partitions' directories may be there.
        (at / "lost+found").rmdir()
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def produce(connection: Connection, topic: str, value: bytes, partition: int = 0) -> tuple[int, int]:
    response = connection.call("Produce", 9, {"Acks": -1, "TimeoutMs": 10000, "TopicData": [
        {"Name": topic, "PartitionData": [{"Index": partition, "Records": batch([Record(value=value)])}]}]})
    partition = response["Responses"][0]["PartitionResponses"][0]
    return partition["ErrorCode"], partition["BaseOffset"]


def fetch_error_and_size(connection: Connection, topic: str, offset: int) -> tuple[int, int]:
    response = connection.call("Fetch", 4, {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 2 * MIB, "Topics": [
        {"Topic": topic, "Partitions": [{"Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": 2 * MIB}]}]})
    partition = response["Responses"][0]["Partitions"][0]
    return partition["ErrorCode"], len(partition["Records"] or b"")


@pytest.mark.allow_log("no space|No space|checkpoint not written|refused for want of space")
def test_a_full_disk_refuses_produces_until_there_is_space(own_broker, tools_for, name):
    broker = own_broker()
    with small_file_system(broker.data, 48 * MIB):
        try:
            broker.start()
            tools_for(broker)("kafka-topics", "--create", "--topic", name, "--partitions", 1).ok()
            ballast = broker.data / "ballast"
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, 24 * MIB)
            value, acknowledged = b"x" * (900 << 10), 0
            with Connection("127.0.0.1", broker.port, timeout=60) as connection:
                while True:
                    error, offset = produce(connection, name, value)
                    if error != NONE:
                        break
                    assert offset == acknowledged
                    acknowledged += 1
                    assert acknowledged < 64, "the disk never ran full"
                assert (error, offset) == (KAFKA_STORAGE_ERROR, -1)
                assert acknowledged > 2
                for offset in range(acknowledged):
                    error, size = fetch_error_and_size(connection, name, offset)
                    assert error == NONE and size > len(value)
                assert fetch_error_and_size(connection, name, acknowledged) == (NONE, 0), "nothing of the refused one is there"
                assert produce(connection, name, value)[0] == KAFKA_STORAGE_ERROR
                ballast.unlink()
                assert produce(connection, name, value) == (NONE, acknowledged), "no restart is needed"
            # What the refused appends left behind is nothing that a start would find.
            broker.kill()
            broker.start()
            with Connection("127.0.0.1", broker.port, timeout=60) as connection:
                for offset in range(acknowledged + 1):
                    error, size = fetch_error_and_size(connection, name, offset)
                    assert error == NONE and size > len(value)
                assert produce(connection, name, b"after") == (NONE, acknowledged + 1)
        finally:
            broker.kill()


@pytest.mark.allow_log("all log directories have failed|metadata log|log directory failed|append failed|input/output|Read-only|sync failed|retention failed")
def test_a_disk_that_takes_no_writes_costs_its_directory_only(own_broker, tools_for, name):
    """Remounted read-only, as a kernel does after errors: the other directory goes on."""
    broker = own_broker()
    bad = broker.directory / "bad"
    broker.overrides.update({"log.dirs": f"{broker.data},{bad}", "metadata.log.dir": str(broker.data)})
    with small_file_system(bad, 24 * MIB):
        try:
            broker.start()
            tools_for(broker)("kafka-topics", "--create", "--topic", name, "--partitions", 4).ok()
            inside = sorted(int(path.name.rsplit("-", 1)[1]) for path in bad.glob(f"{name}-*"))
            assert len(inside) == 2, "each directory has as many"
            with Connection("127.0.0.1", broker.port, timeout=60) as connection:
                for partition in range(4):
                    assert produce(connection, name, b"before", partition) == (NONE, 0)
                force_read_only(bad)
                assert produce(connection, name, b"refused", inside[0])[0] == KAFKA_STORAGE_ERROR
                wait_until("all of its partitions are offline",
                           lambda: all(produce(connection, name, b"x", p)[0] == KAFKA_STORAGE_ERROR for p in inside))
                for partition in set(range(4)) - set(inside):
                    assert produce(connection, name, b"goes on", partition) == (NONE, 1)
                dirs = connection.call("DescribeLogDirs", 4, {"Topics": None})["Results"]
                assert {d["LogDir"]: d["ErrorCode"] for d in dirs} == {str(broker.data): NONE, str(bad): KAFKA_STORAGE_ERROR}

                def without_leader() -> set[int]:
                    topic = connection.call("Metadata", 9, {"Topics": [{"Name": name}]})["Topics"][0]
                    return {p["PartitionIndex"] for p in topic["Partitions"] if p["LeaderId"] == -1}

                # The controller hears of it by the next heartbeat.
                wait_until("the controller knows", lambda: without_leader() == set(inside))
        finally:
            broker.kill()


def force_read_only(at: Path) -> None:
    """Ext4's own reaction to an error (errors=remount-ro), made up: files that are open can't be written either."""
    device = subprocess.run(["findmnt", "-n", "-o", "SOURCE", str(at)], check=True, capture_output=True, text=True).stdout.strip()
    Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("test")
