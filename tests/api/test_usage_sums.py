"""The sums of usage equal what the clients were told, whatever happened to engines and store."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import httpx
import psutil
import pytest

from myllm.engine.engine import Engine
from tests.api.askers import (
    Ask,
    Told,
    add_models,
    embeddings,
    infills,
    nothing,
    ollama,
    openai,
    questions,
    rankings,
    try_to_ask,
)
from tests.api.credentials import bearer
from tests.keys import add_keys
from tests.serving import Serving, serving, short_home, stop

REQUESTS, CLIENTS = 2000, 8
KEYS = {name: f"key-of-{name}-0123456789" for name in ("ann", "bob", "carl")}
ADMIN = "key-of-the-admin-0123456789"
TEXTS = ["a dog barks", "a cat is an animal", "zzz"]
TOO_LONG = "word " * 5000
COUNTED = ("requests", "errors", "prompt_tokens", "cached_tokens", "generated_tokens")

Sums = dict[tuple[str, str], Counter[str]]


@pytest.fixture
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        models = home / "models"
        add_models(models)
        add_keys(home, "admin", admin=ADMIN)
        add_keys(home, **KEYS)
        with serving(home, threads=1, slots=4, hang_timeout=30) as running:
            yield running


def mixed(chance: random.Random) -> tuple[str, Ask]:
    """Return a model and a request to it. One in fifty fails, for a prompt that is too long."""
    tokens = chance.randint(1, 24)
    if chance.random() < 0.02:
        return "demo", chance.choice(questions(TOO_LONG, tokens))
    kind = chance.random()
    if kind < 0.05:
        return "gemma", chance.choice(infills(tokens))
    if kind < 0.15:
        return "bert", chance.choice(embeddings(TEXTS[: chance.randint(1, 3)]))
    if kind < 0.2:
        return "ranker", chance.choice(rankings("what is a cat", TEXTS))
    words = ["Count to one hundred.", "Tell me a story.", "What is the capital of France?"]
    model = "tooled" if kind < 0.3 else "demo"
    return model, chance.choice(questions(chance.choice(words), tokens))


def key_of(asked: Ask) -> str:
    """Return who asks: Ann is told all counts, Bob not those of the cache, Carl perhaps none."""
    usage_is_left_out = (
        asked.told is openai
        and asked.path in ("/v1/chat/completions", "/v1/completions")
        and asked.body.get("stream")
        and "stream_options" not in asked.body
    )
    if asked.told is nothing or usage_is_left_out:
        return "carl"
    has_many = asked.body.get("n_cmpl")
    return "bob" if asked.told is ollama or has_many or "input" in asked.body else "ann"


class Clients:
    """Send mixed requests, a few at a time, and add up what they are told."""

    def __init__(self, server: Serving) -> None:
        self.sums: Sums = {}
        self._server = server
        self._guard = threading.Lock()

    def send(self, count: int) -> None:
        with self._server.client(timeout=170) as api, ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(lambda number: self._one(api, number), range(count)))

    def _one(self, api: httpx.Client, number: int) -> None:
        model, asked = mixed(random.Random(number))
        key = key_of(asked)
        told, _ = try_to_ask(api, asked, model, bearer(KEYS[key]))
        with self._guard:
            sums = self.sums.setdefault((key, model), Counter())
            sums["requests"] += 1
            if told is None:
                sums["errors"] += 1
            else:
                self._add(sums, told)

    def _add(self, sums: Counter[str], told: Told) -> None:
        sums["prompt_tokens"] += told.prompt or 0
        sums["cached_tokens"] += told.cached or 0
        sums["generated_tokens"] += told.generated or 0


def kill_engines(server: Serving, done: threading.Event) -> None:
    """Kill an engine twice per second, mostly while it answers."""
    chance = random.Random(7)
    while not done.wait(0.5):
        with suppress(IndexError, psutil.NoSuchProcess):
            chance.choice(server.engines()).kill()


def lock_store(server: Serving, done: threading.Event) -> None:
    """Keep the server from writing to its store for seven seconds, again and again."""
    file = server.home / "data" / "myllm.db"
    while not done.wait(10):
        with closing(sqlite3.connect(file, isolation_level=None, timeout=10)) as other:
            other.execute("BEGIN IMMEDIATE")
            done.wait(7)
            other.execute("ROLLBACK")


def stored(server: Serving) -> Sums:
    """Return the server's sums, by key and model."""
    sums: Sums = {}
    with server.client() as api:
        api.headers.update(bearer(ADMIN))
        for key in KEYS:
            found = api.get("/api/usage", params={"by": "model", "key": key}).json()
            for each in found["usage"]:
                sums[key, each["model"]] = Counter({name: each[name] for name in COUNTED})
    return sums


def compared(sums: Sums) -> dict[tuple[str, str], dict[str, int]]:
    """Return what the clients of each key know."""
    known: dict[str, tuple[str, ...]] = {
        "ann": COUNTED,
        "bob": tuple(name for name in COUNTED if name != "cached_tokens"),
        "carl": ("requests", "errors"),
    }
    return {place: {name: each[name] for name in known[place[0]]} for place, each in sums.items()}


def requests(sums: Sums) -> int:
    return sum(each["requests"] for each in sums.values())


@pytest.mark.more
@pytest.mark.timeout(900)
def test_the_sums_equal_what_the_clients_were_told(server: Serving) -> None:
    done, clients = threading.Event(), Clients(server)
    troubles = [
        threading.Thread(target=each, args=(server, done)) for each in (kill_engines, lock_store)
    ]
    for each in troubles:
        each.start()
    try:
        clients.send(REQUESTS)
    finally:
        done.set()
        for each in troubles:
            each.join()
    ends_at = time.monotonic() + 30
    while requests(found := stored(server)) < REQUESTS and time.monotonic() < ends_at:
        time.sleep(0.1)
    assert compared(found) == compared(clients.sums)
    assert {model for _, model in found} == {"demo", "tooled", "gemma", "bert", "ranker"}
    assert all(sums["prompt_tokens"] > 0 for sums in found.values())
    failed = sum(sums["errors"] for sums in found.values())
    assert REQUESTS / 200 < failed < REQUESTS / 10
    deaths = server.log.count("engine died under a request")
    print(f"{failed} failed; {deaths} deaths under requests")
    assert deaths > 10
    stop(server.process)
    with closing(sqlite3.connect(server.home / "data" / "myllm.db")) as store:
        columns = ", ".join(f"sum({name})" for name in COUNTED)
        last = store.execute(f"SELECT key, model, {columns} FROM usage GROUP BY key, model")
        rows = {(key, model): dict(zip(COUNTED, sums, strict=True)) for key, model, *sums in last}
    assert rows == {place: dict(sums) for place, sums in found.items()}


def test_a_user_sees_the_usage_of_their_own_key_alone(server: Serving) -> None:
    Clients(server).send(40)
    seen: dict[str, Any] = {}
    with server.client() as api:
        for key in ("ann", "bob"):
            answer = api.get("/api/usage", params={"by": "key"}, headers=bearer(KEYS[key]))
            seen[key] = [each["key"] for each in answer.json()["usage"]]
        refused = api.get("/api/usage", params={"key": "bob"}, headers=bearer(KEYS["ann"]))
    assert seen == {"ann": ["ann"], "bob": ["bob"]}
    assert refused.status_code == 403
