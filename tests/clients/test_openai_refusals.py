"""Errors of OpenAI's client for Python at a server that requires keys and has a short queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import ANN, bearer
from tests.clients.questions import ASKED, UNENDING
from tests.keys import add_keys
from tests.serving import Serving, serving, short_home, wait_until

pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """A server with one slot and one place in the queue."""
    with short_home() as home:
        add_keys(home, ann=ANN)
        with serving(home, slots=1, queue_size=1) as running:
            yield running


def client(server: Serving, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def test_a_wrong_key(server: Serving) -> None:
    for stream in (False, True):
        with (
            client(server, "sk-wrong") as stranger,
            pytest.raises(openai.AuthenticationError) as refused,
        ):
            stranger.chat.completions.create(model="demo", messages=ASKED, stream=stream)
        assert refused.value.code == "invalid_api_key"
    with client(server, ANN) as ann:
        assert [model.id for model in ann.models.list()] == ["demo"]


def test_a_queue_that_is_full(server: Serving) -> None:
    """Two streams have begun: the server answers one, the other waits."""

    def are(active: int, queued: int) -> bool:
        with server.client() as api:
            health = api.get("/health", headers=bearer(ANN)).json()
        return bool(health["active"] == active and health["queued"] == queued)

    unending: Any = {"model": "demo", "prompt": "Numbers:", "stream": True, **UNENDING}
    with client(server, ANN) as ann:
        running = ann.completions.create(**unending)
        [engine] = server.engines()
        engine.suspend()  # or it would finish before the second request arrives
        waiting = ann.completions.create(**unending)
        wait_until(lambda: are(1, 1), 30, "a waiting request")
        with pytest.raises(openai.RateLimitError) as full:
            ann.chat.completions.create(model="demo", messages=ASKED)
        assert full.value.code == "rate_limit_exceeded"
        assert int(full.value.response.headers["Retry-After"]) >= 1
        waiting.close()
        running.close()
        engine.resume()
        wait_until(lambda: are(0, 0), 30, "a free slot")
        answer = ann.chat.completions.create(model="demo", messages=ASKED)
        assert answer.choices[0].message.content
