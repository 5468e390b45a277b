"""The effect of thousands of slow clients on a server, and how long it takes to close them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.figures import Figure
from benchmarks.probing import more_files, probing
from benchmarks.servers import myllm_server
from tests.hostile.attacks import memory_mb
from tests.hostile.raw import answer_to, connect, endless, head, is_closed
from tests.serving import Serving, wait_until

_MANY = 2000
_HEALTH_S = 0.05
# Shorter than the defaults, which only lengthen the measurement.
_DEADLINES_S = {"header_timeout": 10.0, "body_timeout": 15.0, "idle_timeout": 20.0}
_LATE_S = 5.0
_BEGUN = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: "
_LENGTH = ("Content-Type: application/json", "Content-Length: 1000000")
# What the clients send, and the deadline that they miss.
_WAITING = {
    "send nothing": (b"", "header_timeout"),
    "send half a head": (b"GET /health HTTP/1.1\r\n", "header_timeout"),
    "send half a body": (
        head("POST", "/api/chat", *_LENGTH) + b" " * 1000,
        "body_timeout",
    ),
    "have their answer": (head("GET", "/health"), "idle_timeout"),
}


def measure() -> Iterator[Figure]:
    """Attack a server whose deadlines are short."""
    more_files()
    with myllm_server(**_DEADLINES_S) as server:
        for name, (sent, deadline) in _WAITING.items():
            yield from _slow(server, name, sent, _DEADLINES_S[deadline])
        yield from _endless(server)


def _slow(server: Serving, name: str, sent: bytes, deadline_s: float) -> Iterator[Figure]:
    """Connect from two addresses, so that the server refuses none."""
    before = memory_mb(server)
    with ExitStack() as held, probing(server) as probes:
        addresses = itertools.cycle(["127.0.0.2", "127.0.0.3"])
        clients = [held.enter_context(connect(server, next(addresses))) for _ in range(_MANY)]
        for client in clients:
            client.sendall(sent)
        grown = memory_mb(server) - before
        # One socket at a time: this process shares its cores with the server.
        took = sum(wait_until(lambda c=c: is_closed(c), 2 * deadline_s, name) for c in clients)  # type: ignore[misc]
    note = f"they took {grown:.0f} MB, and {memory_mb(server) - before:.0f} MB afterwards"
    yield Figure(
        f"{_MANY} clients that {name}: closed after", took, "s", deadline_s + _LATE_S, note
    )
    yield _slowest(probes)


def _endless(server: Serving) -> Iterator[Figure]:
    with probing(server) as probes:
        began = time.monotonic()
        answer_to(server, endless(b"x", _BEGUN), total=2**28)
        took = time.monotonic() - began
    yield Figure("a header of 256 MiB: refused after", took, "s", 1)
    yield _slowest(probes)


def _slowest(probes: list[float]) -> Figure:
    tail = sorted(probes)[-3:]
    note = f"{len(probes)} asked; slowest {', '.join(f'{1000 * each:.0f}' for each in tail)} ms"
    return Figure("  /health meanwhile, slowest", tail[-1], "s", _HEALTH_S, note)
