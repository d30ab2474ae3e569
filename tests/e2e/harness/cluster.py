"""A cluster of Ottla nodes on this machine, each broker and controller, run by scripts/cluster."""

import subprocess
import sys
import time
from pathlib import Path

from . import paths
from .wire import Connection, WireError

SCRIPT = paths.ROOT / "scripts" / "cluster"
PATIENCE_SECONDS = 60


class Cluster:
    def __init__(self, directory: Path, count: int, **properties):
        self.directory = directory
        self.nodes = list(range(1, count + 1))
        settings = [word for key, value in properties.items() for word in ("--set", f"{key.replace('_', '.')}={value}")]
        self.script("up", str(count), *settings)
        self.ports = []
        for line in self.script("status").splitlines():
            address = next(word for word in line.replace(",", " ").split() if word.startswith("127.0.0.1:"))
            self.ports.append(int(address.rpartition(":")[2]))

    def script(self, *args: str) -> str:
        done = subprocess.run([sys.executable, SCRIPT, *args, "--dir", self.directory, "--bin", paths.OTTLA_BIN],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{args}: {done.stderr}{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        return "".join(f"\n--- node {n}\n{path.read_text()[-3000:]}" for n in self.nodes
                       if (path := self.directory / f"node-{n}" / "log").exists())

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def down(self) -> None:
        self.script("down")

    def call(self, node: int, api: str, version: int, request: dict, timeout: float = 30) -> dict:
        with Connection("127.0.0.1", self.ports[node - 1], timeout=timeout) as connection:
            return connection.call(api, version, request)

    def create_topic(self, name: str, partitions: int, replicas: int, **configs) -> None:
        configs = [{"Name": key.replace("_", "."), "Value": str(value)} for key, value in configs.items()]
        request = {"Topics": [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": replicas, "Configs": configs}],
                   "timeoutMs": 10_000}

        def created() -> bool:
            # 38: not all brokers have registered yet.
            error = self.call(self.nodes[0], "CreateTopics", 7, request)["Topics"][0]["ErrorCode"]
            assert error in (0, 38), f"{name}: {error}{self.logs()}"
            return error == 0

        self.until(created, f"{name} can be created")

    def partitions(self, topic: str, among: list[int] | None = None) -> dict[int, dict]:
        """The topic's partitions as some node knows them; none where nobody answers."""
        for node in among or self.nodes:
            try:
                answer = self.call(node, "Metadata", 12, {"Topics": [{"Name": topic}]}, timeout=5)
            except (OSError, WireError):
                continue
            found = answer["Topics"][0]
            if found["ErrorCode"] == 0:
                return {partition["PartitionIndex"]: partition for partition in found["Partitions"]}
        return {}

    def until(self, holds, what: str, seconds: float = PATIENCE_SECONDS) -> None:
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, f"not so after {seconds} s: {what}{self.logs()}"
            time.sleep(0.05)

    def await_isr(self, topic: str, members: set[int], among: list[int] | None = None) -> None:
        """Waits until every partition of the topic has exactly these in sync."""
        def holds() -> bool:
            found = self.partitions(topic, among)
            return bool(found) and all(set(partition["IsrNodes"]) == members for partition in found.values())
        self.until(holds, f"isr of {topic} is {members}: {self.partitions(topic, among)}")

    def segments(self, node: int, topic: str, partition: int) -> dict[str, bytes]:
        directory = self.directory / f"node-{node}" / "data" / f"{topic}-{partition}"
        return {path.name: path.read_bytes() for path in sorted(directory.glob("*.log"))}

    def await_same_bytes(self, topic: str, partitions: int) -> int:
        """Waits until all nodes have the same bytes of every partition; how many those are."""
        def differing() -> list[int]:
            return [partition for partition in range(partitions)
                    if len({tuple(self.segments(node, topic, partition).items()) for node in self.nodes}) != 1]
        self.until(lambda: not differing(), f"all replicas of {topic} are the same")
        return sum(len(data) for partition in range(partitions)
                   for data in self.segments(self.nodes[0], topic, partition).values())

