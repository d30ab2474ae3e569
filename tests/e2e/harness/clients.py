"""confluent-kafka with the settings that bounded tests need."""

import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

DELIVERY_SECONDS_MAX = 30

# What a commit meets while the group's coordinator starts.
COORDINATOR_COMING = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError._WAIT_COORD}

# What a commit meets when the group is just about to change.
REBALANCING = {KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID}


def librdkafka_names(settings: dict) -> dict:
    """Keyword arguments as the library spells its settings."""
    return {key if key == "log_level" else key.replace("_", "."): value for key, value in settings.items()}


class Sender:
    """A producer that checks every delivery report."""

    def __init__(self, bootstrap: str, **settings):
        self.producer = Producer({"bootstrap.servers": bootstrap, "delivery.timeout.ms": 20000,
                                  **librdkafka_names(settings)})
        self.errors: list[KafkaError] = []
        # (partition, offset) of what was acknowledged, in the order of the reports.
        self.acknowledged: list[tuple[int, int]] = []

    def report(self, error, message) -> None:
        if error is not None:
            self.errors.append(error)
        else:
            self.acknowledged.append((message.partition(), message.offset()))

    def send(self, topic: str, value=None, key=None, **kwargs) -> None:
        while True:
            try:
                self.producer.produce(topic, value, key, on_delivery=self.report, **kwargs)
                self.producer.poll(0)
                return
            except BufferError:
                self.producer.poll(0.1)

    def finish(self) -> None:
        left = self.producer.flush(DELIVERY_SECONDS_MAX)
        assert left == 0, f"{left} messages without a delivery report after {DELIVERY_SECONDS_MAX} s"


def send_all(bootstrap: str, topic: str, values, **settings) -> list[tuple[int, int]]:
    """Sends values (bytes, or keyword arguments of produce) and returns where each landed."""
    sender = Sender(bootstrap, **settings)
    for value in values:
        sender.send(topic, **(value if isinstance(value, dict) else {"value": value}))
    sender.finish()
    assert not sender.errors, sender.errors[:3]
    return sender.acknowledged


def consumer(bootstrap: str, group: str, **settings) -> Consumer:
    return Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "session.timeout.ms": 10000, "heartbeat.interval.ms": 500,
                     **librdkafka_names(settings)})


def commit_offsets(bootstrap: str, group: str, offsets: list[TopicPartition]) -> None:
    """Commits from outside of the group; a coordinator that has just been found may not be ready yet."""
    committer = consumer(bootstrap, group)
    deadline = time.monotonic() + DELIVERY_SECONDS_MAX
    try:
        while True:
            try:
                committer.commit(offsets=offsets, asynchronous=False)
                return
            except KafkaException as error:
                if error.args[0].code() not in COORDINATOR_COMING or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    finally:
        committer.close()


def read_assigned(bootstrap: str, topic: str, partitions: int, count: int, timeout: float = 30, **settings) -> list:
    """count messages from the beginning of all partitions, without a group's coordination."""
    reader = consumer(bootstrap, "unused", **settings)
    try:
        reader.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        return poll_messages(reader, count, timeout)
    finally:
        reader.close()


def poll_messages(reader: Consumer, count: int, timeout: float = 30) -> list:
    messages: list = []
    deadline = time.monotonic() + timeout
    while len(messages) < count:
        left = deadline - time.monotonic()
        assert left > 0, f"{len(messages)} of {count} messages within {timeout} s"
        for message in reader.consume(min(count - len(messages), 10000), min(left, 1)):
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
    return messages


class Member(threading.Thread):
    """A subscribed consumer that goes on in a thread of its own, keeping what it was assigned and what it read."""

    def __init__(self, bootstrap: str, group: str, topics: list[str], commit: bool = True, **settings):
        super().__init__(daemon=True)
        self.reader = consumer(bootstrap, group, **settings)
        self.topics = topics
        self.commit = commit
        self.cooperative = settings.get("partition_assignment_strategy") == "cooperative-sticky"
        self.owned: set[tuple[str, int]] = set()
        self.revoked: list[set[tuple[str, int]]] = []
        self.rebalances = 0
        # (rebalances so far, message)
        self.received: list = []
        # Offsets read and not yet committed; a commit that meets a rebalance is tried again after it.
        self.uncommitted: dict[tuple[str, int], int] = {}
        # Lists of offsets to commit besides; the client may only be used by this thread.
        self.extra: list[list[TopicPartition]] = []
        self.error: BaseException | None = None
        self.leaving = threading.Event()

    def on_assign(self, _, partitions) -> None:
        self.rebalances += 1
        fresh = {(p.topic, p.partition) for p in partitions}
        self.owned = self.owned | fresh if self.cooperative else fresh

    def on_revoke(self, _, partitions) -> None:
        gone = {(p.topic, p.partition) for p in partitions}
        self.revoked.append(gone)
        self.owned = self.owned - gone
        for partition in gone:
            self.uncommitted.pop(partition, None)

    def run(self) -> None:
        try:
            self.reader.subscribe(self.topics, on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_revoke)
            while not self.leaving.is_set():
                message = self.reader.poll(0.1)
                if message is not None:
                    if message.error():
                        raise KafkaException(message.error())
                    self.received.append((self.rebalances, message))
                    self.uncommitted[message.topic(), message.partition()] = message.offset() + 1
                if self.extra:
                    self.reader.commit(offsets=self.extra.pop(), asynchronous=False)
                if self.commit and self.uncommitted:
                    self.commit_read()
        except KafkaException as error:
            self.error = error
        finally:
            self.reader.close()

    def commit_read(self) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in self.uncommitted.items()]
        try:
            self.reader.commit(offsets=offsets, asynchronous=False)
            self.uncommitted.clear()
        except KafkaException as error:
            if error.args[0].code() not in REBALANCING:
                raise

    @property
    def messages(self) -> list:
        return [message for _, message in list(self.received)]

    def leave(self) -> None:
        self.leaving.set()
        self.join(20)
        assert not self.is_alive(), "a member didn't leave within 20 s"
