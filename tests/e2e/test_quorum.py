"""Three nodes, each broker and controller: elections, what is committed, and Kafka's tool for the quorum.

The nodes are run by scripts/cluster. `--long` makes 200 rounds of it.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from harness import paths
from harness.wire import Connection, WireError

SCRIPT = paths.ROOT / "scripts" / "cluster"
NODES = [1, 2, 3]
# Of Kafka's defaults: a silent leader is noticed after the fetch timeout, an election takes at most two timeouts more.
ELECTION_SECONDS_MAX = 4.0


class Cluster:
    def __init__(self, directory: Path):
        self.directory = directory
        self.script("up", "3", "--set", "ottla.cores=1")
        self.ports, self.controller_ports = [], []
        for line in self.script("status").splitlines():
            words = line.replace(",", " ").split()
            addresses = [word for word in words if word.startswith("127.0.0.1:")]
            self.ports.append(int(addresses[0].rpartition(":")[2]))
            self.controller_ports.append(int(addresses[1].rpartition(":")[2]))

    def script(self, *args: str) -> str:
        done = subprocess.run([sys.executable, SCRIPT, *args, "--dir", self.directory, "--bin", paths.OTTLA_BIN],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{args}: {done.stderr}{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        return "".join(f"\n--- node {n}\n{path.read_text()[-3000:]}" for n in NODES
                       if (path := self.directory / f"node-{n}" / "log").exists())

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def controllers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.controller_ports)

    def pid(self, node: int) -> int:
        return int((self.directory / f"node-{node}" / "pid").read_text())

    def describe(self, node: int) -> dict | None:
        """The quorum as this node's controller tells, if it leads."""
        request = {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]}
        try:
            with Connection("127.0.0.1", self.controller_ports[node - 1], timeout=1) as connection:
                answer = connection.call("DescribeQuorum", 2, request)
        except (OSError, WireError):
            return None
        if answer["ErrorCode"] != 0:
            return None
        return answer["Topics"][0]["Partitions"][0]

    def leader(self, among=NODES, timeout: float = 20.0) -> tuple[int, int]:
        """Who leads, and in which epoch."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for node in among:
                told = self.describe(node)
                if told is not None and told["LeaderId"] == node and told["HighWatermark"] > 0:
                    return node, told["LeaderEpoch"]
            time.sleep(0.01)
        raise AssertionError(f"nobody leads after {timeout} s{self.logs()}")

    def create(self, node: int, name: str) -> int:
        """Asks a broker for a topic; the error, or -1 if there was no answer."""
        request = {"Topics": [{"Name": name, "NumPartitions": 1, "ReplicationFactor": 1}], "timeoutMs": 10_000}
        try:
            with Connection("127.0.0.1", self.ports[node - 1], timeout=10) as connection:
                return connection.call("CreateTopics", 7, request)["Topics"][0]["ErrorCode"]
        except (OSError, WireError):
            return -1

    def topics(self, node: int) -> set[str]:
        with Connection("127.0.0.1", self.ports[node - 1], timeout=10) as connection:
            answer = connection.call("Metadata", 12, {"Topics": None})
        return {topic["Name"] for topic in answer["Topics"]}

    def create_surely(self, node: int, name: str) -> None:
        until = time.monotonic() + 20
        while (error := self.create(node, name)) != 0:
            # 36: it was there after all, an answer was lost.
            if error == 36:
                return
            assert time.monotonic() < until, f"{name} can't be created: {error}{self.logs()}"
            time.sleep(0.05)

    def await_topics(self, node: int, wanted: set[str]) -> None:
        until = time.monotonic() + 20
        while missing := wanted - self.topics(node):
            assert time.monotonic() < until, f"node {node} lacks {sorted(missing)[:5]}{self.logs()}"
            time.sleep(0.05)


@pytest.fixture
def cluster(request):
    if request.config.getoption("--broker") == "kafka":
        pytest.skip("runs Ottla's nodes")
    with tempfile.TemporaryDirectory(prefix="ottla-quorum-") as directory:
        running = None
        try:
            running = Cluster(Path(directory))
            yield running
        finally:
            if running is not None:
                for node in NODES:
                    try:
                        os.kill(running.pid(node), signal.SIGCONT)
                    except ProcessLookupError:
                        pass
                running.script("down")


def await_end(pid: int) -> None:
    """A killed process may stay as a zombie that nobody asks for."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} doesn't end")


def rounds(cluster: Cluster, count: int, seed: int) -> dict:
    """Kills or stops the leader again and again; what was acknowledged stays, and is everywhere."""
    rng = random.Random(seed)
    acknowledged: set[str] = set()
    seconds = {"kill": [], "stop": []}
    last_epoch = 0
    for number in range(count):
        leader, epoch = cluster.leader()
        assert epoch >= last_epoch, "an epoch came back"
        others = [node for node in NODES if node != leader]
        for part in range(3):
            name = f"r{number}-{part}"
            cluster.create_surely(rng.choice(NODES), name)
            acknowledged.add(name)
        way = rng.choice(["kill", "stop"])
        pid = cluster.pid(leader)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL if way == "kill" else signal.SIGSTOP)
        _, last_epoch = cluster.leader(others)
        seconds[way].append(time.monotonic() - began)
        assert last_epoch > epoch
        name = f"r{number}-after"
        cluster.create_surely(rng.choice(others), name)
        acknowledged.add(name)
        if way == "stop":
            os.kill(pid, signal.SIGCONT)
        else:
            await_end(pid)
            cluster.script("up")
        for node in NODES:
            cluster.await_topics(node, acknowledged)
    times = sorted(seconds["kill"] + seconds["stop"])
    return {
        "rounds": count,
        "kills": len(seconds["kill"]),
        "stops": len(seconds["stop"]),
        "topics": len(acknowledged),
        "p50": round(times[len(times) // 2], 2),
        "max": round(times[-1], 2),
    }


@pytest.mark.timeout(300)
def test_a_new_leader_after_kill_9_and_sigstop_and_nothing_is_lost(cluster):
    counts = rounds(cluster, 10, seed=1)
    print(counts)
    assert counts["kills"] > 0 and counts["stops"] > 0


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_hundred_leaders_are_lost_and_nothing_else(cluster):
    counts = rounds(cluster, 200, seed=2)
    print(counts)
    assert counts["max"] <= ELECTION_SECONDS_MAX


@pytest.mark.timeout(180)
def test_kafkas_tool_describes_the_quorum_and_changes_its_voters(cluster, tool_machine):
    def quorum(*args: str, server=("--bootstrap-server", cluster.bootstrap)):
        return tool_machine.run("kafka-metadata-quorum", [*server, *args], timeout=30)

    controllers = ("--bootstrap-controller", cluster.controllers)
    leader, _ = cluster.leader()
    for server in [("--bootstrap-server", cluster.bootstrap), controllers]:
        status = quorum("describe", "--status", server=server).ok()
        told = dict(line.split(":", 1) for line in status.lines)
        assert int(told["LeaderId"]) == leader
        assert told["CurrentVoters"].count("directoryId") == 3
        rows = quorum("describe", "--replication", server=server).ok().rows("NodeId")
        assert sorted(int(row["NodeId"]) for row in rows) == NODES
        assert [row["NodeId"] for row in rows if row["Status"] == "Leader"] == [str(leader)]

    # One goes and comes back, each time asked of another.
    gone = next(node for node in NODES if node != leader)
    properties = (cluster.directory / f"node-{gone}" / "data" / "meta.properties").read_text()
    directory = dict(line.split("=", 1) for line in properties.splitlines() if "=" in line)["directory.id"]
    removed = quorum("remove-controller", "--controller-id", str(gone), "--controller-directory-id", directory)
    removed.ok()
    status = quorum("describe", "--status").ok()
    assert status.out.count("directoryId") == 3, "the one that was removed observes"
    assert dict(line.split(":", 1) for line in status.lines)["CurrentVoters"].count("directoryId") == 2
    config = cluster.directory / f"node-{gone}" / "server.properties"
    added = tool_machine.run("kafka-metadata-quorum", ["--command-config", str(config), *controllers, "add-controller"])
    added.ok()
    status = quorum("describe", "--status").ok()
    assert dict(line.split(":", 1) for line in status.lines)["CurrentVoters"].count("directoryId") == 3
