"""Runs Kafka's own command line tools: quickly in one virtual machine (tests/java/ToolRunner.java), or each in its own.

`Tools` completes the connection arguments, so that a test reads like the command a person would type.
"""

import base64
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import paths

TIMED_OUT = 124

# The script names of Kafka's distribution, and the classes they run.
CLASSES = {
    "kafka-acls": "org.apache.kafka.tools.AclCommand",
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-cluster": "org.apache.kafka.tools.ClusterTool",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-dump-log": "org.apache.kafka.tools.DumpLogSegments",
    "kafka-features": "org.apache.kafka.tools.FeatureCommand",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-groups": "org.apache.kafka.tools.GroupsCommand",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
}

# Those that take the connection's options before the sub-command.
GLOBAL_OPTIONS_FIRST = {"kafka-features", "kafka-metadata-quorum"}

# Those that read files only.
OFFLINE = {"kafka-dump-log"}


@dataclass
class Result:
    command: str
    status: int
    out: str
    err: str

    def ok(self) -> "Result":
        """The result itself, after making sure that the tool succeeded."""
        assert self.status == 0, f"{self.command} ended with {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"
        return self

    def failed(self) -> "Result":
        assert self.status not in (0, TIMED_OUT), f"{self.command} ended with {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"
        return self

    @property
    def lines(self) -> list[str]:
        return [line for line in self.out.splitlines() if line.strip()]

    def rows(self, header_start: str) -> list[dict[str, str]]:
        """A table of white-space separated columns below the line that starts so."""
        lines = self.lines
        start = next((i for i, line in enumerate(lines) if line.startswith(header_start)), None)
        assert start is not None, f"no line starts with {header_start!r} in the output of {self.command}:\n{self.out}\n{self.err}"
        names = lines[start].split()
        return [dict(zip(names, line.split())) for line in lines[start + 1:]]


class Tools:
    """Kafka's tools pointed at one broker."""

    def __init__(self, machine: "ToolMachine", bootstrap: str):
        self.machine = machine
        self.bootstrap = bootstrap

    def __call__(self, tool: str, *args: object, stdin: str | bytes = b"", timeout: float = 120) -> Result:
        return self.machine.run(tool, self.complete(tool, args), stdin=stdin, timeout=timeout)

    def process(self, tool: str, *args: object, stdin: str | bytes = b"", timeout: float = 120) -> Result:
        """As a person runs it: in a virtual machine of its own."""
        return run_process(tool, self.complete(tool, args), stdin=stdin, timeout=timeout)

    def spawn(self, tool: str, *args: object, **kwargs) -> subprocess.Popen:
        """A tool that goes on until the test ends it."""
        return subprocess.Popen(process_command(tool, self.complete(tool, args)), text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **kwargs)

    def complete(self, tool: str, args: tuple[object, ...]) -> list[str]:
        arguments = [str(arg) for arg in args]
        if tool not in OFFLINE and not any(arg.startswith("--bootstrap-") for arg in arguments):
            arguments = (["--bootstrap-server", self.bootstrap, *arguments] if tool in GLOBAL_OPTIONS_FIRST
                         else [*arguments, "--bootstrap-server", self.bootstrap])
        return arguments


def process_command(tool: str, args: list[str]) -> list[str]:
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", paths.KAFKA_CLASSPATH,
            f"-Dlog4j2.configurationFile={paths.JAVA_SOURCES / 'log4j2-tools.properties'}", CLASSES[tool], *args]


def run_process(tool: str, args: list[str], *, stdin: str | bytes = b"", timeout: float = 120) -> Result:
    data = stdin.encode() if isinstance(stdin, str) else stdin
    command = f"{tool} {' '.join(args)}"
    try:
        done = subprocess.run(process_command(tool, args), input=data, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        return Result(command, TIMED_OUT, (late.stdout or b"").decode(errors="replace"), (late.stderr or b"").decode(errors="replace"))
    return Result(command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


class ToolMachine:
    """The one virtual machine; started when first needed and after a tool got stuck."""

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.stray_output = tempfile.TemporaryFile()

    def start(self) -> None:
        command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp",
                   f"{paths.JAVA_CLASSES}:{paths.KAFKA_CLASSPATH}",
                   f"-Dlog4j2.configurationFile={paths.JAVA_SOURCES / 'log4j2-tools.properties'}", "ToolRunner"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stray_output)

    def run(self, tool: str, args: list[str], *, stdin: str | bytes = b"", timeout: float = 120) -> Result:
        if self.process is None or self.process.poll() is not None:
            self.start()
        data = stdin.encode() if isinstance(stdin, str) else stdin
        fields = [CLASSES[tool].encode(), data, *(arg.encode() for arg in args)]
        line = " ".join([str(int(timeout * 1000)), *(base64.b64encode(field).decode() or "-" for field in fields)])
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().decode().split()
        command = f"{tool} {' '.join(args)}"
        if len(answer) != 3:
            self.stray_output.seek(0)
            raise AssertionError(f"the tools' virtual machine died at {command}: {self.stray_output.read()[-2000:]!r}")
        if int(answer[0]) == TIMED_OUT:
            # It ends after such an answer.
            self.process.wait(10)
        out, err = ("" if field == "-" else base64.b64decode(field).decode(errors="replace") for field in answer[1:])
        # Some tools report whatever they catch, and so the throwable that stands for their own exit.
        err = err.replace("null\nToolRunner$Exited\n\n", "")
        return Result(command, int(answer[0]), out, err)

    def close(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.stray_output.close()


def write_file(directory: Path, name: str, content: str) -> Path:
    path = directory / name
    path.write_text(content)
    return path
