"""A server with API keys and rules for hosts, origins and proxies."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import ANN, APP, BOB, PROXY
from tests.keys import add_keys
from tests.serving import Serving, serving, short_home


@pytest.fixture(scope="module")
def locked(engine: Engine) -> Iterator[Serving]:
    """A server with every rule set; its keys are Ann's, who is an admin, and Bob's."""
    with short_home() as home:
        add_keys(home, "admin", ann=ANN)
        add_keys(home, bob=BOB)
        with serving(
            home,
            allowed_hosts="ai.example",
            cors_origins=f"{APP}/",
            trusted_proxies=f"{PROXY}/32, 10.0.0.0/8",
        ) as running:
            yield running


@pytest.fixture
def door(locked: Serving) -> Iterator[httpx.Client]:
    """A client of that server that sends no key by itself."""
    with locked.client() as client:
        yield client
