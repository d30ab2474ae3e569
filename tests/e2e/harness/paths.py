"""Where the set-up of scripts/test put things; every path can be given from outside by an environment variable."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STATE = Path(os.environ.get("OTTLA_TEST_DIR", ROOT / ".test"))
KAFKA_CLASSPATH = os.environ.get("OTTLA_KAFKA_CLASSPATH", str(STATE / "kafka-jars" / "*"))
JAVA_CLASSES = os.environ.get("OTTLA_JAVA_CLASSES", str(STATE / "java-classes"))
JAVA_SOURCES = ROOT / "tests" / "java"
OTTLA_BIN = Path(os.environ.get("OTTLA_BIN", ROOT / "target" / "release" / "ottla"))


def jar(name_start: str) -> Path:
    """The one jar of the class path whose file name starts so."""
    directories = [Path(part).parent if part.endswith("*") else Path(part) for part in KAFKA_CLASSPATH.split(":")]
    found = []
    for directory in directories:
        if directory.is_dir():
            found += sorted(directory.glob(f"{name_start}*.jar"))
        elif directory.name.startswith(name_start):
            found.append(directory)
    assert len(found) == 1, f"expected one jar {name_start}*.jar in {KAFKA_CLASSPATH}, found {found}"
    return found[0]
