"""Record batches of magic 2, built and read field by field, right or deliberately wrong."""

import struct
import time
from dataclasses import dataclass, field

from .wire import Reader, varint

HEADER_BYTES = 61


def crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC32C_TABLE = crc32c_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass
class Record:
    value: bytes | None = b""
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    timestamp: int | None = None
    offset: int = -1

    def encode(self, offset_delta: int, timestamp_delta: int) -> bytes:
        def blob(data: bytes | None) -> bytes:
            return varint(-1) if data is None else varint(len(data)) + data
        body = b"\0" + varint(timestamp_delta) + varint(offset_delta) + blob(self.key) + blob(self.value) + varint(len(self.headers))
        for name, value in self.headers:
            body += blob(name.encode()) + blob(value)
        return varint(len(body)) + body


def batch(records: list[Record], *, base_offset=0, leader_epoch=-1, magic=2, crc=None, attributes=0, last_offset_delta=None,
          base_timestamp=None, max_timestamp=None, producer_id=-1, producer_epoch=-1, base_sequence=-1, record_count=None,
          length=None, payload: bytes | None = None) -> bytes:
    """A batch; whatever is given overrules what would be right. A payload stands in for the encoded records."""
    first = base_timestamp if base_timestamp is not None else next((r.timestamp for r in records if r.timestamp is not None), now_ms())
    stamps = [first if record.timestamp is None else record.timestamp for record in records] or [first]
    if payload is None:
        payload = b"".join(record.encode(i, stamps[i] - first) for i, record in enumerate(records))
    checked = struct.pack(">hiqqqhii", attributes, len(records) - 1 if last_offset_delta is None else last_offset_delta, first,
                          max(stamps) if max_timestamp is None else max_timestamp, producer_id, producer_epoch, base_sequence,
                          len(records) if record_count is None else record_count) + payload
    tail = struct.pack(">ibI", leader_epoch, magic, crc32c(checked) if crc is None else crc) + checked
    return struct.pack(">qi", base_offset, len(tail) if length is None else length) + tail


@dataclass
class Batch:
    base_offset: int
    leader_epoch: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int
    crc: int
    # What the CRC covers; the records begin 40 bytes into it.
    checked: bytes

    @property
    def payload(self) -> bytes:
        return self.checked[HEADER_BYTES - 21:]

    def crc_ok(self) -> bool:
        return crc32c(self.checked) == self.crc

    @property
    def compression(self) -> int:
        return self.attributes & 7

    def records(self) -> list[Record]:
        assert self.compression == 0, "only uncompressed batches are read here"
        reader = Reader(self.payload)
        out = []
        for _ in range(self.record_count):
            reader.varint()
            reader.take(1)
            timestamp = self.base_timestamp + reader.varint()
            offset = self.base_offset + reader.varint()

            def blob():
                size = reader.varint()
                return None if size < 0 else reader.take(size)
            key, value = blob(), blob()
            headers = [((blob() or b"").decode(), blob()) for _ in range(reader.varint())]
            out.append(Record(value, key, headers, timestamp, offset))
        return out


def batches(data: bytes | None) -> list[Batch]:
    """The whole batches of a Fetch answer; a torn one at its end is dropped, as clients do."""
    out = []
    position = 0
    data = data or b""
    while len(data) - position >= HEADER_BYTES:
        base_offset, length = struct.unpack_from(">qi", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        leader_epoch, magic, crc = struct.unpack_from(">ibI", data, position + 12)
        assert magic == 2
        rest = struct.unpack_from(">hiqqqhii", data, position + 21)
        out.append(Batch(base_offset, leader_epoch, *rest, crc, data[position + 21:end]))
        position = end
    return out
