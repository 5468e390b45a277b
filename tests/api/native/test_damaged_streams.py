"""An engine's stream is damaged on its way: the client gets a whole answer, or one error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.fakes.damage import DAMAGES
from tests.fakes.script import damaging
from tests.serving import Serving, serving, short_home

PARIS = "The capital of France is Paris."
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
NATIVE, OPENAI = "/api/chat", "/v1/chat/completions"
ERRORS = {
    "invalid UTF-8": "The engine sent what is not UTF-8",
    "an error": "The engine failed: it is full",
    "stops in an event": "The engine ended its answer in the middle of an event",
    "ends in no JSON": "The engine sent what is not JSON",
}
"""The damage that cannot be repaired, and its error; after other damage the answer is whole."""


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        script = damaging(engine, home)
        with serving(home, llama_server=script, cache_dir=home / "cache") as running:
            yield running


def told(api: httpx.Client, path: str) -> tuple[str, str | None]:
    """Return the text of a stream and its error; all of it must be well-formed."""
    asked = {"model": "demo", "messages": FRANCE, "stream": True}
    with api.stream("POST", path, json=asked) as answer:
        body = b"".join(answer.iter_bytes()).decode()
    if answer.status_code != 200:
        failure = json.loads(body)
        return "", failure["detail"] if path == NATIVE else failure["error"]["message"]
    *events, rest = body.split("\n\n")
    assert rest == ""
    data = [each.removeprefix("data: ") for each in events if not each.startswith(":")]
    if path == OPENAI and data[-1] == "[DONE]":
        data.pop()
    *pieces, last = map(json.loads, data)
    assert not any("error" in piece for piece in pieces)
    texts = [text_of(piece) for piece in (*pieces, last)]
    error = last.get("error")
    return "".join(texts), error["message"] if isinstance(error, dict) else error


def text_of(piece: dict[str, Any]) -> str:
    if "choices" in piece:
        return "".join(choice["delta"].get("content") or "" for choice in piece["choices"])
    return piece.get("token") or ""


@pytest.mark.parametrize("path", [NATIVE, OPENAI])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stream(server: Serving, api: httpx.Client, path: str, damage: str) -> None:
    fault = server.home / "fault"
    fault.write_text(damage)
    text, error = told(api, path)
    assert not fault.exists()
    if damage in ERRORS:
        assert PARIS.startswith(text)
        assert error is not None
        assert error.startswith(ERRORS[damage])
    elif damage == "a megabyte":
        assert (text.count("x"), error) == (2**20, None)
    else:
        assert (text, error) == (PARIS, None)
    assert told(api, path) == (PARIS, None)
