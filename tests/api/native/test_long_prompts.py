"""Prompts that take more than three quarters of the context, and those that fill it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.ggufs import write_model
from tests.serving import Serving, serving, short_home

CONTEXT = 256
OVERHEAD = 4
"""Tokens of a prompt besides one for each letter: the model's first one, and a space of 3 bytes."""


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """A server with a model of one token per byte, which was trained for 512 tokens."""
    with short_home() as path:
        folder = path / "models" / "bytes"
        write_model(
            folder / "bytes.gguf", template="{% for m in messages %}{{ m.content }}{% endfor %}"
        )
        (folder / "config.json").write_text(json.dumps({"context_size": CONTEXT}))
        with serving(path) as running:
            yield running


def chat(api: httpx.Client, tokens: int, **fields: object) -> httpx.Response:
    """Send a prompt of so many tokens."""
    messages = [{"role": "user", "content": "a" * (tokens - OVERHEAD)}]
    body = {"model": "bytes", "messages": messages, "stream": False, "options": {"temperature": 0}}
    return api.post("/api/chat", json=body | fields)


@pytest.mark.parametrize("tokens", [193, 230, 255])
def test_the_answer_gets_what_is_left(api: httpx.Client, tokens: int) -> None:
    answer = chat(api, tokens).raise_for_status().json()
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens"] == tokens
    assert answer["usage"]["completion_tokens"] == CONTEXT - tokens


def test_earlier_turns_make_room_first(api: httpx.Client) -> None:
    answer = chat(api, 100, session_id="long").raise_for_status().json()
    answer = chat(api, 230, session_id="long").raise_for_status().json()
    assert (answer["truncated"], answer["dropped_messages"]) == (True, 2)
    assert answer["usage"]["total_tokens"] == CONTEXT


@pytest.mark.parametrize("tokens", [256, 300])
def test_no_room_for_one_token_is_refused_with_what_to_do(api: httpx.Client, tokens: int) -> None:
    answer = chat(api, tokens)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(
        f"Prompt too long for context window (256 tokens): {tokens} tokens; "
        "set \"context_size\": 512 in the config.json of model 'bytes', which takes about "
    )


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/ollama/api/chat", "/api/chat"])
def test_every_dialect_says_what_the_model_can_hold_at_most(api: httpx.Client, path: str) -> None:
    body = {"model": "bytes", "messages": [{"role": "user", "content": "a" * 512}]}
    answer = api.post(path, json=body)
    assert answer.status_code == 400
    assert "the model was trained for at most 512 tokens, so shorten the prompt" in answer.text


@pytest.mark.parametrize(("tokens", "status"), [(193, 200), (255, 200), (256, 400)])
def test_responses_do_the_same(api: httpx.Client, tokens: int, status: int) -> None:
    body = {"model": "bytes", "input": "a" * (tokens - OVERHEAD), "temperature": 0}
    answer = api.post("/v1/responses", json=body)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["incomplete_details"] == {"reason": "max_output_tokens"}
        assert answer.json()["usage"]["output_tokens"] == CONTEXT - tokens
