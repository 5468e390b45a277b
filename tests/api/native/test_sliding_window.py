"""A model with a sliding window, whose saved KV state would be of no use."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.encoders import WINDOW, write_gemma2
from tests.serving import Serving, serving, short_home

OPTIONS = {"temperature": 0, "max_tokens": 8}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        write_gemma2(home / "models/gemma/gemma.gguf")
        with serving(home) as running:
            yield running


def turn(api: httpx.Client, text: str, session: str) -> dict[str, int]:
    """One more turn; returns its usage."""
    messages = [{"role": "user", "content": text}]
    body = {"model": "gemma", "messages": messages, "session_id": session, "options": OPTIONS}
    usage: dict[str, int] = post(api, "/api/chat", stream=False, **body)["usage"]
    return usage


def test_a_conversation_longer_than_its_window(api: httpx.Client, server: Serving) -> None:
    first = turn(api, "a" * WINDOW, "long")
    assert first["prompt_tokens"] > WINDOW
    second = turn(api, "and then", "long")
    assert second["prompt_tokens"] > first["prompt_tokens"]
    assert second["cached_tokens"] > 0, "the slot still has the window"
    assert post(api, "/api/models/gemma/unload")["status"] == "success"
    third = turn(api, "and now", "long")
    assert third["prompt_tokens"] > second["prompt_tokens"]
    assert third["cached_tokens"] == 0, "everything is read anew"
    assert not list((server.home / "data").rglob("*.kv")), "no state was saved"
    why = f"the model's sliding window of {WINDOW} tokens forgets its states"
    [one] = api.get("/api/instances").json()["instances"]
    assert one["kv_restore"] == api.get("/api/models/gemma").json()["kv_restore"] == why
