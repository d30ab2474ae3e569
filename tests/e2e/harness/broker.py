"""Starts and stops the brokers under test: Ottla, and Apache Kafka as the reference, behind one interface.

Both read the same server.properties. A broker owns its directory, which is removed with it; its standard
output and error go to the file `log`. Readiness is seen from outside: an ApiVersions and a Metadata answer.
"""

import base64
import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from . import paths
from .net import free_ports
from .wire import Connection, WireError

START_SECONDS_MAX = 180
STOP_SECONDS_MAX = 60

# The ordinary user of the tests: exists everywhere, owns nothing.
NOBODY = 65534
MEMLOCK_BYTES = 8 << 20
PR_SET_PDEATHSIG = 1


class Broker:
    """One node that is broker and controller. `start` may be called again after `stop` or `kill`."""

    kind = ""
    # Whether a new directory must be formatted before the start.
    format_first = True

    def __init__(self, properties: dict[str, str] | None = None, *, unprivileged: bool = False, directory: Path | None = None):
        self.unprivileged = unprivileged
        self.directory = directory or Path(tempfile.mkdtemp(prefix="ottla-e2e-"))
        self.data = self.directory / "data"
        self.config = self.directory / "server.properties"
        self.log = self.directory / "broker.log"
        self.port, self.controller_port = free_ports(2)
        self.wanted_cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        self.overrides = dict(properties or {})
        self.process: subprocess.Popen | None = None
        self.starts = 0
        # Byte positions in the log: what stands before was judged already.
        self.log_judged = 0

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def cluster_id(self) -> str:
        return dict(line.split("=", 1) for line in (self.data / "meta.properties").read_text().splitlines() if "=" in line)["cluster.id"]

    @property
    def pid(self) -> int:
        return self.process.pid

    def properties(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.data),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # A group of one needn't wait for more members; the test of the default is one of its own.
            "group.initial.rebalance.delay.ms": "100",
            **self.overrides,
        }

    def write_config(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self.config.write_text("".join(f"{key}={value}\n" for key, value in self.properties().items()))
        if self.unprivileged:
            for path in [self.directory, *self.directory.rglob("*")]:
                os.chown(path, NOBODY, NOBODY)

    def format_command(self) -> list[str]:
        raise NotImplementedError

    def start_command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> "Broker":
        assert self.process is None, "the broker runs already"
        self.write_config()
        if self.format_first and not (self.data / "meta.properties").exists():
            self.format()
        self.spawn()
        self.wait_ready()
        return self

    def format(self) -> None:
        done = subprocess.run(self.format_command(), cwd=self.directory, capture_output=True, text=True, timeout=120,
                              preexec_fn=self.prepare_child, **self.identity())
        assert done.returncode == 0, f"formatting failed with {done.returncode}:\n{done.stdout}{done.stderr}"

    def spawn(self) -> None:
        self.starts += 1
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.start_command(), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, preexec_fn=self.prepare_child, **self.identity())

    def identity(self) -> dict:
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if self.unprivileged else {}

    def prepare_child(self) -> None:
        # A test run that is itself killed leaves no broker behind.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.unprivileged:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (MEMLOCK_BYTES, MEMLOCK_BYTES))

    def wait_ready(self, timeout: float = START_SECONDS_MAX) -> None:
        """Until the broker answers ApiVersions and names itself in Metadata."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                code, self.process = self.process.returncode, None
                raise AssertionError(f"{self.kind} ended with {code} at its start:\n{self.log_text()[-4000:]}")
            try:
                with Connection("127.0.0.1", self.port, timeout=5) as connection:
                    connection.call("ApiVersions", 0, {})
                    metadata = connection.call("Metadata", 1, {"Topics": []})
                    if any(broker["Port"] == self.port for broker in metadata["Brokers"]):
                        return
            except (OSError, WireError):
                pass
            time.sleep(0.01)
        raise AssertionError(f"{self.kind} wasn't ready within {timeout} s:\n{self.log_text()[-4000:]}")

    def stop(self) -> int:
        """A clean stop as a service manager does it; returns the exit status."""
        return self.end(signal.SIGTERM, STOP_SECONDS_MAX)

    def kill(self) -> None:
        self.end(signal.SIGKILL, STOP_SECONDS_MAX)

    def end(self, sign: int, timeout: float) -> int:
        process, self.process = self.process, None
        process.send_signal(sign)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.kind} didn't stop within {timeout} s of signal {sign}:\n{self.log_text()[-4000:]}")

    def restart(self) -> None:
        self.stop()
        self.start()

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def close(self) -> None:
        """Ends the broker however it stands and removes its files, unless OTTLA_KEEP asks to look at them."""
        if self.running():
            self.kill()
        if os.environ.get("OTTLA_KEEP"):
            print(f"kept: {self.directory}")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def unjudged_complaints(self) -> list[str]:
        """Log lines at WARN or above, and traces of a crash, since the last call."""
        if not self.log.exists():
            return []
        with open(self.log, "rb") as log:
            log.seek(self.log_judged)
            fresh = log.read()
        self.log_judged += len(fresh)
        pattern = re.compile(r"\b(WARN|ERROR|FATAL)\b|panicked at|assertion.*failed|AddressSanitizer")
        return [line for line in re.sub(r"\x1b\[[0-9;]*m", "", fresh.decode(errors="replace")).splitlines() if pattern.search(line)]


class OttlaBroker(Broker):
    kind = "ottla"
    # It formats an empty directory itself; `ottla format` has a test of its own.
    format_first = False

    def __init__(self, properties: dict[str, str] | None = None, *, shards: int | None = None, **kwargs):
        shard_properties = {} if shards is None else {"ottla.cores": str(shards)}
        super().__init__({**shard_properties, **(properties or {})}, **kwargs)
        self.binary = paths.OTTLA_BIN
        if self.unprivileged:
            # The clone may lie where the ordinary user can't go.
            self.directory.chmod(0o755)
            self.binary = self.directory / "ottla"
            if not self.binary.exists():
                shutil.copy(paths.OTTLA_BIN, self.binary)
                self.binary.chmod(0o755)

    def format_command(self) -> list[str]:
        return [str(self.binary), "format", "--cluster-id", self.wanted_cluster_id, "--config", str(self.config)]

    def start_command(self) -> list[str]:
        return [str(self.binary), "start", "--config", str(self.config)]


class KafkaBroker(Broker):
    kind = "kafka"
    # Features to format with, as name=level; Kafka's own defaults where none are given.
    features: tuple[str, ...] = ()

    def java(self, *arguments: str, heap: str = "512m", log_config: str = "log4j2-broker.properties") -> list[str]:
        return ["java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", paths.KAFKA_CLASSPATH,
                f"-Dlog4j2.configurationFile={paths.JAVA_SOURCES / log_config}", *arguments]

    def properties(self) -> dict[str, str]:
        return {key: value for key, value in super().properties().items() if not key.startswith("ottla.")}

    def format_command(self) -> list[str]:
        return self.java("kafka.tools.StorageTool", "format", "--cluster-id", self.wanted_cluster_id, "--config", str(self.config),
                         *(part for feature in self.features for part in ("--feature", feature)))

    def start_command(self) -> list[str]:
        return self.java("kafka.Kafka", str(self.config))
