"""Apache Kafka takes over the directory of a node at any moment: killed under load, or stopped.

The node is killed (or stopped) and its directory copied; Kafka opens the copy by its own recovery and serves it, while
the node starts again and goes on. Everything that was acknowledged up to the copy must be there.
"""

import random
import shutil
import time

import pytest

import crash
from harness.broker import Broker, KafkaBroker
from harness.clients import consumer
from harness.net import wait_until

pytestmark = [
    pytest.mark.reference,
    pytest.mark.allow_log("unclean|recover|truncat|cut off|clean shutdown|rebuilding indexes|was set aside topic=__consumer_offsets"),
]


def open_with_kafka(node: Broker, scratch, name: str) -> Broker:
    """Kafka on a copy of the directory, not started yet."""
    shutil.copytree(node.data, scratch / name / "data")
    return KafkaBroker(node.overrides, directory=scratch / name)


def check_with_kafka(kafka: Broker, promised: list[crash.Promise], floor: int) -> None:
    try:
        kafka.start()
        print(crash.check(kafka, promised))
        reader = consumer(kafka.bootstrap, crash.GROUP, log_level=0)
        try:
            wait_until("Kafka has loaded the offsets", lambda: crash.committed_offset(reader) >= floor)
        finally:
            reader.close()
        log = kafka.log_text()
        strays = [line for line in log.splitlines() if "stray" in line.lower() and "-stray" in line]
        assert not strays, strays[:3]
    finally:
        kafka.close()


def hand_over(node: Broker, scratch, ends: list[str], seed: int) -> None:
    dice = random.Random(seed)
    load = crash.Load(node.start())
    try:
        for number, end in enumerate(ends):
            load.wait_for_progress(200)
            time.sleep(dice.random())
            getattr(node, end)()
            promised, floor = load.promised(), load.committer.floor
            kafka = open_with_kafka(node, scratch, f"{number}-{end}")
            node.start()
            check_with_kafka(kafka, promised, floor)
    finally:
        load.stop()
    load.join()
    print(crash.check(node, load.promised()))


@pytest.mark.timeout(400)
def test_kafka_finds_what_was_acknowledged_in_the_directory_of_a_killed_node(own_broker, scratch):
    hand_over(own_broker(), scratch, ["kill", "stop", "kill", "kill"], seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
def test_kafka_finds_it_many_times(own_broker, scratch, seed):
    hand_over(own_broker(), scratch, ["kill", "kill", "stop"] * 10, seed)
