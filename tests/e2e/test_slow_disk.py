"""Reading from a disk that hardly answers costs those nothing who don't read from it."""

import os
import statistics
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.net import wait_until
from test_hostile_clients import P99_FACTOR, P99_SECONDS, fill, frame, open_socket, p99, receive_frame

MIB = 1 << 20
READERS = 8
# All the data is read in ten seconds at this rate, were it read without a pause.
DATA_BYTES, DISK_BYTES_PER_SECOND = 64 * MIB, 6 * MIB
ROUNDS, ROUND_SECONDS = 3, 1.0


@contextmanager
def throttled(pid: int, directory: Path, bytes_per_second: int):
    """The process's reads from the disk of a directory, held back by a control group of its own."""
    device = os.stat(directory).st_dev
    disk = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not disk.exists():
        pytest.skip(f"{directory} is on no block device")
    whole = disk.resolve().parent if (disk / "partition").exists() else disk.resolve()
    number = (whole / "dev").read_text().strip()
    old, new = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")
    if (old / "blkio.throttle.read_bps_device").exists():
        root, file, limit = old, "blkio.throttle.read_bps_device", f"{number} {bytes_per_second}"
    elif "io" in (new / "cgroup.subtree_control").read_text().split():
        root, file, limit = new, "io.max", f"{number} rbps={bytes_per_second}"
    else:
        pytest.skip("no control group can hold back a disk here")
    group = root / f"ottla-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / file).write_text(limit)
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (root / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def evict(directory: Path) -> None:
    """Nothing of a partition's segments stays in the page cache."""
    for segment in directory.glob("*.log"):
        with open(segment, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read_from_disk(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def read_slowly(node, topic: str, offset: int, done: threading.Event, counts: list[int]) -> None:
    """Fetches a record of a megabyte after the other, around and around."""
    with open_socket(node) as plain:
        while not done.is_set():
            plain.sendall(frame("Fetch", 4, {"ReplicaId": -1, "MaxWaitMs": 100, "MinBytes": 1, "MaxBytes": MIB, "Topics": [
                {"Topic": topic, "Partitions": [{"Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": MIB}]}]}))
            plain.settimeout(120)
            counts.append(len(receive_frame(plain)))
            offset = (offset + 1) % (DATA_BYTES // MIB)


@pytest.mark.skipif(os.geteuid() != 0, reason="holding back a disk needs root")
@pytest.mark.parametrize("fetch_path", ["splice", "auto"])
def test_others_do_not_wait_for_the_disk(own_broker, tools_for, name, fetch_path):
    """Nor is a core held for half a second: the node would warn of it, which fails the test."""
    broker = own_broker({"ottla.fetch.path": fetch_path}).start()
    tools_for(broker)("kafka-topics", "--create", "--topic", name, "--partitions", 1).ok()
    fill(broker, name, DATA_BYTES)
    # What was just appended would be answered from memory.
    broker.restart()
    partition = broker.data / f"{name}-0"
    idle, beside = [], []
    p99(broker)
    for _ in range(ROUNDS):
        idle.append(p99(broker))
        evict(partition)
        before, counts, done = bytes_read_from_disk(broker.pid), [], threading.Event()
        with throttled(broker.pid, broker.data, DISK_BYTES_PER_SECOND):
            readers = [threading.Thread(target=read_slowly, args=(broker, name, index * DATA_BYTES // MIB // READERS, done, counts))
                       for index in range(READERS)]
            began = time.monotonic()
            for reader in readers:
                reader.start()
            wait_until("the readers read from the disk", lambda: bytes_read_from_disk(broker.pid) > before)
            samples = []
            while time.monotonic() < began + ROUND_SECONDS:
                samples.append(p99(broker))
            beside.append(statistics.median(samples))
            brought, took = sum(counts), time.monotonic() - began
            done.set()
        for reader in readers:
            reader.join(120)
            assert not reader.is_alive()
        # What is asked of the disk ahead counts at once; what comes of it, at the disk's pace.
        assert brought <= (took + 1) * 2 * DISK_BYTES_PER_SECOND, "the disk was not held back"
        assert min(counts) > MIB * 9 // 10, "every fetch brought its record"
    print(f"p99 of others, ms: idle {[round(1e3 * t, 2) for t in idle]}, beside {[round(1e3 * t, 2) for t in beside]}")
    assert statistics.median(beside) <= P99_FACTOR * statistics.median(idle) + P99_SECONDS
