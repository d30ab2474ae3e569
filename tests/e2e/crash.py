"""kill -9 under load: every acknowledged record must be there after the restart, in order.

A round: producers send numbered records, some of them idempotent, all with acks=all; after a random moment the broker
is killed and started again; the producers, which never stopped, go on. After the last round all partitions are read
and compared with what was acknowledged. Members of a group commit meanwhile: a committed offset never goes back.

As a program: tests/e2e/crash.py --rounds 100 [--broker kafka] [--seed N]. test_crash.py runs a few rounds.
What is promised is what a crash of the process may not take: the page cache survives it, so no fsync is needed.
"""

import argparse
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from confluent_kafka import KafkaException, Producer, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

from harness.broker import Broker, KafkaBroker, OttlaBroker  # noqa: E402
from harness.clients import consumer, poll_messages  # noqa: E402

PARTITIONS = 6
TOPIC = "crash"
GROUP = "crash-group"


@dataclass(eq=False)
class Writer(threading.Thread):
    """Sends numbered records to its own partitions until told to stop; remembers what was acknowledged."""

    bootstrap: str
    index: int
    idempotent: bool
    codec: str
    partitions: list[int]
    acknowledged: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    errors: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.acknowledged = {p: [] for p in self.partitions}
        self.sent = 0

    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def run(self) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "acks": "all", "enable.idempotence": self.idempotent, "linger.ms": 2,
                             "compression.type": self.codec, "queue.buffering.max.messages": 10000,
                             # Waiting in the client's queue counts, and a round may take long on a busy machine.
                             "delivery.timeout.ms": 600000, "request.timeout.ms": 5000, "retry.backoff.ms": 50,
                             "retry.backoff.max.ms": 200, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 200,
                             # Without idempotence a retry may overtake: one request at a time keeps the order that is checked.
                             "max.in.flight": 5 if self.idempotent else 1, "log_level": 0})

        def report(error, message):
            if error is not None:
                self.errors.append(error)
            else:
                number = int(message.value().split(b" ")[1])
                self.acknowledged[message.partition()].append((number, message.offset()))
        while not self.stop.is_set():
            partition = self.partitions[self.sent % len(self.partitions)]
            try:
                producer.produce(TOPIC, b"%d %d %s" % (self.index, self.sent, b"x" * (self.sent % 400)), partition=partition, on_delivery=report)
                self.sent += 1
            except BufferError:
                producer.poll(0.05)
            producer.poll(0)
            if self.sent % 50 == 0:
                time.sleep(0.002)
        left = producer.flush(120)
        assert left == 0, f"{left} records without a report"


class Committer(threading.Thread):
    """Commits ever larger offsets; what was acknowledged is the floor."""

    def __init__(self, bootstrap: str):
        super().__init__(daemon=True)
        self.reader = consumer(bootstrap, GROUP, log_level=0, socket_timeout_ms=5000)
        self.stop = threading.Event()
        self.floor = 0

    def run(self) -> None:
        offset = 0
        while not self.stop.is_set():
            offset += 1
            try:
                self.reader.commit(offsets=[TopicPartition(TOPIC, 0, offset)], asynchronous=False)
                self.floor = offset
            except KafkaException:
                # Nobody promised anything for this one.
                time.sleep(0.05)
        self.reader.close()


def run(broker: Broker, rounds: int, seed: int, say=print) -> dict[str, int]:
    """Returns counts; fails with what is missing."""
    dice = random.Random(seed)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, config={"segment.bytes": "1048576"})]).values():
        future.result(30)
    writers = [Writer(broker.bootstrap, i, i % 2 == 0, ["none", "lz4", "zstd"][i % 3], list(range(i * 2, i * 2 + 2))) for i in range(3)]
    committer = Committer(broker.bootstrap)
    floors = []
    for thread in [*writers, committer]:
        thread.start()
    try:
        for number in range(rounds):
            # Load must be running before the kill: every writer gets on in every round.
            wanted = [writer.count() + 50 for writer in writers]
            deadline = time.monotonic() + 60
            while any(writer.count() < count for writer, count in zip(writers, wanted)):
                assert time.monotonic() < deadline, f"after restart {number} writers stand still: {[(w.index, w.idempotent, w.count(), w.partitions) for w in writers]}"
                time.sleep(0.02)
            time.sleep(dice.random() * 0.5)
            broker.kill()
            floors.append(committer.floor)
            broker.start()
            committed = committed_offset(broker)
            assert committed >= floors[-1], f"round {number}: the committed offset fell from {floors[-1]} to {committed}"
            say(f"round {number + 1} of {rounds}: {sum(w.count() for w in writers)} acknowledged, committed {committed}")
    finally:
        committer.stop.set()
        for writer in writers:
            writer.stop.set()
    for thread in [*writers, committer]:
        thread.join(180)
        assert not thread.is_alive(), "a client didn't come to its end"
    return check(broker, writers)


def committed_offset(broker: Broker) -> int:
    reader = consumer(broker.bootstrap, GROUP, log_level=0)
    try:
        (found,) = reader.committed([TopicPartition(TOPIC, 0)], timeout=30)
        return max(found.offset, 0)
    finally:
        reader.close()


def check(broker: Broker, writers: list[Writer]) -> dict[str, int]:
    counts = {"sent": 0, "acknowledged": 0, "stored": 0, "repeated": 0}
    for writer in writers:
        assert not writer.errors, f"writer {writer.index} (idempotent: {writer.idempotent}): {len(writer.errors)} errors, first {writer.errors[:3]}"
        counts["sent"] += writer.sent
        for partition in writer.partitions:
            stored = read_partition(broker, partition)
            at = {offset: number for offset, number in stored}
            counts["stored"] += len(stored)
            counts["acknowledged"] += len(writer.acknowledged[partition])
            missing = [(number, offset) for number, offset in writer.acknowledged[partition] if offset >= 0 and at.get(offset) != number]
            assert not missing, f"partition {partition}: {len(missing)} acknowledged records aren't at their offsets, first {missing[:3]}"
            # An idempotent producer may learn of an append only through its duplicate, whose offset can be unknown.
            present = {number for _, number in stored}
            lost = [number for number, _ in writer.acknowledged[partition] if number not in present]
            assert not lost, f"partition {partition}: {len(lost)} acknowledged records are lost, first {lost[:3]}"
            assert [offset for offset, _ in stored] == list(range(len(stored))), f"partition {partition} has gaps"
            numbers = [number for _, number in stored]
            if writer.idempotent:
                assert numbers == sorted(set(numbers)), f"partition {partition}: an idempotent producer's records are repeated or out of order"
            else:
                first_seen = list(dict.fromkeys(numbers))
                assert first_seen == sorted(first_seen), f"partition {partition}: out of order"
                counts["repeated"] += len(numbers) - len(first_seen)
    assert counts["acknowledged"] == counts["sent"]
    return counts


def read_partition(broker: Broker, partition: int) -> list[tuple[int, int]]:
    """(offset, number) of everything in it."""
    reader = consumer(broker.bootstrap, "unused", check_crcs=True, log_level=0)
    try:
        end = reader.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=30)[1]
        reader.assign([TopicPartition(TOPIC, partition, 0)])
        return [(m.offset(), int(m.value().split(b" ")[1])) for m in poll_messages(reader, end, 120)]
    finally:
        reader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--shards", type=int)
    parser.add_argument("--broker", choices=["ottla", "kafka"], default="ottla")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    broker = KafkaBroker() if options.broker == "kafka" else OttlaBroker(shards=options.shards)
    try:
        broker.start()
        print(run(broker, options.rounds, options.seed))
    finally:
        broker.close()


if __name__ == "__main__":
    main()
