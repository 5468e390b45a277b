"""Eight clients beside one poisonous request per second: what each client receives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from myllm.engine.engine import Engine
from tests.fakes.poison import KILLS
from tests.fakes.script import mortal
from tests.hostile.attacks import others_are_served
from tests.serving import Serving, serving, short_home

QUESTIONS = [
    "What is the capital of France?",
    "Count to twenty.",
    "What is MyLLM?",
    "Tell me a story.",
]
CLIENTS = 8
SURE = {"temperature": 0, "seed": 1}
# Engines restart now and then, beside eight clients and on two cores.
SLOWEST_S = 2.0
GRAMMAR = f"root ::= {'(' * 60_000}'a'{')' * 60_000}"
"""A grammar that crashes an engine if the limits on grammars let it pass."""


@dataclass(frozen=True)
class Fire:
    """How many answers the crowd got, the statuses of the poison, and the slowest `/health`."""

    answers: int
    statuses: list[int]
    slowest_s: float


@contextmanager
def mortal_server(engine: Engine, **settings: object) -> Iterator[Serving]:
    """A server whose engines die when a prompt contains a word of `tests/fakes/poison.py`."""
    with (
        short_home() as home,
        serving(
            home, llama_server=mortal(engine, home), cache_dir=home / "cache", slots=4, **settings
        ) as running,
    ):
        yield running


@contextmanager
def unlimited_server() -> Iterator[Serving]:
    """A server without limits on schemas, grammars and samplers."""
    with (
        short_home() as home,
        serving(home, module="tests.hostile.unlimited", slots=4, threads=1) as running,
    ):
        yield running


def answer(api: httpx.Client, text: str, **more: Any) -> httpx.Response:
    """Send `text` as a chat in OpenAI's dialect."""
    messages = [{"role": "user", "content": text}]
    return api.post(
        "/v1/chat/completions", json={"model": "demo", "messages": messages, **SURE, **more}
    )


def text_of(response: httpx.Response) -> str:
    """The text of a successful answer."""
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def unlike_any(text: str) -> str:
    """`text` with a unique ending, so that no earlier request equals this one."""
    return f"{text} {time.monotonic_ns()}"


class Crowd:
    """Eight clients that ask one question after the other and compare each answer."""

    def __init__(self, server: Serving) -> None:
        self._server = server
        with server.client(120) as api:
            self.whole = {each: text_of(answer(api, each)) for each in QUESTIONS}

    def asks_until(self, over: threading.Event) -> int:
        """Return how many answers the clients got; fail if one is missing, or differs from the
        undisturbed answer."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            asking = [pool.submit(self._one, number, over) for number in range(CLIENTS)]
            counts = [each.result() for each in asking]
        assert min(counts) > 0
        return sum(counts)

    def _one(self, number: int, over: threading.Event) -> int:
        answered = 0
        with self._server.client(120) as api:
            while not over.is_set():
                question = QUESTIONS[(number + answered) % len(QUESTIONS)]
                assert text_of(answer(api, question)) == self.whole[question]
                answered += 1
        return answered


def under_fire(server: Serving, seconds: float, *, same: bool, **more: Any) -> Fire:
    """Send poison once per second beside the crowd, whose answers must be as without it."""
    crowd, over, statuses = Crowd(server), threading.Event(), list[int]()

    def poison() -> None:
        try:
            ends = time.monotonic() + seconds
            with server.client(120) as api, ThreadPoolExecutor(32) as pool:
                sent = []
                while time.monotonic() < ends:
                    words = KILLS if same else unlike_any(KILLS)
                    words = "Hello" if more else words
                    sent.append(pool.submit(answer, api, words, **more))
                    time.sleep(1)
                statuses.extend(each.result().status_code for each in sent)
        finally:
            over.set()

    attack = threading.Thread(target=poison)
    with others_are_served(server, SLOWEST_S) as others:
        attack.start()
        answers = crowd.asks_until(over)
        attack.join()
    return Fire(answers, statuses, others.slowest_s)
