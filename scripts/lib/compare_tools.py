"""One slice with Kafka's own performance tools: what they print, as a result of `ottla bench`.

Called by `ottla bench compare` by way of `scripts/compare-kafka --slice`. The tools tell milliseconds and no
histogram; their throughput begins with the first record, so connecting is in it.
"""

import json
import re
import subprocess
import time
from pathlib import Path

MS = 1_000_000
RECORD_BYTES = 100
PARTITIONS = 4

PRODUCED = re.compile(
    r"^(?P<records>\d+) records sent, (?P<rate>[\d.]+) records/sec \([\d.]+ MB/sec\), (?P<mean>[\d.]+) ms avg latency, "
    r"(?P<max>[\d.]+) ms max latency, (?P<p50>\d+) ms 50th, (?P<p95>\d+) ms 95th, (?P<p99>\d+) ms 99th, (?P<p999>\d+) ms 99.9th",
    re.MULTILINE)


def java(jars: Path, *arguments: str) -> list[str]:
    log = "-Dlog4j2.configurationFile=tests/java/log4j2-tools.properties"
    return ["java", "-Xmx1g", "-XX:+UseG1GC", "-cp", f"{jars}/*", log, *arguments]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def phase(name: str, records: int, rate: float, latencies: dict) -> dict:
    return {
        "name": name, "loop": "closed", "seconds": records / rate, "valid": True, "faults": [],
        "counts": {"acknowledged": records},
        "throughput": {"records_per_s": rate, "bytes_per_s": rate * RECORD_BYTES},
        "latencies": latencies,
    }


def produce(jars: Path, bootstrap: str, topic: str, records: int) -> dict:
    printed = run(java(jars, "org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", bootstrap, "--topic", topic,
                       "--num-records", str(records), "--record-size", str(RECORD_BYTES), "--throughput", "-1",
                       "--command-property", "acks=all", "linger.ms=5", "batch.size=16384"))
    found = list(PRODUCED.finditer(printed))
    if not found or int(found[-1]["records"]) != records:
        raise SystemExit(f"the producer's last line isn't as expected:\n{printed}")
    last = found[-1]
    publish = {"count": records, "mean_ns": float(last["mean"]) * MS, "p50_ns": int(last["p50"]) * MS,
               "p99_ns": int(last["p99"]) * MS, "p99_9_ns": int(last["p999"]) * MS, "max_ns": int(float(last["max"]) * MS)}
    # It doesn't tell the 99.99th percentile, so that is left out.
    return phase("producer", records, float(last["rate"]), {"publish": publish})


def consume(jars: Path, bootstrap: str, topic: str, records: int) -> dict:
    printed = run(java(jars, "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", bootstrap, "--topic", topic,
                       "--num-records", str(records), "--hide-header"))
    # start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, MB/s of fetching, records/s of fetching
    fields = printed.strip().splitlines()[-1].split(", ")
    got = int(fields[4])
    if got < records:
        raise SystemExit(f"the consumer got {got} of {records} records:\n{printed}")
    return phase("consumer", got, float(fields[9]), {})


def slice_of(jars: Path, bootstrap: str, topic: str, records: int, name: str, side: str, out: Path) -> None:
    began_ms = int(time.time() * 1000)
    phases = [produce(jars, bootstrap, topic, records), consume(jars, bootstrap, topic, records)]
    result = {
        "schema": 1, "tool": "ottla bench", "tool_version": "kafka-producer-perf-test, kafka-consumer-perf-test",
        "scenario": "perf-tools", "name": name, "began_ms": began_ms, "valid": True, "faults": [],
        "options": {"records": records, "record_bytes": RECORD_BYTES, "partitions": PARTITIONS, "acks": "all"},
        "broker": {"bootstrap": bootstrap, "topic": topic, "software": side}, "machine": None, "phases": phases,
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
