"""Limits on connections, with Kafka's names and meanings: how many, from where, how fast; set at start or while running."""

import socket
import struct
import time

import pytest

from harness.net import free_ports, wait_until
from harness.wire import Connection, request_bytes

pytestmark = pytest.mark.allow_log("max.connections.per.ip.overrides")

# Long enough to tell a connection that is held back from one that is served.
HELD_SECONDS = 0.7


class Client:
    """A plain connection that asks for ApiVersions and sees whether it is answered."""

    def __init__(self, port: int, source: str = "127.0.0.1"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))
        try:
            self.ask()
        except OSError:
            pass

    def ask(self) -> None:
        request = request_bytes("ApiVersions", 0, {}, 1)
        self.socket.sendall(struct.pack(">i", len(request)) + request)

    def is_closed(self) -> bool:
        self.drain()
        self.socket.settimeout(0)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def drain(self) -> None:
        """Reads what is there of earlier answers."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                pass
        except OSError:
            pass

    def outcome(self, timeout: float = 10) -> str:
        """served, closed, or held: neither within the time."""
        self.socket.settimeout(timeout)
        try:
            return "served" if self.socket.recv(4) else "closed"
        except TimeoutError:
            return "held"
        except ConnectionError:
            return "closed"

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def client():
    opened: list[Client] = []

    def open_client(node, source: str = "127.0.0.1", port: int | None = None) -> Client:
        opened.append(Client(port or node.port, source))
        return opened[-1]
    yield open_client
    for one in opened:
        one.close()


def alter(node, configs: dict[str, str | None], broker: str = "") -> None:
    """As kafka-configs --alter does for a broker, or for all of them."""
    with Connection("127.0.0.1", node.port, timeout=10) as connection:
        response = connection.call("IncrementalAlterConfigs", 1, {"Resources": [{
            "ResourceType": 4, "ResourceName": broker,
            "Configs": [{"Name": name, "ConfigOperation": 1 if value is None else 0, "Value": value} for name, value in configs.items()],
        }], "ValidateOnly": False})
        assert response["Responses"][0]["ErrorCode"] == 0, response


def served_again(node, client, **where) -> None:
    """Another's end is told to the limits a moment after it was seen here."""
    wait_until("a place is free", lambda: client(node, **where).outcome(HELD_SECONDS) == "served", pause=0.01)


def test_over_the_limit_of_an_address_a_connection_is_closed(own_broker, client):
    node = own_broker({"max.connections.per.ip": "1", "max.connections.per.ip.overrides": "127.0.0.1:50,127.0.0.3:2"}).start()
    first = client(node, "127.0.0.2")
    assert first.outcome() == "served"
    assert client(node, "127.0.0.2").outcome() == "closed"
    assert [client(node, "127.0.0.3").outcome() for _ in range(3)] == ["served", "served", "closed"]
    assert client(node).outcome() == "served"
    first.close()
    served_again(node, client, source="127.0.0.2")


def test_the_limit_of_an_address_changes_while_running(own_broker, client):
    node = own_broker().start()
    kept = [client(node, "127.0.0.2") for _ in range(3)]
    assert {one.outcome() for one in kept} == {"served"}
    alter(node, {"max.connections.per.ip": "2", "max.connections.per.ip.overrides": "127.0.0.1:50"})
    wait_until("the limit is in force", lambda: client(node, "127.0.0.2").outcome() == "closed")
    # Those that were there stay.
    kept[0].ask()
    assert kept[0].outcome() == "served"
    alter(node, {"max.connections.per.ip": None, "max.connections.per.ip.overrides": None})
    served_again(node, client, source="127.0.0.2")


def test_over_the_brokers_limit_a_connection_waits_until_another_ends(own_broker, client):
    # One core, so that a connection that is held back holds back whatever comes after it.
    node = own_broker({"ottla.cores": "1"}).start()
    kept = [client(node) for _ in range(3)]
    assert {one.outcome() for one in kept} == {"served"}
    alter(node, {"max.connections": "3"})
    held = client(node)
    # What configured it may not have been counted out yet.
    while held.outcome(HELD_SECONDS) == "served":
        kept.append(held)
        held = client(node)
    assert held.outcome(HELD_SECONDS) == "held"
    # Controllers' connections are counted by themselves.
    assert client(node, port=node.controller_port).outcome() == "served"
    for one in kept:
        one.close()
    assert held.outcome() == "served"


def test_a_listener_has_a_limit_of_its_own(own_broker, client):
    other = free_ports(1)[0]
    node = own_broker()
    listeners = f"PLAINTEXT://127.0.0.1:{node.port},OTHER://127.0.0.1:{other},CONTROLLER://127.0.0.1:{node.controller_port}"
    node.overrides |= {
        "listeners": listeners, "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port},OTHER://127.0.0.1:{other}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listener.name.other.max.connections": "2", "ottla.cores": "1",
    }
    node.start()
    kept = [client(node, port=other) for _ in range(2)]
    assert {one.outcome() for one in kept} == {"served"}
    held = client(node, port=other)
    assert held.outcome(HELD_SECONDS) == "held"
    assert client(node).outcome() == "served"
    alter(node, {"listener.name.other.max.connections": "3"}, broker="1")
    assert held.outcome() == "served"
    # The inter-broker listener is exempt from the broker's limit, as there is another, but not from its own.
    alter(node, {"max.connections": "1", "listener.name.plaintext.max.connections": "50"}, broker="1")
    assert client(node).outcome() == "served"
    for one in (*kept, held):
        one.close()


def with_other_listener(node, properties: dict[str, str]) -> int:
    """A second listener for clients, so that the first is the brokers' own; returns its port."""
    other = free_ports(1)[0]
    node.overrides |= {
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},OTHER://127.0.0.1:{other},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port},OTHER://127.0.0.1:{other}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        **properties,
    }
    return other


def test_brokers_come_in_over_the_limit_and_the_least_recently_used_makes_room(own_broker, client):
    node = own_broker()
    # One network thread of Apache Kafka: each closes its own least recently used. And it needs some connections itself.
    limit = 12
    other = with_other_listener(node, {"max.connections": str(limit), "num.network.threads": "1"})
    node.start()
    clients = []
    for _ in range(limit):
        # The last one is served when nothing else is left.
        clients.append(client(node, port=other))
        assert clients[-1].outcome() == "served"

    def goes_on(one: Client) -> None:
        one.drain()
        one.ask()
        assert one.outcome() == "served"
    for one in (*clients[2:], clients[0]):
        goes_on(one)
    broker = client(node)
    assert broker.outcome() == "served"
    clients[1].drain()
    assert clients[1].outcome() == "closed"
    goes_on(clients[2])
    goes_on(clients[0])
    # The limit is lowered: whoever is over it makes room, but for brokers.
    alter(node, {"max.connections": str(limit - 3)})
    # What lowers it is a connection, too, for a moment.
    made_room = wait_until("three have made room", lambda: (count := sum(one.is_closed() for one in clients[3:])) >= 3 and count)
    assert made_room <= 4
    for one in (broker, clients[2], clients[0]):
        goes_on(one)


def test_a_request_that_is_being_served_does_not_keep_its_connection(own_broker, name):
    """Idle is a connection without bytes, as in Apache Kafka."""
    node = own_broker({"connections.max.idle.ms": "1000"}).start()
    with Connection("127.0.0.1", node.port, timeout=20) as waiting:
        waiting.call("CreateTopics", 2, {"Topics": [{"Name": name, "NumPartitions": 1, "ReplicationFactor": 1}], "timeoutMs": 10000})
        fetch = {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 1 << 20, "MaxBytes": 1 << 20, "Topics": [
            {"Topic": name, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}]}]}
        wait_until("there is a leader", lambda: not waiting.call("Fetch", 4, fetch)["Responses"][0]["Partitions"][0]["ErrorCode"])
        waiting.send("Fetch", 4, fetch | {"MaxWaitMs": 15000})
        began = time.monotonic()
        assert waiting.closed_by_peer(14)
        assert time.monotonic() - began > 0.9


def test_over_the_creation_rate_connections_are_delayed(own_broker, client):
    node = own_broker({"ottla.cores": "1"}).start()
    alter(node, {"max.connection.creation.rate": "4"})
    began = time.monotonic()
    # Ten seconds' worth comes at once, then four a second.
    clients = [client(node) for _ in range(46)]
    assert {one.outcome(20) for one in clients} == {"served"}
    assert time.monotonic() - began > 1
    alter(node, {"max.connection.creation.rate": None})
