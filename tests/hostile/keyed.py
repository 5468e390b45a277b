"""A server with keys, for attacks by one key on another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from myllm.api.http.keys import added
from tests.api.credentials import bearer
from tests.serving import Serving, serving

ANN, BOB, EVE = (f"{name}-key-0123456789" for name in ("ann", "bob", "eve"))


@contextmanager
def keyed(home: Path, **settings: object) -> Iterator[Serving]:
    """A server that accepts the keys of Ann, Bob and Eve."""
    file, text = home / "keys", ""
    for name, key in (("ann", ANN), ("bob", BOB), ("eve", EVE)):
        text = added(text, file, name, key)
    file.write_text(text)
    file.chmod(0o600)
    with serving(home, api_keys_file=file, **settings) as server:
        yield server


@contextmanager
def asking_as(server: Serving, key: str, timeout: float = 60) -> Iterator[httpx.Client]:
    """A client that sends `key` with each request."""
    with server.client(timeout) as client:
        client.headers.update(bearer(key))
        yield client
