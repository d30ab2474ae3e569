"""Free ports, and waiting for something to become true with a bound."""

import random
import socket
import time

# Below the range from which the kernel takes ports for outgoing connections: a port found free stays free
# until the broker binds it, even while clients of other tests connect.
PORT_RANGE = range(15000, 30000)


def free_ports(count: int) -> list[int]:
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(PORT_RANGE)
        if port in ports:
            continue
        with socket.socket() as probe:
            # As the brokers do: a port left over in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
    return ports


def wait_until(what: str, condition, timeout: float = 30.0, pause: float = 0.05):
    """Returns the first truthy value of condition(); fails with its name and last value after the time-out."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain until {what}; last seen: {value!r}")
        time.sleep(pause)
