"""AlterReplicaLogDirs by Kafka's own admin client, and what kafka-log-dirs shows of it."""

import json
import subprocess

from harness import paths
from harness.clients import send_all
from harness.net import wait_until
from harness.wire import Connection


def alter(broker, topic: str, partition: int, directory) -> tuple[int, str]:
    """Has the replica moved; the status, and where it is or the error's name."""
    command = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", paths.KAFKA_CLASSPATH,
               f"-Dlog4j2.configurationFile={paths.JAVA_SOURCES / 'log4j2-tools.properties'}",
               str(paths.JAVA_SOURCES / "AlterLogDirs.java"), broker.bootstrap, topic, str(partition), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    return done.returncode, done.stdout.strip().splitlines()[-1]


def shown(tools) -> dict[str, dict[str, bool]]:
    """Partitions of each directory, and whether they are on their way there."""
    described = json.loads(tools("kafka-log-dirs", "--describe").ok().lines[-1])
    return {d["logDir"]: {p["partition"]: p["isFuture"] for p in d["partitions"]} for d in described["brokers"][0]["logDirs"]}


def test_a_replica_moves_between_directories_while_it_is_written(own_broker, tools_for, name):
    broker = own_broker()
    second = broker.directory / "second"
    broker.overrides.update({"log.dirs": f"{broker.data},{second}", "metadata.log.dir": str(broker.data)})
    broker.start()
    tools = tools_for(broker)
    tools("kafka-topics", "--create", "--topic", name, "--partitions", 1).ok()
    value = b"v" * 10_000
    send_all(broker.bootstrap, name, [{"value": value, "partition": 0} for _ in range(500)])
    here = next(path for path in (broker.data, second) if (path / f"{name}-0").is_dir())
    there = second if here == broker.data else broker.data

    assert alter(broker, name, 0, "/nowhere") == (1, "LogDirNotFoundException")
    assert alter(broker, name, 0, there) == (0, str(there))
    send_all(broker.bootstrap, name, [{"value": value, "partition": 0} for _ in range(500)])
    assert (there / f"{name}-0").is_dir() and not (here / f"{name}-0").exists()
    assert shown(tools)[str(there)][f"{name}-0"] is False
    assert f"{name}-0" not in shown(tools)[str(here)]
    assert tools("kafka-get-offsets", "--topic", name).ok().lines == [f"{name}:0:1000"]
    # The controller knows, so that the next start looks there.
    broker.stop()
    broker.start()
    assert tools("kafka-get-offsets", "--topic", name).ok().lines == [f"{name}:0:1000"]
    consumed = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 1000, timeout=60).ok()
    assert len(consumed.lines) == 1000


def test_a_throttled_move_is_shown_and_called_off(own_broker, tools_for, name):
    broker = own_broker()
    second = broker.directory / "second"
    broker.overrides.update({"log.dirs": f"{broker.data},{second}", "metadata.log.dir": str(broker.data)})
    broker.start()
    tools = tools_for(broker)
    tools("kafka-topics", "--create", "--topic", name, "--partitions", 1).ok()
    send_all(broker.bootstrap, name, [{"value": b"v" * 10_000, "partition": 0} for _ in range(500)])
    here = next(path for path in (broker.data, second) if (path / f"{name}-0").is_dir())
    there = second if here == broker.data else broker.data
    tools("kafka-configs", "--alter", "--entity-type", "brokers", "--entity-name", 1, "--add-config",
          "replica.alter.log.dirs.io.max.bytes.per.second=1000").ok()
    with Connection("127.0.0.1", broker.port, timeout=60) as connection:
        def move(path) -> int:
            request = {"Dirs": [{"Path": str(path), "Topics": [{"Name": name, "Partitions": [0]}]}]}
            return connection.call("AlterReplicaLogDirs", 2, request)["Results"][0]["Partitions"][0]["ErrorCode"]
        assert move(there) == 0
        wait_until("the copy is shown", lambda: shown(tools)[str(there)].get(f"{name}-0") is True)
        assert shown(tools)[str(here)][f"{name}-0"] is False
        assert move(here) == 0
        wait_until("the copy is gone", lambda: not list(there.glob(f"{name}-0*")))
    assert shown(tools)[str(here)][f"{name}-0"] is False
    assert tools("kafka-get-offsets", "--topic", name).ok().lines == [f"{name}:0:500"]
