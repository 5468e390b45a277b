"""Comments keep a stream open while its prompt is read, in every dialect that has comments."""

from __future__ import annotations

import itertools
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.serving import Serving

AT_LEAST_EVERY_S = 5.0
# What a busy machine may add.
_GRACE_S = 3.0
# Two comments, and the time before and after them.
_READING_S = 12.0
_MESSAGES = [{"role": "user", "content": "Hello"}]
_REQUESTS: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "Hello"},
    "/api/chat": {"messages": _MESSAGES},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/chat/completions": {"messages": _MESSAGES},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": _MESSAGES, "max_tokens": 8},
    "/completion": {"prompt": "Hello", "n_predict": 8},
}


def _stream(server: Serving, path: str) -> tuple[list[float], bytes]:
    """Return when each part of the stream arrived, in seconds since the request, and the stream."""
    times, parts = [time.monotonic()], []
    body = {"model": "demo", "stream": True} | _REQUESTS[path]
    with server.client() as client, client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        for part in answer.iter_raw():
            times.append(time.monotonic())
            parts.append(part)
    return times, b"".join(parts)


@pytest.fixture
def loaded(server: Serving, api: httpx.Client) -> int:
    """Return the process of the only engine, with the routes of all dialects loaded."""
    api.post("/api/models/demo/load").raise_for_status()
    api.get("/v1/models").raise_for_status()
    [engine] = server.engines()
    return engine.pid


def test_a_comment_is_sent_every_five_seconds_while_prompts_are_read(
    server: Serving, loaded: int
) -> None:
    """A suspended engine looks like one that reads one long batch."""
    os.kill(loaded, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(_REQUESTS)) as pool:
            asked = {path: pool.submit(_stream, server, path) for path in _REQUESTS}
            time.sleep(_READING_S)
            os.kill(loaded, signal.SIGCONT)
            answers = {path: each.result() for path, each in asked.items()}
    finally:
        os.kill(loaded, signal.SIGCONT)
    for path, (times, content) in answers.items():
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert max(gaps) < AT_LEAST_EVERY_S + _GRACE_S, (path, gaps)
        assert content.count(b"\n\n: ") + content.startswith(b": ") >= 2, (path, content[:300])
