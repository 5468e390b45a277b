"""Requests that send an engine's main thread into a computation without end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

# Long enough for a machine that runs ten other programs at the same time.
SOON_S = 60.0
ENDLESS: dict[str, dict[str, Any]] = {
    "pattern": {
        "json_schema": {"type": "string", "pattern": "^((((a{0,99}){0,99}){0,99}){0,99})$"}
    },
    "grammar": {
        "grammar": "root ::= a{0,99}\na ::= b{0,99}\nb ::= c{0,99}\nc ::= d{0,99}\nd ::= [a]"
    },
    "breakers": {
        "dry_multiplier": 1,
        "dry_sequence_breakers": [f"{n} is long enough" for n in range(400_000)],
    },
}
"""Fields of `/completion`."""


@contextmanager
def attacked(engine: Path, **fields: Any) -> Iterator[None]:
    """While the block runs, a client waits for the engine on this socket to answer these fields."""
    body = {"prompt": "a", "n_predict": 5, "stream": True, "sse_ping_interval": -1} | fields
    transport = httpx.HTTPTransport(uds=str(engine))
    with httpx.Client(transport=transport, base_url="http://engine", timeout=SOON_S) as client:

        def attack() -> None:
            with suppress(httpx.HTTPError):  # replacing the engine cuts the connection
                client.post("/completion", content=json.dumps(body))

        attacking = threading.Thread(target=attack, daemon=True)
        attacking.start()
        yield
        attacking.join(SOON_S)
        assert not attacking.is_alive()


def is_caught(engine: Path) -> bool:
    """Whether the engine on this socket fails to report its slots within a second."""
    transport = httpx.HTTPTransport(uds=str(engine))
    with httpx.Client(transport=transport, base_url="http://engine", timeout=1) as client:
        try:
            client.get("/slots")
        except httpx.ReadTimeout:
            return True
    return False
