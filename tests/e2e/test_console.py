"""Kafka's console and performance tools with their default settings: what a newcomer types first."""

import re

import pytest


def test_console_round_trip_in_own_processes(tools, name):
    """The topic isn't created beforehand: auto.create.topics.enable is on by default."""
    tools.process("kafka-console-producer", "--topic", name, stdin="one\ntwo\nthree\n").ok()
    consumed = tools.process("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 3).ok()
    assert consumed.lines == ["one", "two", "three"]
    assert "Processed a total of 3 messages" in consumed.err


def test_console_consumer_prints_keys_headers_offsets_timestamps(tools, create, name):
    create(name)
    tools("kafka-console-producer", "--topic", name, "--reader-property", "parse.key=true", "--reader-property", "key.separator==",
          "--reader-property", "parse.headers=true", "--reader-property", "null.marker=NIL",
          stdin="h1:v1,h2:v2\tk1=first\nh3:\tk2=NIL\nh4:NIL\tNIL=third\n").ok()
    printed = [part for key in ("timestamp", "partition", "offset", "headers", "key") for part in ("--formatter-property", f"print.{key}=true")]
    lines = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 3, *printed).ok().lines
    assert all(re.match(r"CreateTime:\d{13}\t", line) for line in lines)
    assert [line.split("\t", 1)[1] for line in lines] == [
        "Partition:0\tOffset:0\th1:v1,h2:v2\tk1\tfirst",
        "Partition:0\tOffset:1\th3:\tk2\tnull",
        "Partition:0\tOffset:2\th4:null\tnull\tthird",
    ]


def test_console_consumer_from_offset_and_partition(tools, create, name):
    create(name)
    tools("kafka-console-producer", "--topic", name, stdin="".join(f"{i}\n" for i in range(100))).ok()
    read = tools("kafka-console-consumer", "--topic", name, "--partition", 0, "--offset", 97, "--max-messages", 3).ok()
    assert read.lines == ["97", "98", "99"]
    nothing = tools("kafka-console-consumer", "--topic", name, "--partition", 0, "--offset", "latest", "--timeout-ms", 1500)
    assert nothing.lines == []


def test_console_consumer_group_continues_where_it_stopped(tools, create, name):
    create(name)
    tools("kafka-console-producer", "--topic", name, stdin="a\nb\nc\nd\n").ok()
    first = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--group", name, "--max-messages", 2).ok()
    second = tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--group", name, "--max-messages", 2).ok()
    assert first.lines + second.lines == ["a", "b", "c", "d"]


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_console_producer_acks(tools, create, name, acks):
    create(name)
    tools("kafka-console-producer", "--topic", name, "--request-required-acks", acks, stdin="x\ny\n").ok()
    assert tools("kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 2).ok().lines == ["x", "y"]


def test_console_consumer_include_pattern(tools, create, name):
    create(f"{name}-1")
    create(f"{name}-2")
    for i in (1, 2):
        tools("kafka-console-producer", "--topic", f"{name}-{i}", stdin=f"{i}\n").ok()
    read = tools("kafka-console-consumer", "--include", f"{name}-.*", "--from-beginning", "--max-messages", 2).ok()
    assert sorted(read.lines) == ["1", "2"]


def test_perf_tools_in_own_processes(tools, create, name):
    create(name, 3)
    produced = tools.process("kafka-producer-perf-test", "--topic", name, "--num-records", 50000, "--record-size", 100,
                             "--throughput", -1, timeout=90).ok()
    assert re.search(r"^50000 records sent, [\d.]+ records/sec", produced.out, re.M)
    consumed = tools.process("kafka-consumer-perf-test", "--topic", name, "--num-records", 50000, timeout=90).ok()
    row = consumed.lines[-1].split(", ")
    assert consumed.lines[0].startswith("start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg")
    assert int(row[4]) == 50000
    assert float(row[2]) == pytest.approx(50000 * 100 / (1 << 20), rel=0.001)
    ends = tools("kafka-get-offsets", "--topic", name).ok().lines
    assert sum(int(line.split(":")[2]) for line in ends) == 50000


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_perf_tools_with_every_codec(tools, create, name, codec):
    create(name)
    tools("kafka-producer-perf-test", "--topic", name, "--num-records", 5000, "--record-size", 512, "--throughput", -1,
          "--command-property", f"compression.type={codec}", "batch.size=65536", "linger.ms=20").ok()
    consumed = tools("kafka-consumer-perf-test", "--topic", name, "--num-records", 5000, "--hide-header").ok()
    assert int(consumed.lines[-1].split(", ")[4]) == 5000
