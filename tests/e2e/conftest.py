"""The fixtures of the end-to-end suite.

`broker` is one running node for the whole session (Ottla, or with --broker kafka the reference, against which every
test was first proven); `own_broker` makes nodes for tests that stop, kill or configure them. Tests on the shared node
use names of their own from `name`. A line at WARN or above in the node's log fails the test that provoked it.
"""

import itertools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness.broker import Broker, KafkaBroker, OttlaBroker
from harness.tools import ToolMachine, Tools
from harness.wire import Connection


NUMBERS = itertools.count(1)


def pytest_addoption(parser):
    group = parser.getgroup("ottla")
    group.addoption("--broker", choices=["ottla", "kafka"], default="ottla", help="the broker under test")
    group.addoption("--shards", type=int, default=None, help="ottla.cores of the broker under test")
    group.addoption("--unprivileged", action="store_true", help="run the broker as an ordinary user with 8 MiB of locked memory")
    group.addoption("--long", action="store_true", help="run the campaigns at full length")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        skip = pytest.mark.skip(reason="a campaign; needs --long")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip)
    if config.getoption("--broker") == "kafka":
        for item in items:
            for mark in item.iter_markers("stricter_than_kafka"):
                item.add_marker(pytest.mark.skip(reason=mark.args[0]))


def make_broker(config, properties=None, **kwargs) -> Broker:
    if config.getoption("--broker") == "kafka":
        return KafkaBroker(properties, **kwargs)
    return OttlaBroker(properties, shards=config.getoption("--shards"), unprivileged=config.getoption("--unprivileged"), **kwargs)


@pytest.fixture(scope="session")
def shared_broker(request):
    node = make_broker(request.config)
    try:
        yield node.start()
        if node.running():
            status = node.stop()
            assert status in (0, 143), f"the shared broker ended with {status}:\n{node.log_text()[-4000:]}"
    finally:
        node.close()


@pytest.fixture
def broker(shared_broker, request):
    """The shared node; its log must stay quiet."""
    if not shared_broker.running():
        # A crash has failed the test that caused it; the others deserve a node.
        shared_broker.process = None
        shared_broker.start()
    shared_broker.unjudged_complaints()
    yield shared_broker
    assert shared_broker.running(), f"the broker died:\n{shared_broker.log_text()[-6000:]}"
    judge_log(shared_broker, request)


@pytest.fixture
def own_broker(request):
    """Makes nodes that the test may stop, kill and configure: own_broker({property: value}). Started by the test."""
    made: list[Broker] = []

    def make(properties=None, **kwargs) -> Broker:
        made.append(make_broker(request.config, properties, **kwargs))
        return made[-1]
    yield make
    try:
        for node in made:
            judge_log(node, request)
    finally:
        for node in made:
            node.close()


def judge_log(node: Broker, request) -> None:
    """Apache Kafka's own warnings are its own affair."""
    if node.kind != "ottla":
        return
    allowed = [mark.args[0] for mark in request.node.iter_markers("allow_log")]
    complaints = [line for line in node.unjudged_complaints() if not any(re.search(pattern, line) for pattern in allowed)]
    assert not complaints, "unexpected in the broker's log:\n" + "\n".join(complaints[:20])


@pytest.fixture(scope="session")
def reference_broker():
    """Apache Kafka beside the broker under test, for tests that compare answers."""
    node = KafkaBroker()
    # What Ottla doesn't implement yet it doesn't finalise; some of it shows in answers to other requests.
    node.features = tuple(f"{name}=0" for name in ("group.version", "transaction.version", "share.version", "streams.version", "eligible.leader.replicas.version"))
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture(scope="session")
def tool_machine():
    machine = ToolMachine()
    yield machine
    machine.close()


@pytest.fixture
def tools(tool_machine, broker) -> Tools:
    return Tools(tool_machine, broker.bootstrap)


@pytest.fixture
def tools_for(tool_machine):
    """Tools for a node made by own_broker."""
    return lambda node: Tools(tool_machine, node.bootstrap)


@pytest.fixture
def connect(broker):
    """Opens raw connections to the shared node: connect() or connect(other_node)."""
    opened: list[Connection] = []

    def open_connection(node=broker, timeout: float = 30) -> Connection:
        opened.append(Connection("127.0.0.1", node.port, timeout))
        return opened[-1]
    yield open_connection
    for connection in opened:
        connection.close()


@pytest.fixture
def name(request) -> str:
    """A topic or group name that no other test uses."""
    return re.sub(r"[^a-zA-Z0-9]+", "-", f"{request.node.name.removeprefix('test_')[:60]}-{next(NUMBERS)}")


@pytest.fixture
def scratch():
    directory = Path(tempfile.mkdtemp(prefix="ottla-scratch-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def create(tools):
    """Creates a topic: create(name, partitions, **configs with dots written as underscores)."""
    def create_topic(topic: str, partitions: int = 1, **configs: object) -> str:
        arguments = [part for key, value in configs.items() for part in ("--config", f"{key.replace('_', '.')}={value}")]
        tools("kafka-topics", "--create", "--topic", topic, "--partitions", partitions, *arguments).ok()
        return topic
    return create_topic


@pytest.fixture
def kcat(broker):
    """Runs kcat against the shared node."""
    def run(*args: object, stdin: bytes | str = b"", timeout: float = 30, ok: bool = True) -> subprocess.CompletedProcess:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        command = ["kcat", "-b", broker.bootstrap, *map(str, args)]
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout)
        if ok:
            assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout[-500:]!r} {done.stderr[-1500:]!r}"
        return done
    return run
