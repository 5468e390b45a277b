"""API keys for tests, and the headers that carry them."""

from __future__ import annotations

from tests.serving import Serving

ANN, BOB = "ann-key-0123456789", "bob-key-0123456789"
APP = "https://app.example"
PROXY = "127.0.0.2"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def port_of(server: Serving) -> int:
    return int(server.url.rsplit(":", 1)[1])
