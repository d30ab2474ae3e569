"""kill -9 under load: every acknowledged record must be there after the restart, in order.

A round: producers send numbered records, some of them idempotent, all with acks=all; after a random moment the broker
is killed and started again, sometimes killed once more while it starts; the producers, which never stopped, go on.
After the last round all partitions are read and compared with what was acknowledged. A client commits ever larger
offsets meanwhile: what is committed never falls behind what was acknowledged.

As a program: tests/e2e/crash.py --rounds 10000 [--per-directory 100] [--broker kafka] [--seed N]; test_crash.py runs
some rounds. What is promised is what a crash of the process may not take: the page cache survives it, so no fsync is
needed.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

from harness.broker import Broker, KafkaBroker, OttlaBroker  # noqa: E402
from harness.clients import consumer, poll_messages  # noqa: E402
from harness.net import wait_until  # noqa: E402

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
                             # A batch must fit a segment.
                             "batch.size": 32768,
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
                # A check reads all of it at the end.
                time.sleep(0.05)
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


class Load:
    """Writers and a committer that go on whatever happens to the broker."""

    def __init__(self, broker: Broker):
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        # Segments of some seconds: much is rolled.
        config = {"segment.bytes": "1048576", "internal.segment.bytes": "100000"}
        for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, config=config)]).values():
            future.result(30)
        self.writers = [Writer(broker.bootstrap, i, i % 2 == 0, ["none", "lz4", "zstd"][i % 3], list(range(i * 2, i * 2 + 2))) for i in range(3)]
        self.committer = Committer(broker.bootstrap)
        for thread in [*self.writers, self.committer]:
            thread.start()

    def wait_for_progress(self, records: int) -> None:
        """Until every writer has so many more acknowledged."""
        wanted = [writer.count() + records for writer in self.writers]
        deadline = time.monotonic() + 60
        while any(writer.count() < count for writer, count in zip(self.writers, wanted)):
            assert time.monotonic() < deadline, f"writers stand still: {[(w.index, w.idempotent, w.count(), w.partitions) for w in self.writers]}"
            time.sleep(0.005)

    def promised(self) -> list["Promise"]:
        """What was acknowledged up to now."""
        return [Promise(w.index, w.idempotent, {p: list(found) for p, found in w.acknowledged.items()}) for w in self.writers]

    def stop(self) -> None:
        self.committer.stop.set()
        for writer in self.writers:
            writer.stop.set()

    def join(self) -> None:
        for thread in [*self.writers, self.committer]:
            thread.join(180)
            assert not thread.is_alive(), "a client didn't come to its end"
        for writer in self.writers:
            assert not writer.errors, f"writer {writer.index} (idempotent: {writer.idempotent}): {len(writer.errors)} errors, first {writer.errors[:3]}"
            assert writer.count() == writer.sent


@dataclass
class Promise:
    """The numbers and offsets that a writer was told, by partition."""

    index: int
    idempotent: bool
    acknowledged: dict[int, list[tuple[int, int]]]


def run(broker: Broker, rounds: int, seed: int, say=print) -> dict[str, int]:
    """Returns counts; fails with what is missing."""
    dice = random.Random(seed)
    load = Load(broker)
    reader = consumer(broker.bootstrap, GROUP, log_level=0, reconnect_backoff_ms=20, reconnect_backoff_max_ms=50)
    kills = 0
    try:
        for number in range(rounds):
            # Load must be running before the kill: every writer gets on in every round.
            load.wait_for_progress(5)
            time.sleep(dice.random() * 0.2)
            broker.kill()
            kills += 1
            floor = load.committer.floor
            while dice.random() < 0.2:
                # Killed while it recovers.
                broker.spawn()
                time.sleep(dice.random() * 0.15)
                assert broker.running(), f"the broker ended by itself:\n{broker.log_text()[-4000:]}"
                broker.kill()
                kills += 1
            broker.start()
            committed = committed_offset(reader)
            assert committed >= floor, f"round {number}: the committed offset fell from {floor} to {committed}"
            if number % 10 == 9:
                say(f"round {number + 1} of {rounds}: {sum(w.count() for w in load.writers)} acknowledged, committed {committed}")
    finally:
        load.stop()
        reader.close()
    load.join()
    return {"kills": kills, **check(broker, load.promised())}


def committed_offset(reader: Consumer) -> int:
    (found,) = reader.committed([TopicPartition(TOPIC, 0)], timeout=30)
    return max(found.offset, 0)


def check(broker: Broker, promised: list[Promise]) -> dict[str, int]:
    counts = {"acknowledged": 0, "stored": 0, "repeated": 0}
    for promise in promised:
        for partition, acknowledged in promise.acknowledged.items():
            stored = read_partition(broker, partition)
            at = {offset: number for offset, number in stored}
            counts["stored"] += len(stored)
            counts["acknowledged"] += len(acknowledged)
            missing = [(number, offset) for number, offset in acknowledged if offset >= 0 and at.get(offset) != number]
            assert not missing, f"partition {partition}: {len(missing)} acknowledged records aren't at their offsets, first {missing[:3]}"
            # An idempotent producer may learn of an append only through its duplicate, whose offset can be unknown.
            present = {number for _, number in stored}
            lost = [number for number, _ in acknowledged if number not in present]
            assert not lost, f"partition {partition}: {len(lost)} acknowledged records are lost, first {lost[:3]}"
            assert [offset for offset, _ in stored] == list(range(len(stored))), f"partition {partition} has gaps"
            numbers = [number for _, number in stored]
            if promise.idempotent:
                assert numbers == sorted(set(numbers)), f"partition {partition}: an idempotent producer's records are repeated or out of order"
            else:
                first_seen = list(dict.fromkeys(numbers))
                assert first_seen == sorted(first_seen), f"partition {partition}: out of order"
                counts["repeated"] += len(numbers) - len(first_seen)
    return counts


def read_partition(broker: Broker, partition: int) -> list[tuple[int, int]]:
    """(offset, number) of everything in it."""
    reader = consumer(broker.bootstrap, "unused", check_crcs=True, log_level=0)
    try:
        end = wait_until(f"partition {partition} is led", lambda: end_offset(reader, partition))
        reader.assign([TopicPartition(TOPIC, partition, 0)])
        return [(m.offset(), int(m.value().split(b" ")[1])) for m in poll_messages(reader, end, 120)]
    finally:
        reader.close()


def end_offset(reader: Consumer, partition: int) -> int | None:
    """None while nobody leads the partition: Kafka answers some time before."""
    try:
        return reader.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=30)[1]
    except KafkaException as error:
        if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
            raise
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-directory", type=int, default=100, help="rounds before the next begin on an empty directory")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--shards", type=int)
    parser.add_argument("--broker", choices=["ottla", "kafka"], default="ottla")
    parser.add_argument("-o", dest="properties", action="append", default=[], metavar="KEY=VALUE", help="a property of the broker")
    options = parser.parse_args()
    properties = dict(text.split("=", 1) for text in options.properties)
    total: Counter = Counter()
    for first in range(0, options.rounds, options.per_directory):
        seed = options.seed + first
        print(f"from round {first}: seed {seed}", flush=True)
        broker = KafkaBroker(properties) if options.broker == "kafka" else OttlaBroker(properties, shards=options.shards)
        try:
            broker.start()
            total.update(run(broker, min(options.per_directory, options.rounds - first), seed))
        finally:
            broker.close()
        print(dict(total), flush=True)


if __name__ == "__main__":
    main()
