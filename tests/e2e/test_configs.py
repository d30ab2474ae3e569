"""kafka-configs: add, delete and describe for topics, brokers and groups."""

import re


def described(result):
    """name -> the rest of its line, of a describe."""
    return {line.strip().split("=", 1)[0]: line.strip().split("=", 1)[1] for line in result.ok().lines if line.startswith("  ")}


def test_topic_configs_in_own_processes(tools, create, name):
    create(name)
    entity = ["--entity-type", "topics", "--entity-name", name]
    added = tools.process("kafka-configs", "--alter", *entity, "--add-config", "retention.ms=60000,cleanup.policy=[compact,delete],max.message.bytes=2000").ok()
    assert added.lines == [f"Completed updating config for topic {name}."]
    configs = described(tools.process("kafka-configs", "--describe", *entity))
    assert configs["retention.ms"] == "60000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=60000}"
    assert configs["cleanup.policy"] == "compact,delete sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete, DEFAULT_CONFIG:log.cleanup.policy=delete}"
    assert configs["max.message.bytes"].startswith("2000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000, DEFAULT_CONFIG:message.max.bytes=1048588}")

    tools.process("kafka-configs", "--alter", *entity, "--delete-config", "retention.ms,cleanup.policy").ok()
    configs = described(tools("kafka-configs", "--describe", *entity))
    assert "max.message.bytes" in configs and "retention.ms" not in configs and "cleanup.policy" not in configs


def test_topic_describe_all(tools, create, name):
    create(name)
    configs = described(tools("kafka-configs", "--describe", "--all", "--entity-type", "topics", "--entity-name", name))
    assert set(configs) == {
        "cleanup.policy", "compression.gzip.level", "compression.lz4.level", "compression.type", "compression.zstd.level",
        "delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms", "follower.replication.throttled.replicas",
        "index.interval.bytes", "leader.replication.throttled.replicas", "local.retention.bytes", "local.retention.ms",
        "max.compaction.lag.ms", "max.message.bytes", "message.timestamp.after.max.ms", "message.timestamp.before.max.ms",
        "message.timestamp.type", "min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas", "preallocate",
        "remote.log.copy.disable", "remote.log.delete.on.disable", "remote.storage.enable", "retention.bytes", "retention.ms",
        "segment.bytes", "segment.index.bytes", "segment.jitter.ms", "segment.ms", "unclean.leader.election.enable",
    } | {key for key in configs if key.startswith("internal.") or key.startswith("errors.")}
    assert configs["retention.ms"].startswith("604800000 ")
    assert configs["segment.bytes"] == "1073741824 sensitive=false synonyms={DEFAULT_CONFIG:log.segment.bytes=1073741824}"
    assert configs["compression.type"] == "producer sensitive=false synonyms={DEFAULT_CONFIG:compression.type=producer}"
    assert configs["message.timestamp.after.max.ms"].startswith("3600000 ")


def test_topic_config_errors(tools, create, name):
    create(name)
    entity = ["--entity-type", "topics", "--entity-name", name]
    for setting, message in (("retention.ms=x", "Invalid value x for configuration retention.ms"), ("no.such.key=1", "Unknown topic config name: no.such.key"),
                             ("cleanup.policy=shred", "Invalid value shred for configuration cleanup.policy"),
                             ("compression.type=rar", "Invalid value rar for configuration compression.type")):
        result = tools("kafka-configs", "--alter", *entity, "--add-config", setting).failed()
        assert message in result.out + result.err, f"{setting}: {result.out}{result.err}"
    # Deleting what isn't set is no error.
    tools("kafka-configs", "--alter", *entity, "--delete-config", "retention.ms").ok()
    unknown = tools("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", f"{name}-none", "--add-config", "retention.ms=1").failed()
    assert "does not exist" in unknown.out + unknown.err


def test_max_message_bytes_takes_effect_at_once(tools, create, name):
    create(name)
    big = "x" * 5000 + "\n"
    tools("kafka-console-producer", "--topic", name, stdin=big).ok()
    tools("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", name, "--add-config", "max.message.bytes=1000").ok()
    refused = tools("kafka-console-producer", "--topic", name, stdin=big)
    assert "RecordTooLargeException" in refused.err
    assert tools("kafka-get-offsets", "--topic", name).ok().lines == [f"{name}:0:1"]
    tools("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", name, "--delete-config", "max.message.bytes").ok()
    tools("kafka-console-producer", "--topic", name, stdin=big).ok()
    assert tools("kafka-get-offsets", "--topic", name).ok().lines == [f"{name}:0:2"]


def test_broker_configs_in_own_processes(tools, create, name):
    entity = ["--entity-type", "brokers", "--entity-name", "1"]
    tools.process("kafka-configs", "--alter", *entity, "--add-config", "log.retention.ms=123456789").ok()
    try:
        configs = described(tools.process("kafka-configs", "--describe", *entity))
        assert configs["log.retention.ms"].startswith("123456789 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:log.retention.ms=123456789")
        create(name)
        topic = described(tools("kafka-configs", "--describe", "--all", "--entity-type", "topics", "--entity-name", name))
        assert topic["retention.ms"].startswith("123456789 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:log.retention.ms=123456789")
    finally:
        tools("kafka-configs", "--alter", *entity, "--delete-config", "log.retention.ms").ok()
    assert described(tools("kafka-configs", "--describe", *entity)) == {}


def test_broker_default_configs(tools):
    entity = ["--entity-type", "brokers", "--entity-default"]
    tools("kafka-configs", "--alter", *entity, "--add-config", "message.max.bytes=2000000").ok()
    try:
        assert described(tools("kafka-configs", "--describe", *entity))["message.max.bytes"].startswith(
            "2000000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=2000000")
        own = described(tools("kafka-configs", "--describe", "--all", "--entity-type", "brokers", "--entity-name", "1"))
        assert own["message.max.bytes"].startswith("2000000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=2000000, DEFAULT_CONFIG:message.max.bytes=1048588}")
    finally:
        tools("kafka-configs", "--alter", *entity, "--delete-config", "message.max.bytes").ok()


def test_broker_describe_all_and_read_only_errors(tools, broker):
    entity = ["--entity-type", "brokers", "--entity-name", "1"]
    configs = described(tools("kafka-configs", "--describe", "--all", *entity))
    assert configs["node.id"].startswith("1 sensitive=false synonyms={STATIC_BROKER_CONFIG:node.id=1")
    assert configs["num.partitions"].startswith("1 sensitive=false")
    assert configs["log.dirs"].startswith(f"{broker.data} sensitive=false synonyms={{STATIC_BROKER_CONFIG:log.dirs={broker.data}")
    read_only = tools("kafka-configs", "--alter", *entity, "--add-config", "node.id=7").failed()
    assert "node.id" in read_only.out + read_only.err
    bad = tools("kafka-configs", "--alter", *entity, "--add-config", "log.retention.ms=soon").failed()
    assert re.search("Invalid value soon for configuration log.retention.ms", bad.out + bad.err)


def test_group_configs(tools, name):
    entity = ["--entity-type", "groups", "--entity-name", name]
    tools("kafka-configs", "--alter", *entity, "--add-config", "consumer.session.timeout.ms=50000").ok()
    configs = described(tools("kafka-configs", "--describe", *entity))
    assert configs["consumer.session.timeout.ms"].startswith("50000 sensitive=false synonyms={DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000")
    everything = described(tools("kafka-configs", "--describe", "--all", *entity))
    assert "consumer.heartbeat.interval.ms" in everything
    bad = tools("kafka-configs", "--alter", *entity, "--add-config", "consumer.session.timeout.ms=1").failed()
    assert "consumer.session.timeout.ms" in bad.out + bad.err
    tools("kafka-configs", "--alter", *entity, "--delete-config", "consumer.session.timeout.ms").ok()
    assert "consumer.session.timeout.ms" not in described(tools("kafka-configs", "--describe", *entity))
