"""kcat: metadata, produce, consume, groups, queries."""

import json

import pytest


def test_metadata(kcat, broker, create, name):
    create(name, 3)
    listing = json.loads(kcat("-L", "-J", "-t", name).stdout)
    assert listing["brokers"] == [{"id": 1, "name": broker.bootstrap}]
    assert listing["controllerid"] == 1
    (topic,) = listing["topics"]
    assert topic["topic"] == name
    assert topic["partitions"] == [{"partition": p, "leader": 1, "replicas": [{"id": 1}], "isrs": [{"id": 1}]} for p in range(3)]
    assert name in {t["topic"] for t in json.loads(kcat("-L", "-J").stdout)["topics"]}


def test_produce_and_consume_with_keys_headers_and_nulls(kcat, name):
    kcat("-P", "-t", name, "-K:", "-Z", "-H", "h1=v1", "-H", "h2=", stdin="k1:one\nk2:\n:three\n")
    rows = [json.loads(line) for line in kcat("-C", "-t", name, "-J", "-o", "beginning", "-e", "-q").stdout.splitlines()]
    assert [(r["offset"], r["key"], r["payload"]) for r in rows] == [(0, "k1", "one"), (1, "k2", None), (2, None, "three")]
    assert all(r["headers"] == ["h1", "v1", "h2", ""] for r in rows)
    assert all(r["tstype"] == "create" for r in rows)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_codecs(kcat, name, codec):
    lines = [f"line {i} {'x' * (i % 50)}" for i in range(2000)]
    kcat("-P", "-t", name, "-z", codec, stdin="\n".join(lines) + "\n")
    assert kcat("-C", "-t", name, "-o", "beginning", "-e", "-q").stdout.decode().splitlines() == lines


@pytest.mark.parametrize("acks", ["0", "1", "all"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_acks(kcat, name, acks, idempotent):
    if idempotent and acks != "all":
        pytest.skip("an idempotent producer asks for all")
    settings = ["-X", f"acks={acks}"] + (["-X", "enable.idempotence=true"] if idempotent else [])
    kcat("-P", "-t", name, *settings, stdin="a\nb\nc\n")
    assert kcat("-C", "-t", name, "-o", "beginning", "-c", "3", "-q").stdout == b"a\nb\nc\n"


def test_offsets_and_timestamps(kcat, create, name):
    create(name)
    kcat("-P", "-t", name, "-p", "0", stdin="".join(f"{i}\n" for i in range(10)))
    stamps = [int(s) for s in kcat("-C", "-t", name, "-o", "beginning", "-e", "-q", "-f", "%T\n").stdout.split()]
    assert kcat("-C", "-t", name, "-p", "0", "-o", "7", "-e", "-q").stdout == b"7\n8\n9\n"
    assert kcat("-C", "-t", name, "-p", "0", "-o", "-2", "-e", "-q").stdout == b"8\n9\n"
    assert b"offset 0" in kcat("-Q", "-t", f"{name}:0:{stamps[0]}").stdout
    assert kcat("-C", "-t", name, "-p", "0", "-o", f"s@{stamps[0]}", "-e", "-q").stdout.splitlines()[0] == b"0"
    out = kcat("-Q", "-t", f"{name}:0:-1", "-t", f"{name}:0:-2").stdout.decode()
    assert "offset 10" in out or "offset 0" in out


def test_balanced_consumer(kcat, create, name):
    create(name, 4)
    kcat("-P", "-t", name, stdin="".join(f"{i}\n" for i in range(100)))
    out = kcat("-G", name, "-X", "auto.offset.reset=earliest", "-c", "100", "-q", name).stdout.split()
    assert sorted(map(int, out)) == list(range(100))
    kcat("-P", "-t", name, stdin="more\n")
    # What the group had read before was committed when it closed.
    assert kcat("-G", name, "-X", "auto.offset.reset=earliest", "-c", "1", "-q", name).stdout == b"more\n"


def test_partition_choice_and_unknown_partition(kcat, create, name):
    create(name, 2)
    kcat("-P", "-t", name, "-p", "1", stdin="x\n")
    assert kcat("-C", "-t", name, "-p", "1", "-o", "beginning", "-e", "-q").stdout == b"x\n"
    assert kcat("-C", "-t", name, "-p", "0", "-o", "beginning", "-e", "-q").stdout == b""
    failed = kcat("-C", "-t", name, "-p", "9", "-o", "beginning", "-e", ok=False)
    assert failed.returncode != 0 and b"partition 9 does not exist" in failed.stderr


def test_api_version_fallback_of_librdkafka(kcat, name):
    """A client that believes to meet an old broker sends its oldest requests, or learns the truth."""
    kcat("-P", "-t", name, "-X", "api.version.request=true", "-X", "broker.version.fallback=0.10.2", stdin="x\n")
    assert kcat("-C", "-t", name, "-o", "beginning", "-c", "1", "-q", "-X", "check.crcs=true", "-X", "fetch.wait.max.ms=10").stdout == b"x\n"
