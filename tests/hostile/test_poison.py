"""Requests that kill engines: the server detects and refuses them, and answers all other clients.

The engine dies of a word in its prompt or, without the limits on grammars, of a grammar with 60,000
parentheses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.fakes.poison import HANGS, KILLS, KILLS_LATER
from tests.fakes.script import mortal
from tests.hostile.attacks import others_are_served
from tests.hostile.fire import (
    GRAMMAR,
    QUESTIONS,
    SLOWEST_S,
    SURE,
    answer,
    mortal_server,
    text_of,
    under_fire,
    unlike_any,
    unlimited_server,
)
from tests.keys import add_keys
from tests.serving import Serving, serving, short_home

HANG_S = 2.0


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with mortal_server(engine, threads=1, hang_timeout=HANG_S) as running:
        yield running


@pytest.mark.parametrize("word", [KILLS, HANGS])
@pytest.mark.parametrize("stream", [False, True])
def test_poison_gets_a_400_and_is_refused_at_once_the_next_time(
    server: Serving, api: httpx.Client, word: str, stream: bool
) -> None:
    whole = text_of(answer(api, QUESTIONS[0]))
    poison = unlike_any(word)
    with others_are_served(server, SLOWEST_S):
        refused = answer(api, poison, stream=stream, seed=None)
        assert "died again while it worked on this request" in refused.text
        if word == KILLS:  # a hang lasts so long that a stream has sent its headers
            assert refused.status_code == 400
        began = time.monotonic()
        again = answer(api, poison, stream=stream, seed=None)
        assert again.status_code == 400
        assert "has made the engine of model 'demo' die before" in again.text
        assert time.monotonic() - began < 1
        assert text_of(answer(api, QUESTIONS[0])) == whole


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [{"role": "user", "content": KILLS}]}),
        ("/api/generate", {"prompt": KILLS}),
        ("/v1/completions", {"prompt": KILLS, "n": 3}),
        ("/v1/messages", {"messages": [{"role": "user", "content": KILLS}], "max_tokens": 9}),
        ("/v1/responses", {"input": KILLS}),
        ("/ollama/api/chat", {"messages": [{"role": "user", "content": KILLS}]}),
        ("/ollama/api/generate", {"prompt": KILLS, "raw": True}),
        ("/completion", {"prompt": KILLS}),
        ("/v1/embeddings", {"input": KILLS}),
    ],
)
def test_in_every_dialect(
    server: Serving, api: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    text_of(answer(api, QUESTIONS[0]))  # or the engine itself is in doubt after three of them
    with others_are_served(server, SLOWEST_S):
        for says in ("died again", "die before"):
            refused = api.post(path, json={"model": "demo", "stream": False, **body})
            assert refused.status_code == 400, refused.text
            assert says in refused.text


def test_poison_that_kills_in_the_middle_of_an_answer(server: Serving, api: httpx.Client) -> None:
    """The engine dies after it has sent a part of the answer, at each repetition."""
    prompt = f"<|user|>{unlike_any(KILLS_LATER)} Count to one hundred.<|end|><|assistant|>"
    with others_are_served(server, SLOWEST_S):
        response = api.post("/completion", json={"prompt": prompt, "stream": True, **SURE})
        assert "died" in response.text
        assert '"stop":true' not in response.text
        assert answer(api, QUESTIONS[0]).status_code == 200


def test_equal_choices_of_one_request(server: Serving, api: httpx.Client) -> None:
    with others_are_served(server, SLOWEST_S):
        assert answer(api, unlike_any(KILLS), n=4).status_code == 400
        assert answer(api, QUESTIONS[0]).status_code == 200


def test_a_key_that_sends_three_is_refused_for_a_while(engine: Engine) -> None:
    with short_home() as home:
        add_keys(home, eve="eve", ann="ann")
        program, cache = mortal(engine, home), home / "cache"
        with (
            serving(home, llama_server=program, cache_dir=cache) as server,
            server.client() as eve,
            server.client() as ann,
        ):
            eve.headers["Authorization"] = "Bearer eve"
            ann.headers["Authorization"] = "Bearer ann"
            whole = text_of(answer(ann, QUESTIONS[0]))
            with others_are_served(server, SLOWEST_S):
                for number in range(3):
                    assert answer(eve, f"{KILLS} {number}").status_code == 400
                    assert text_of(answer(ann, QUESTIONS[0])) == whole
                paused = answer(eve, QUESTIONS[0])
                assert paused.status_code == 429
                assert 500 < int(paused.headers["retry-after"]) <= 600
                assert eve.get("/v1/models").status_code == 200
                assert text_of(answer(ann, QUESTIONS[0])) == whole


SHORT_S = 4.0


def test_eight_clients_are_answered_beside_the_same_poison(server: Serving) -> None:
    assert set(under_fire(server, SHORT_S, same=True).statuses) == {400}


@pytest.mark.more
def test_eight_clients_are_answered_beside_new_poison_each_time(server: Serving) -> None:
    # 500: three engines died, and the answers of other clients were resumed each time.
    assert set(under_fire(server, 60, same=False).statuses) <= {400, 500}


@pytest.mark.more
def test_eight_clients_are_answered_beside_the_same_poison_for_a_minute(server: Serving) -> None:
    assert set(under_fire(server, 60, same=True).statuses) == {400}


@pytest.fixture
def unlimited(engine: Engine) -> Iterator[Serving]:
    with unlimited_server() as running:
        yield running


@pytest.mark.more
def test_a_grammar_that_crashes_the_engine(unlimited: Serving) -> None:
    """It is also the first request of a fresh server, before any client has been answered."""
    with unlimited.client() as api:
        refused = answer(api, "Hello", grammar=GRAMMAR)
        assert refused.status_code == 400
        assert "died again" in refused.text
    other = GRAMMAR.replace("'a'", "'b'")
    assert set(under_fire(unlimited, 60, same=True, grammar=other).statuses) == {400}
