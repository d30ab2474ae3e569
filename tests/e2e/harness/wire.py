"""A Kafka wire codec of the tests' own, driven by the message schemas inside Kafka's client jar.

It shares nothing with Ottla's code, so that an error there can't hide here. Messages are plain dictionaries
under the schemas' field names; a field left out has its schema's default. `Connection` frames them over a socket
and lets a test send any bytes it likes.
"""

import functools
import json
import re
import socket
import struct
import uuid
import zipfile

from . import paths

UUID_ZERO = uuid.UUID(int=0)


class WireError(Exception):
    """The peer closed the connection, or its bytes don't decode."""


class Reader:
    def __init__(self, data: bytes, position: int = 0):
        self.data = data
        self.position = position

    def take(self, count: int) -> bytes:
        if count < 0 or self.position + count > len(self.data):
            raise WireError(f"{count} bytes wanted at {self.position} of {len(self.data)}")
        self.position += count
        return self.data[self.position - count:self.position]

    def number(self, layout: str):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def varint(self) -> int:
        raw = self.uvarint()
        return (raw >> 1) ^ -(raw & 1)

    def remaining(self) -> int:
        return len(self.data) - self.position


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint(value: int) -> bytes:
    return uvarint((value << 1) ^ (value >> 63))


NUMBERS = {"bool": ">?", "int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}


class Versions:
    """The schemas' version ranges: "none", "3", "2+", "1-5"."""

    def __init__(self, text: str | None):
        self.first, self.last = 1, 0
        if text and text != "none":
            match = re.fullmatch(r"(\d+)(?:(\+)|-(\d+))?", text)
            self.first = int(match[1])
            self.last = 1 << 15 if match[2] else int(match[3] or match[1])

    def __contains__(self, version: int) -> bool:
        return self.first <= version <= self.last


class Field:
    def __init__(self, spec: dict, structs: dict):
        self.name = spec["name"]
        self.type = spec["type"]
        self.versions = Versions(spec.get("versions"))
        self.nullable = Versions(spec.get("nullableVersions"))
        self.tag = spec.get("tag")
        self.tagged = Versions(spec.get("taggedVersions"))
        self.flexible = Versions(spec["flexibleVersions"]) if "flexibleVersions" in spec else None
        self.item = self.type.removeprefix("[]")
        self.is_array = self.item != self.type
        if "fields" in spec:
            structs.setdefault(self.item, [Field(inner, structs) for inner in spec["fields"]])
        self.structs = structs
        self.default = self.parse_default(spec.get("default"))

    def parse_default(self, text):
        if text == "null":
            return None
        if self.is_array:
            return []
        if self.item == "bool":
            return str(text).lower() == "true"
        if self.item == "float64":
            return float(text or 0)
        if self.item in NUMBERS:
            return int(str(text), 0) if text not in (None, "") else 0
        if self.item == "string":
            return text or ""
        if self.item in ("bytes", "records"):
            return None if self.item == "records" else b""
        return UUID_ZERO if self.item == "uuid" else {}

    def is_struct(self) -> bool:
        return self.item not in NUMBERS and self.item not in ("string", "bytes", "records", "uuid")


class Schema:
    def __init__(self, spec: dict):
        self.name = spec["name"]
        self.api_key = spec.get("apiKey")
        self.valid = Versions(spec.get("validVersions"))
        self.flexible = Versions(spec.get("flexibleVersions"))
        structs: dict = {}
        for common in spec.get("commonStructs", []):
            structs[common["name"]] = [Field(field, structs) for field in common["fields"]]
        self.fields = [Field(field, structs) for field in spec.get("fields", [])]

    def encode(self, message: dict, version: int) -> bytes:
        return encode_struct(self.fields, message, version, version in self.flexible)

    def decode(self, reader: Reader, version: int) -> dict:
        return decode_struct(self.fields, reader, version, version in self.flexible)


def encode_struct(fields: list[Field], message: dict, version: int, flexible: bool) -> bytes:
    unknown = set(message) - {field.name for field in fields}
    assert not unknown, f"no such fields: {unknown}"
    out = bytearray()
    tagged = []
    for field in fields:
        if version not in field.versions:
            continue
        value = message.get(field.name, field.default)
        if flexible and version in field.tagged:
            if value != field.default:
                tagged.append((field.tag, encode_field(field, value, version, flexible)))
            continue
        out += encode_field(field, value, version, flexible)
    if flexible:
        out += uvarint(len(tagged))
        for tag, payload in sorted(tagged):
            out += uvarint(tag) + uvarint(len(payload)) + payload
    return bytes(out)


def encode_field(field: Field, value, version: int, flexible: bool) -> bytes:
    if field.flexible is not None:
        flexible = flexible and version in field.flexible
    if field.is_array:
        head = (uvarint(0 if value is None else len(value) + 1) if flexible
                else struct.pack(">i", -1 if value is None else len(value)))
        return head + b"".join(encode_item(field, item, version, flexible) for item in value or [])
    if field.is_struct() and version in field.nullable:
        return b"\xff" if value is None else b"\x01" + encode_item(field, value, version, flexible)
    return encode_item(field, value, version, flexible)


def encode_item(field: Field, value, version: int, flexible: bool) -> bytes:
    if field.item in NUMBERS:
        return struct.pack(NUMBERS[field.item], value)
    if field.item == "uuid":
        return value.bytes
    if field.item in ("string", "bytes", "records"):
        raw = value.encode() if isinstance(value, str) else value
        if flexible:
            return uvarint(0 if raw is None else len(raw) + 1) + (raw or b"")
        layout = ">h" if field.item == "string" else ">i"
        return struct.pack(layout, -1 if raw is None else len(raw)) + (raw or b"")
    return encode_struct(field.structs[field.item], value, version, flexible)


def decode_struct(fields: list[Field], reader: Reader, version: int, flexible: bool) -> dict:
    message = {}
    tagged = {}
    for field in fields:
        if version not in field.versions:
            continue
        if flexible and version in field.tagged:
            tagged[field.tag] = field
            message[field.name] = field.default
        else:
            message[field.name] = decode_field(field, reader, version, flexible)
    if flexible:
        last = -1
        for _ in range(reader.uvarint()):
            tag, size = reader.uvarint(), reader.uvarint()
            if tag <= last:
                raise WireError(f"tag {tag} after tag {last}")
            last = tag
            payload = Reader(reader.take(size))
            if tag in tagged:
                message[tagged[tag].name] = decode_field(tagged[tag], payload, version, flexible)
                if payload.remaining():
                    raise WireError(f"{payload.remaining()} bytes left in tag {tag}")
    return message


def decode_field(field: Field, reader: Reader, version: int, flexible: bool):
    if field.flexible is not None:
        flexible = flexible and version in field.flexible
    if field.is_array:
        count = reader.uvarint() - 1 if flexible else reader.number(">i")
        if count < 0:
            return None
        return [decode_item(field, reader, version, flexible) for _ in range(count)]
    if field.is_struct() and version in field.nullable and reader.number(">b") < 0:
        return None
    return decode_item(field, reader, version, flexible)


def decode_item(field: Field, reader: Reader, version: int, flexible: bool):
    if field.item in NUMBERS:
        return reader.number(NUMBERS[field.item])
    if field.item == "uuid":
        return uuid.UUID(bytes=reader.take(16))
    if field.item in ("string", "bytes", "records"):
        size = reader.uvarint() - 1 if flexible else reader.number(">h" if field.item == "string" else ">i")
        raw = None if size < 0 else reader.take(size)
        return raw.decode() if raw is not None and field.item == "string" else raw
    return decode_struct(field.structs[field.item], reader, version, flexible)


@functools.cache
def schemas() -> dict[str, Schema]:
    found = {}
    for start in ("kafka-clients-", "kafka-group-coordinator-4", "kafka-metadata-"):
        with zipfile.ZipFile(paths.jar(start)) as archive:
            for name in archive.namelist():
                if name.startswith("common/message/") and name.endswith(".json"):
                    text = re.sub(r"(?m)^\s*//.*$", "", archive.read(name).decode())
                    schema = Schema(json.loads(text))
                    found[schema.name] = schema
    return found


@functools.cache
def api(name: str) -> tuple[Schema, Schema]:
    return schemas()[f"{name}Request"], schemas()[f"{name}Response"]


def request_bytes(name: str, version: int, body: dict, correlation_id: int, client_id: str | None = "e2e") -> bytes:
    """A whole request without its size."""
    request, _ = api(name)
    header = {"RequestApiKey": request.api_key, "RequestApiVersion": version, "CorrelationId": correlation_id, "ClientId": client_id}
    header_version = 2 if version in request.flexible else 1
    return schemas()["RequestHeader"].encode(header, header_version) + request.encode(body, version)


def response_body(name: str, version: int, frame: bytes) -> tuple[int, dict]:
    """Correlation id and body; the whole frame must be used up."""
    request, response = api(name)
    reader = Reader(frame)
    header_version = 1 if version in response.flexible and name != "ApiVersions" else 0
    header = schemas()["ResponseHeader"].decode(reader, header_version)
    body = response.decode(reader, version)
    if reader.remaining():
        raise WireError(f"{reader.remaining()} bytes after the body of {name} v{version}")
    return header["CorrelationId"], body


class Connection:
    def __init__(self, host: str, port: int, timeout: float = 30, source: str | None = None):
        """From another address of this machine, if a source is given."""
        self.socket = socket.create_connection((host, port), timeout=timeout, source_address=source and (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation_id = 0
        self.received = bytearray()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send_raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_frame(self, frame: bytes) -> None:
        self.send_raw(struct.pack(">i", len(frame)) + frame)

    def send(self, name: str, version: int, body: dict, client_id: str | None = "e2e") -> int:
        self.correlation_id += 1
        self.send_frame(request_bytes(name, version, body, self.correlation_id, client_id))
        return self.correlation_id

    def receive_frame(self) -> bytes:
        size = struct.unpack(">i", self.exactly(4))[0]
        if not 0 <= size <= 1 << 30:
            raise WireError(f"a frame of {size} bytes")
        return self.exactly(size)

    def exactly(self, count: int) -> bytes:
        while len(self.received) < count:
            data = self.socket.recv(1 << 16)
            if not data:
                raise WireError(f"closed after {len(self.received)} of {count} bytes")
            self.received += data
        out = bytes(self.received[:count])
        del self.received[:count]
        return out

    def receive(self, name: str, version: int, correlation_id: int | None = None) -> dict:
        got, body = response_body(name, version, self.receive_frame())
        expected = self.correlation_id if correlation_id is None else correlation_id
        if got != expected:
            raise WireError(f"correlation id {got} instead of {expected}")
        return body

    def call(self, name: str, version: int, body: dict, client_id: str | None = "e2e") -> dict:
        self.send(name, version, body, client_id)
        return self.receive(name, version)

    def closed_by_peer(self, timeout: float = 20) -> bool:
        """True when the peer ends the connection without sending another byte."""
        self.socket.settimeout(timeout)
        try:
            return not self.received and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
