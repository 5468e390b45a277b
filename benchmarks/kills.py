"""`kill -9` of llama-server again and again, while clients must not notice anything."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import psutil

from benchmarks.figures import Figure
from benchmarks.leaks import Held, fill_pools, settled
from benchmarks.servers import myllm_server
from tests.serving import Serving

KILLS = 200
_CLIENTS = 8
# Not closer: by design, three deaths without a token between them end a request.
_PAUSE_S = (0.25, 0.95)
_QUESTIONS = ("Count to one hundred.", "Tell me a long story.", "Show me some emoji.")
# At temperature 0, so that answers can be compared.
_OPTIONS = {"temperature": 0, "repeat_penalty": 1.0}


def measure(kills: int = KILLS) -> list[Figure]:
    """Warm up, take stock, kill engines under load, take stock again."""
    with myllm_server() as server:
        load = _Load(server)
        load.run(kills=max(3, kills // 2))
        fill_pools(server)
        process = psutil.Process(server.process.pid)
        before = settled(process)
        load.asked, load.failed = 0, Counter()
        started = time.monotonic()
        load.run(kills)
        took = time.monotonic() - started
        return _figures(load, kills, took, before, settled(process))


def _figures(load: _Load, kills: int, took: float, before: Held, after: Held) -> list[Figure]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in load.failed.most_common(3))
    note = kinds or f"{load.asked} requests in {took:.0f} s, {_CLIENTS} clients"
    grown = 100 * (after.rss_mb / before.rss_mb - 1)
    files = f"{before.files} to {after.files}"
    threads = f"{before.threads} to {after.threads}"
    engines = f"{len(before.children)} to {len(after.children)}"
    return [
        Figure(f"{kills} kills: failed requests", load.failed.total(), "", 0, note),
        Figure("  answers that were cut and went on", load.resumed(), ""),
        Figure("  open files more", after.files - before.files, "", 0, files),
        Figure("  threads more", after.threads - before.threads, "", 0, threads),
        Figure("  engines more", len(after.children) - len(before.children), "", 0, engines),
        Figure("  RSS grown", grown, "%", 10, f"{before.rss_mb:.1f} to {after.rss_mb:.1f} MB"),
    ]


class _Load:
    """Clients that compare each answer, while a thread kills engines."""

    def __init__(self, server: Serving) -> None:
        self._server = server
        self._over = threading.Event()
        self.asked = 0
        self.failed: Counter[str] = Counter()
        with server.client() as api:
            self._whole = {question: _chat(api, question) for question in _QUESTIONS}
            self._vectors = _embed(api)

    def resumed(self) -> int:
        """How many requests lost their engine."""
        return self._server.log.count("engine died under a request")

    def run(self, kills: int) -> None:
        self._over.clear()
        with ThreadPoolExecutor(_CLIENTS) as pool:
            clients = [pool.submit(self._client, number) for number in range(_CLIENTS)]
            try:
                self._kill(kills)
            finally:
                self._over.set()
            for client in clients:
                client.result()
        with self._server.client() as api:  # so that both engines run at every check
            _chat(api, _QUESTIONS[0])
            _embed(api)

    def _kill(self, kills: int) -> None:
        """Kill engines that have been ready for a while, so that each could send some tokens."""
        chance = random.Random(7)
        done = 0
        with self._server.client() as api:
            while done < kills:
                ready = _ready(api)
                time.sleep(chance.uniform(*_PAUSE_S))
                engines = [each for each in self._server.engines() if each.pid in ready]
                if engines:
                    chance.choice(engines).kill()
                    done += 1

    def _client(self, number: int) -> None:
        chance = random.Random(number)
        with self._server.client(timeout=120) as api:
            while not self._over.is_set():
                what = "request"
                try:
                    what = self._one(api, chance)
                except (httpx.HTTPError, AssertionError, KeyError) as failure:
                    what = f"{type(failure).__name__} {str(failure)[:200]}"
                self.asked += 1
                if what:
                    self.failed[what] += 1

    def _one(self, api: httpx.Client, chance: random.Random) -> str:
        """Send one request; return what is wrong with its answer, or an empty text."""
        if chance.random() < 0.1:
            near = all(
                abs(one - other) < 1e-3
                for one, other in zip(_embed(api), self._vectors, strict=True)
            )
            return "" if near else "another embedding"
        question = chance.choice(_QUESTIONS)
        answer = _chat(api, question, stream=chance.random() < 0.7)
        return "" if answer == self._whole[question] else f"another answer to {question}"


def _ready(api: httpx.Client) -> set[int]:
    """The pids of the engines that are ready."""
    shown = api.get("/api/instances").json()["instances"]
    return {each["pid"] for each in shown if each["state"] == "ready"}


def _chat(api: httpx.Client, question: str, stream: bool = False) -> tuple[str, str, int]:
    """Text, finish_reason and tokens."""
    messages = [{"role": "user", "content": question}]
    body: dict[str, Any] = {"model": "demo", "messages": messages, "options": _OPTIONS}
    answer = api.post("/api/chat", json=body | {"stream": stream})
    assert answer.status_code == 200, answer.text
    if not stream:
        whole = answer.json()
        return whole["message"]["content"], whole["finish_reason"], _tokens(whole)
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    *tokens, end = [orjson.loads(event) for event in events]
    assert "error" not in end, end
    assert "".join(token["token"] for token in tokens) == end["full_text"], "tokens lost or twice"
    return end["full_text"], end["finish_reason"], _tokens(end)


def _tokens(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["completion_tokens"])


def _embed(api: httpx.Client) -> list[float]:
    answer = api.post("/api/embeddings", json={"model": "demo", "input": "Hello, world!"})
    assert answer.status_code == 200, answer.text
    vector: list[float] = answer.json()["embedding"]
    return vector
