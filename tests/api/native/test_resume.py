"""A client does not notice that the engine was killed while it answered.

Here the engine is killed from outside, at an arbitrary moment; `tests/gateway` cuts the
stream at every event.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import parse, post, stream
from tests.serving import Serving, serving, short_home, wait_until

QUESTIONS = ["Count to one hundred.", "Tell me a long story.", "Show me some emoji."]
OPTIONS = {"temperature": 0, "repeat_penalty": 1.1, "seed": 3}
LONG = {"type": "array", "items": {"type": "integer"}, "minItems": 1000}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as path, serving(path, slots=8, threads=1, hang_timeout=2) as running:
        yield running


def chat(question: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": "demo", "messages": messages, "options": OPTIONS} | more


def deaths(server: Serving) -> int:
    """Return how often requests noticed the death of their engine."""
    return server.log.count("engine died under a request")


def tell_engine(server: Serving, number: signal.Signals) -> None:
    for engine in server.engines():
        engine.send_signal(number)


def kill(server: Serving) -> None:
    tell_engine(server, signal.SIGKILL)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def told(end: dict[str, Any]) -> list[Any]:
        usage = end["usage"]
        return [
            end["full_text"], end["finish_reason"], end["token_count"], usage["prompt_tokens"],
        ]  # fmt: skip

    return told(one) == told(other)


class Reader:
    """A client that reads a stream in its own thread."""

    def __init__(self, server: Serving, question: str) -> None:
        self.question = question
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, args=(server,))
        self._thread.start()

    def _read(self, server: Serving) -> None:
        body = chat(self.question)
        with server.client() as client, client.stream("POST", "/api/chat", json=body) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.events.append(parse(line))

    def whole(self) -> dict[str, Any]:
        """Return the last event, after checking that the tokens before it make up its text."""
        self._thread.join(60)
        *tokens, end = self.events
        assert "".join(token["token"] for token in tokens) == end["full_text"]
        return end


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
@pytest.mark.more
def test_eight_streams_and_one_signal(
    server: Serving, api: httpx.Client, number: signal.Signals
) -> None:
    """The engine is killed, hangs, or gets SIGTERM, after which it may still send tokens."""
    whole = {question: stream(api, "/api/chat", **chat(question))[1] for question in QUESTIONS}
    before = deaths(server)
    tell_engine(server, signal.SIGSTOP)
    readers = [Reader(server, QUESTIONS[each % 2]) for each in range(8)]
    wait_until(lambda: api.get("/health").json()["active"] == 8, 30, "eight requests")
    while not all(reader.events for reader in readers):
        tell_engine(server, signal.SIGCONT)
        time.sleep(0.01)
        tell_engine(server, signal.SIGSTOP)
        time.sleep(0.02)
    assert not any(reader.events[-1]["done"] for reader in readers)
    tell_engine(server, number)
    if number == signal.SIGTERM:
        tell_engine(server, signal.SIGCONT)
    for reader in readers:
        assert same(reader.whole(), whole[reader.question])
    # An engine that gets SIGTERM may finish an answer before it exits.
    least = 1 if number == signal.SIGTERM else 8
    assert least <= deaths(server) - before <= 8


def test_each_token_is_sent_once(server: Serving, api: httpx.Client) -> None:
    """The client kills the engine as soon as it has read a few tokens."""
    _, whole = stream(api, "/api/generate", model="demo", prompt=QUESTIONS[0], options=OPTIONS)
    body = {"model": "demo", "prompt": QUESTIONS[0], "options": OPTIONS}
    events = []
    with api.stream("POST", "/api/generate", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(parse(line))
                if len(events) == 3:
                    kill(server)
    *tokens, end = events
    assert same(end, whole)
    assert "".join(token["token"] for token in tokens) == whole["full_text"]


def test_an_answer_that_is_no_stream(server: Serving, api: httpx.Client) -> None:
    options = OPTIONS | {"max_tokens": 1500}
    body = {"model": "demo", "prompt": "Numbers:", "stream": False, "options": options}
    whole = post(api, "/api/generate", **body, format=LONG)
    before = deaths(server)
    with ThreadPoolExecutor(1) as pool, server.client() as client:
        answer = pool.submit(post, client, "/api/generate", **body, format=LONG)
        wait_until(lambda: api.get("/health").json()["active"] == 1, 30, "an answer")
        time.sleep(0.1)
        kill(server)
        again = answer.result()
    assert deaths(server) == before + 1
    assert again["text"] == whole["text"]
    assert again["finish_reason"] == whole["finish_reason"] == "length"
    assert again["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 1500


def test_waiting_requests_are_served_by_the_new_engine(engine: Engine) -> None:
    with short_home() as path, serving(path, slots=1, threads=1) as server, server.client() as api:
        _, whole = stream(api, "/api/chat", **chat(QUESTIONS[0]))

        def ask(_: int) -> dict[str, Any]:
            with server.client() as client:
                return stream(client, "/api/chat", **chat(QUESTIONS[0]))[1]

        with ThreadPoolExecutor(5) as pool:
            tell_engine(server, signal.SIGSTOP)
            answers = [pool.submit(ask, number) for number in range(5)]
            wait_until(lambda: api.get("/health").json()["queued"] == 4, 30, "a queue")
            kill(server)
            assert all(same(answer.result(), whole) for answer in answers)


def test_a_session_remembers_an_answer_that_was_cut(server: Serving, api: httpx.Client) -> None:
    with api.stream("POST", "/api/chat", json=chat(QUESTIONS[1], session_id="cut")) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        next(lines)
        kill(server)
        end = [parse(line) for line in lines][-1]
    turn = chat("And now?", session_id="cut", stream=False)
    history = [
        {"role": "user", "content": QUESTIONS[1]},
        {"role": "assistant", "content": end["full_text"]},
        {"role": "user", "content": "And now?"},
    ]
    remembered = post(api, "/api/chat", **turn)
    told = post(api, "/api/chat", model="demo", messages=history, stream=False, options=OPTIONS)
    assert remembered["usage"]["prompt_tokens"] == told["usage"]["prompt_tokens"]
    assert remembered["message"] == told["message"]


def test_embeddings(server: Serving, api: httpx.Client) -> None:
    texts = ["word " * 200] * 60
    whole = post(api, "/api/embeddings", model="demo", input=texts)
    before = deaths(server)
    with ThreadPoolExecutor(1) as pool, server.client() as client:
        answer = pool.submit(post, client, "/api/embeddings", model="demo", input=texts)
        wait_until(lambda: api.get("/health").json()["active"] == 1, 30, "an answer")
        time.sleep(0.05)
        kill(server)
        again = answer.result()
    assert deaths(server) == before + 1
    assert again["usage"] == whole["usage"]
    assert again["embeddings"][-1] == pytest.approx(whole["embeddings"][-1], abs=1e-4)
