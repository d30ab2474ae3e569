"""kafka-topics: every action, and the errors that a person sees."""

import re


def describe(tools, topic):
    """Head line as a dictionary, then one dictionary per partition."""
    lines = tools("kafka-topics", "--describe", "--topic", topic).ok().lines
    return [dict((part.split(": ", 1) if ": " in part else (part.rstrip(": "), "")) for part in line.strip().split("\t")) for line in lines]


def test_create_list_describe_alter_delete_in_own_processes(tools, name):
    created = tools.process("kafka-topics", "--create", "--topic", name, "--partitions", 3, "--replication-factor", 1,
                            "--config", "retention.ms=86400000", "--config", "cleanup.policy=compact").ok()
    assert created.lines == [f"Created topic {name}."]
    assert name in tools.process("kafka-topics", "--list").ok().lines

    head, *partitions = describe(tools, name)
    assert head["Topic"] == name
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", head["TopicId"])
    assert (head["PartitionCount"], head["ReplicationFactor"]) == ("3", "1")
    assert {"retention.ms=86400000", "cleanup.policy=compact"} <= set(head["Configs"].split(","))
    assert [(p["Partition"], p["Leader"], p["Replicas"], p["Isr"]) for p in partitions] == [(str(i), "1", "1", "1") for i in range(3)]

    tools.process("kafka-topics", "--alter", "--topic", name, "--partitions", 5).ok()
    head, *partitions = describe(tools, name)
    assert head["PartitionCount"] == "5" and len(partitions) == 5

    tools.process("kafka-topics", "--delete", "--topic", name).ok()
    assert name not in tools("kafka-topics", "--list").ok().lines


def test_create_with_default_counts_and_with_assignment(tools, name):
    tools("kafka-topics", "--create", "--topic", name).ok()
    assert describe(tools, name)[0]["PartitionCount"] == "1"
    tools("kafka-topics", "--create", "--topic", f"{name}-2", "--replica-assignment", "1,1,1").ok()
    assert describe(tools, f"{name}-2")[0]["PartitionCount"] == "3"


def test_create_errors(tools, create, name):
    create(name)
    cases = [
        (["--topic", name], f"Topic '{name}' already exists."),
        (["--topic", f"{name}-x", "--replication-factor", "3"], "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered"),
        (["--topic", f"{name}-x", "--config", "retention.ms=abc"], "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
        (["--topic", f"{name}-x", "--config", "segment.bytes=1"], "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"),
        (["--topic", "bad name"], "contains one or more characters other than ASCII alphanumerics"),
        (["--topic", "x" * 250], "249"),
    ]
    for arguments, message in cases:
        result = tools("kafka-topics", "--create", *arguments).failed()
        assert message in result.out + result.err, f"{arguments}: {result.out}{result.err}"


def test_topic_name_collision_of_dot_and_underscore(tools, create, name):
    create(f"{name}.a")
    result = tools("kafka-topics", "--create", "--topic", f"{name}_a").failed()
    assert "collides with existing topic" in result.out + result.err


def test_alter_errors(tools, create, name):
    create(name, 3)
    for count, message in ((3, "Topic already has 3 partition(s)."), (2, "The topic %s currently has 3 partition(s); 2 would not be an increase." % name)):
        result = tools("kafka-topics", "--alter", "--topic", name, "--partitions", count).failed()
        assert message in result.out + result.err
    missing = tools("kafka-topics", "--alter", "--topic", f"{name}-none", "--partitions", 3).failed()
    assert "does not exist as expected" in missing.out + missing.err


def test_delete_then_create_again_gives_a_new_id_and_an_empty_log(tools, create, name):
    create(name)
    tools("kafka-console-producer", "--topic", name, stdin="old\n").ok()
    old_id = describe(tools, name)[0]["TopicId"]
    tools("kafka-topics", "--delete", "--topic", name).ok()
    create(name)
    assert describe(tools, name)[0]["TopicId"] != old_id
    assert tools("kafka-get-offsets", "--topic", name).ok().lines == [f"{name}:0:0"]


def test_list_and_describe_filters(tools, create, name):
    create(name, 1, retention_ms=1000)
    create(f"{name}-plain")
    overridden = tools("kafka-topics", "--describe", "--topics-with-overrides").ok().out
    assert f"Topic: {name}\t" in overridden and "retention.ms=1000" in overridden
    for option in ("--unavailable-partitions", "--under-replicated-partitions", "--under-min-isr-partitions", "--at-min-isr-partitions"):
        lines = tools("kafka-topics", "--describe", option).ok().lines
        if option == "--at-min-isr-partitions":
            assert any(f"Topic: {name}\t" in line for line in lines)
        else:
            assert lines == []
    topic_id = describe(tools, name)[0]["TopicId"]
    assert f"Topic: {name}\t" in tools("kafka-topics", "--describe", "--topic-id", topic_id).ok().out
    assert set(tools("kafka-topics", "--list", "--topic", f"{name}.*").ok().lines) == {name, f"{name}-plain"}


def test_many_partitions(tools, create, name):
    create(name, 100)
    assert len(describe(tools, name)) == 101
    tools("kafka-topics", "--delete", "--topic", name).ok()
