"""tuning/observability and tuning/systemd: what they name is what a node has."""

import json
import re
import shutil
import subprocess
import urllib.request

import pytest
from kafka import KafkaConsumer, KafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from harness.net import free_ports
from harness.paths import OTTLA_BIN, ROOT

pytestmark = pytest.mark.stricter_than_kafka("Apache Kafka has no such files")

FILES = ROOT / "tuning" / "observability"
SECONDS_MAX = 60
# What isn't Ottla's, and what is no metric.
FOREIGN = {"up"}


@pytest.fixture
def exposed(own_broker, name) -> dict[str, set[str]]:
    """The labels of each sample that a node serves after some traffic; empty where it has no sample yet."""
    port, = free_ports(1)
    node = own_broker({"ottla.metrics.listen": f"127.0.0.1:{port}"}).start()
    producer = KafkaProducer(bootstrap_servers=node.bootstrap)
    producer.send(name, b"x").get(timeout=SECONDS_MAX)
    producer.close()
    consumer = KafkaConsumer(name, bootstrap_servers=node.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=SECONDS_MAX * 1000)
    next(consumer)
    consumer.close()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        if family.type == "histogram":
            names = [f"{family.name}{part}" for part in ("_bucket", "_sum", "_count")]
        else:
            # The library takes the _total off the names of counters.
            names = [family.name + ("_total" if family.type == "counter" else "")]
        found |= {name: set() for name in names}
        for sample in family.samples:
            found[sample.name] |= sample.labels.keys()
    # A family without a sample isn't served: blocked calls, on a quiet machine. It is declared all the same.
    declared = (ROOT / "src" / "shard" / "metrics" / "snapshot.rs").read_text()
    for name in re.findall(r'^\s+(?:counter|gauge) [A-Z_]+ "(ottla_[a-z_]+)"', declared, re.MULTILINE):
        found.setdefault(name, set())
    return found


def alerts() -> list[str]:
    text = (FILES / "alerts.yml").read_text()
    expressions = re.findall(r"^ +expr: (.+)$", text, re.MULTILINE)
    assert len(expressions) == text.count("- alert: ") == text.count("summary: ") == text.count("severity: ") >= 15
    return expressions


def panels() -> list[str]:
    dashboard = json.loads((FILES / "dashboard.json").read_text())
    shown = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["targets"] and panel["fieldConfig"]["defaults"]["unit"] for panel in shown)
    queries = [variable["definition"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    return [target["expr"] for panel in shown for target in panel["targets"]] + queries


def test_dashboard_and_alerts_use_metrics_and_labels_that_a_node_serves(exposed):
    # What Prometheus adds to each.
    added = {"instance", "job"}
    used = set()
    for expression in alerts() + panels():
        names = set(re.findall(r"\bottla_[a-z0-9_]+", expression))
        assert names or FOREIGN & set(re.findall(r"\w+", expression)), expression
        for name in names:
            assert name in exposed, f"no node serves {name}: {expression}"
        used |= names
        for name, selector in re.findall(r"\b(ottla_[a-z0-9_]+)\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
                assert not exposed[name] or label in exposed[name] | added, f"{name} has no label {label}: {expression}"
        for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
            known = added.union(*(exposed[name] for name in names))
            unknown = {label.strip() for label in grouped.split(",")} - known
            assert not unknown or any(not exposed[name] for name in names), f"no label {unknown}: {expression}"
    assert len(used) >= 40, sorted(used)


def unit(name: str) -> str:
    return (ROOT / "tuning" / "systemd" / name).read_text()


def test_the_unit_allows_io_uring_and_enough_memory_and_files():
    lines = unit("ottla.service").splitlines()
    for line in ("LimitMEMLOCK=infinity", "LimitNOFILE=1048576", "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in lines, line
    assert not any(line.startswith(("PrivateUsers=", "ProcSubset=", "CPUQuota=")) for line in lines)


def test_systemd_understands_the_units(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd isn't installed")
    (tmp_path / "ottla.service").write_text(unit("ottla.service").replace("/usr/local/bin/ottla", str(OTTLA_BIN)))
    (tmp_path / "ottla-tuning.service").write_text(unit("ottla-tuning.service").replace("/usr/local/lib/ottla-tuning", str(ROOT / "tuning")))
    files = sorted(tmp_path.glob("*.service"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, timeout=60)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if str(tmp_path) in line or line.startswith("ottla")]
    assert not complaints, complaints


def test_what_the_tuning_unit_runs_exists():
    for script in re.findall(r"^Exec(?:Start|Stop)=/usr/local/lib/ottla-tuning/(\S+)", unit("ottla-tuning.service"), re.MULTILINE):
        assert (ROOT / "tuning" / script).is_file(), script
