"""Reads what kafka-dump-log prints."""

import json
import re
from dataclasses import dataclass, field

# What the tool says about files that aren't right.
COMPLAINTS = re.compile(r"isvalid: false|[Mm]ismatch|[Ii]nvalid|[Nn]on-consecutive|not found in|corrupt|Exception|Found timestamp|unknown", re.S)


@dataclass
class DumpedRecord:
    fields: dict[str, str]
    key: str | None = None
    payload: str | None = None

    def json(self) -> dict | None:
        return None if self.payload is None else json.loads(self.payload)

    def key_json(self) -> dict:
        return json.loads(self.key)


@dataclass
class DumpedBatch:
    fields: dict[str, str]
    records: list[DumpedRecord] = field(default_factory=list)


@dataclass
class Dump:
    text: str
    batches: list[DumpedBatch]

    def records(self) -> list[DumpedRecord]:
        return [record for batch in self.batches for record in batch.records]


def parse(text: str) -> Dump:
    complaint = COMPLAINTS.search(text)
    assert complaint is None, f"{complaint[0]!r} in:\n{text[max(0, complaint.start() - 2000):complaint.end() + 500]}"
    batches: list[DumpedBatch] = []
    for line in text.splitlines():
        if line.startswith("baseOffset: "):
            batches.append(DumpedBatch(pairs(line)))
        elif line.startswith("| offset: "):
            head, _, rest = line.partition(" headerKeys: ")
            record = DumpedRecord(pairs(head[2:]))
            keys = re.match(r"\[(.*?)\]", rest)
            record.fields["headerKeys"] = keys[1] if keys else ""
            match = re.search(r"(?: key: (?P<key>.*?))?(?: payload: (?P<payload>.*))?$", rest[keys.end() if keys else 0:], re.S)
            record.key, record.payload = match["key"], match["payload"]
            batches[-1].records.append(record)
    return Dump(text, batches)


def pairs(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+): (\S+)", line))
