"""Measures a cable with plain sockets: python probe.py listen, and python probe.py ADDRESS in the other end.

The latter prints JSON: the median time of a round trip, and the bytes a second of a long transfer.
"""

import json
import socket
import sys
import time
from statistics import median

PORT = 20_000
TRIPS = 300
SMALL = b"x" * 16
LARGE = 10_000_000  # bytes


def listen() -> None:
    """Answer each small message, then receive the long transfer and answer once."""
    with socket.create_server(("", PORT)) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(TRIPS):
                receive(connection, len(SMALL))
                connection.sendall(SMALL)
            receive(connection, LARGE)
            connection.sendall(SMALL)


def measure(address: str) -> dict[str, float]:
    """The round trip and the rate."""
    with socket.create_connection((address, PORT)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        trips = []
        for _ in range(TRIPS):
            start = time.perf_counter()
            connection.sendall(SMALL)
            receive(connection, len(SMALL))
            trips.append(time.perf_counter() - start)
        start = time.perf_counter()
        connection.sendall(bytes(LARGE))
        receive(connection, len(SMALL))
        return {"round_trip": median(trips), "rate": 8 * LARGE / (time.perf_counter() - start)}


def receive(connection: socket.socket, count: int) -> None:
    """Wait for so many bytes."""
    while count:
        arrived = len(connection.recv(min(count, 1 << 20)))
        if not arrived:
            sys.exit("the connection was closed")
        count -= arrived


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen()
    else:
        print(json.dumps(measure(sys.argv[1])))
