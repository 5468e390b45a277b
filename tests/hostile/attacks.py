"""Checks for every attack: the server answers other clients in time and frees its memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import psutil

from tests.serving import Serving, wait_until

# Ten times the 50 ms within which /health answers on a calm machine.
SLOWEST_S = 0.5
GROWS_MB = 100.0
_EVERY_S = 0.02
_SETTLES_S = 10.0


@dataclass
class Others:
    """What the other clients of a server saw while it was attacked."""

    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def slowest_s(self) -> float:
        return max(self.took_s)


@contextmanager
def others_are_served(
    server: Serving, slowest_s: float = SLOWEST_S, grows_mb: float = GROWS_MB
) -> Iterator[Others]:
    """Request /health all the time while the block runs; fail if an answer is missing or late.

    Fail also if, some seconds after the block, the server's memory is still `grows_mb` larger
    than before.
    """
    before, others, over = memory_mb(server), Others(), threading.Event()
    asking = threading.Thread(target=_ask, args=(server, others, over), daemon=True)
    asking.start()
    try:
        yield others
    finally:
        over.set()
        asking.join(60)
    assert not asking.is_alive(), "/health was not answered within a minute"
    assert not others.failures, others.failures[:3]
    assert others.slowest_s < slowest_s, f"/health took {others.slowest_s:.2f} s"
    wait_until(
        lambda: memory_mb(server) < before + grows_mb,
        _SETTLES_S,
        f"memory back from {memory_mb(server):.0f} to about {before:.0f} MB",
    )


def memory_mb(server: Serving) -> float:
    """Resident memory of the server's own process, without its engines."""
    return psutil.Process(server.process.pid).memory_info().rss / 1e6


def _ask(server: Serving, others: Others, over: threading.Event) -> None:
    with server.client(timeout=60) as client:
        while not over.is_set() or not others.took_s:
            began = time.monotonic()
            try:
                answer = client.get("/health")
                if answer.status_code != 200:
                    others.failures.append(f"{answer.status_code}: {answer.text[:200]}")
            except httpx.HTTPError as failure:
                others.failures.append(repr(failure))
            others.took_s.append(time.monotonic() - began)
            over.wait(_EVERY_S)
