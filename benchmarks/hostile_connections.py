"""The effect of thousands of slow clients on a server, and how long it takes to close them."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack

from benchmarks.figures import Figure
from benchmarks.servers import myllm_server
from tests.hostile.attacks import memory_mb, others_are_served
from tests.hostile.raw import answer_to, connect, endless, head, is_closed
from tests.serving import Serving, wait_until

_MANY = 2000
_HEALTH_S = 0.05
_ANY = 1000.0  # seconds and MB; the figures have the real bounds
_BEGUN = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: "
_LENGTH = ("Content-Type: application/json", "Content-Length: 1000000")
_WAITING = {
    "send nothing": b"",
    "send half a head": b"GET /health HTTP/1.1\r\n",
    "send half a body": head("POST", "/api/chat", *_LENGTH) + b" " * 1000,
    "have their answer": head("GET", "/health"),
}


def measure() -> list[Figure]:
    """Attack a server with the default settings."""
    with myllm_server() as server:
        slow = [_slow(server, name, sent) for name, sent in _WAITING.items()]
        return list(itertools.chain(*slow, _endless(server)))


def _slow(server: Serving, name: str, sent: bytes) -> list[Figure]:
    """Connect from two addresses, so that the server refuses none."""
    before = memory_mb(server)
    with ExitStack() as held, others_are_served(server, _ANY, _ANY) as others:
        addresses = itertools.cycle(["127.0.0.2", "127.0.0.3"])
        clients = [held.enter_context(connect(server, next(addresses))) for _ in range(_MANY)]
        for client in clients:
            client.sendall(sent)
        grown = memory_mb(server) - before
        took = wait_until(lambda: all(map(is_closed, clients)), 120, f"{name}: closed")
    note = f"they took {grown:.0f} MB"
    return [
        Figure(f"{_MANY} clients that {name}: closed after", took, "s", 90, note),
        Figure("  /health meanwhile, slowest", others.slowest_s, "s", _HEALTH_S),
    ]


def _endless(server: Serving) -> list[Figure]:
    with others_are_served(server, _ANY, _ANY) as others:
        began = time.monotonic()
        answer_to(server, endless(b"x", _BEGUN), total=2**28)
        took = time.monotonic() - began
    return [
        Figure("a header of 256 MiB: refused after", took, "s", 1),
        Figure("  /health meanwhile, slowest", others.slowest_s, "s", _HEALTH_S),
    ]
