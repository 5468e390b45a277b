"""A server with keys, for attacks by one key on another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.api.credentials import bearer
from tests.keys import add_keys
from tests.serving import Serving, serving

ANN, BOB, EVE = (f"{name}-key-0123456789" for name in ("ann", "bob", "eve"))


@contextmanager
def keyed(home: Path, **settings: object) -> Iterator[Serving]:
    """A server that accepts the keys of Ann, Bob and Eve."""
    add_keys(home, ann=ANN, bob=BOB, eve=EVE)
    with serving(home, **settings) as server:
        yield server


@contextmanager
def asking_as(server: Serving, key: str, timeout: float = 60) -> Iterator[httpx.Client]:
    """A client that sends `key` with each request."""
    with server.client(timeout) as client:
        client.headers.update(bearer(key))
        yield client
