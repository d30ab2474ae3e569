"""Starts and stops what scripts/compare-kafka sets side by side: Apache Kafka, Ottla and the floor.

All paths are relative to the repository, which is the working directory: command lines and settings end up in
results that are kept. Only processes that were started here are ended, and none outlives the script.
"""

import base64
import ctypes
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

START_SECONDS_MAX = 180
STOP_SECONDS_MAX = 60
PR_SET_PDEATHSIG = 1

# Kafka's own start script's, but for the heap, which that leaves at 1 GiB.
KAFKA_JVM = ["-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
             "-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15", "-Djava.awt.headless=true"]


def heap() -> str:
    """A sixth of the memory up to what production brokers get: the rest is for the page cache."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{max(1, min(6, pages * page // (6 << 30)))}g"


def allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    """Whether an ApiVersions request is answered."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            request = struct.pack(">hhih", 18, 0, 1, -1)
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(1)) == 1
    except OSError:
        return False


def start_properties(port: int, controller_port: int, data: Path) -> dict[str, str]:
    """What both brokers read: the server.properties of Kafka's distribution, for one node."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        "num.network.threads": "3",
        "num.io.threads": "8",
        "socket.send.buffer.bytes": "102400",
        "socket.receive.buffer.bytes": "102400",
        "socket.request.max.bytes": "104857600",
        "num.recovery.threads.per.data.dir": "2",
        "log.segment.bytes": "1073741824",
        "log.retention.hours": "168",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
    }


# For slices in turns: a slice's topic is gone before the next slice, and a frozen broker isn't taken for a dead
# one when it goes on.
IN_TURNS = {
    "log.segment.delete.delay.ms": "100",
    "broker.session.timeout.ms": "3600000",
}


class Server:
    """A process in a directory of its own, which is empty at the start."""

    name = ""

    def __init__(self, directory: Path):
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self.process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def prepare(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.data.mkdir(parents=True)

    def start(self) -> None:
        self.prepare()
        self.log = open(self.directory / "log.txt", "wb")
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
                                        preexec_fn=die_with_parent, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS_MAX
        while not answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "log.txt").read_text(errors="replace")
                raise SystemExit(f"compare-kafka: {self.name} doesn't start:\n{log[-4000:]}")
            time.sleep(0.05)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        if self.is_running():
            # A frozen one wouldn't hear.
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                print(f"compare-kafka: {self.name} doesn't stop and is killed", file=sys.stderr)
                self.process.kill()
                self.process.wait()
        if self.process is not None:
            self.log.close()
        self.process = None
        shutil.rmtree(self.data, ignore_errors=True)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Broker(Server):
    def __init__(self, directory: Path, in_turns: bool = True):
        super().__init__(directory)
        self.controller_port = free_port()
        self.in_turns = in_turns

    @property
    def config(self) -> Path:
        return self.directory / "server.properties"

    def properties(self) -> dict[str, str]:
        return {**start_properties(self.port, self.controller_port, self.data), **(IN_TURNS if self.in_turns else {})}

    def prepare(self) -> None:
        super().prepare()
        self.config.write_text("".join(f"{key}={value}\n" for key, value in self.properties().items()))


class Kafka(Broker):
    name = "kafka"

    def __init__(self, directory: Path, jars: Path, in_turns: bool = True):
        super().__init__(directory, in_turns)
        self.jars = jars

    def java(self, *arguments: str) -> list[str]:
        log = "-Dlog4j2.configurationFile=tests/java/log4j2-broker.properties"
        return ["java", f"-Xms{heap()}", f"-Xmx{heap()}", *KAFKA_JVM, "-cp", f"{self.jars}/*", log, *arguments]

    def prepare(self) -> None:
        super().prepare()
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        done = subprocess.run(self.java("kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(self.config)),
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"compare-kafka: formatting failed:\n{done.stdout}{done.stderr}")

    def command(self) -> list[str]:
        return self.java("kafka.Kafka", str(self.config))


class Ottla(Broker):
    name = "ottla"

    def __init__(self, directory: Path, binary: str, in_turns: bool = True):
        super().__init__(directory, in_turns)
        self.binary = binary

    def command(self) -> list[str]:
        return [self.binary, "start", "--config", str(self.config)]


class Floor(Server):
    name = "floor"

    def __init__(self, directory: Path, binary: str):
        super().__init__(directory)
        self.binary = binary

    def command(self) -> list[str]:
        return [self.binary, "bench", "floor", "--serve", self.address, "--dir", str(self.data)]
