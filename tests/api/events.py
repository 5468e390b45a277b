"""Reading a stream of server-sent events in tests."""

from __future__ import annotations

import json
from typing import Any

import httpx


def post(api: httpx.Client, path: str, **body: Any) -> Any:
    """Return the JSON of a successful answer."""
    answer = api.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(api: httpx.Client, path: str, **body: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the tokens of a stream, and its terminal event, which must be the last."""
    with api.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = [parse(line) for line in answer.iter_lines() if line.startswith("data: ")]
    *tokens, last = events
    assert last["done"] is True
    assert all(token["done"] is False for token in tokens)
    return [token["token"] for token in tokens], last


def parse(line: str) -> dict[str, Any]:
    """Return the JSON of one `data: ` line."""
    event: dict[str, Any] = json.loads(line[len("data: ") :])
    return event


def detail(answer: httpx.Response, status: int) -> str:
    """Return the sentence of an error answer, which must have this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    text: str = answer.json()["detail"]
    return text
