"""Whether 2,000 requests of every kind leak memory, files, threads or processes."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.figures import Figure
from benchmarks.servers import myllm_server
from tests.serving import Serving

REQUESTS = 2000
_CLIENTS = 8
_WARM_UP = 200
_SETTLE_S = 5.0
_BODY_LIMIT_MB = 1
_TURNS = 4
_MB = 1_000_000


@dataclass(frozen=True)
class Held:
    """The resources of a process."""

    files: int
    threads: int
    children: tuple[int, ...]
    rss_mb: float
    engines_rss_mb: float


def measure(models_dir: Path | None, requests: int) -> list[Figure]:
    """Fill caches and pools, take stock, send the requests, take stock again."""
    with myllm_server(models_dir=models_dir, max_body_mb=_BODY_LIMIT_MB) as server:
        process = psutil.Process(server.process.pid)
        _send(server.url, _WARM_UP)
        fill_pools(server)
        before = settled(process)
        started = time.monotonic()
        wrong = _send(server.url, requests)
        took = time.monotonic() - started
        after = settled(process)
    return _compared(before, after, wrong, requests, took)


def fill_pools(server: Serving) -> None:
    """Fill the pools of threads and of the store's connections (one thread each). They grow when
    several requests coincide, which could otherwise happen during the measurement."""

    def ask(_: int) -> None:
        with server.client() as api:
            for path in ("/api/sessions?search=a", "/api/sessions", "/api/models"):
                api.get(path).raise_for_status()

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(ask, range(4 * _CLIENTS)))


def _compared(
    before: Held, after: Held, wrong: Counter[str], requests: int, took: float
) -> list[Figure]:
    grown = 100 * (after.rss_mb / before.rss_mb - 1)
    engines = 100 * (after.engines_rss_mb / before.engines_rss_mb - 1)
    replaced = len(set(before.children) ^ set(after.children))
    kinds = ", ".join(f"{count} {kind}" for kind, count in wrong.most_common(3))
    files, threads = f"{before.files} to {after.files}", f"{before.threads} to {after.threads}"
    rate = f"{requests} requests in {took:.0f} s, {_CLIENTS} clients"
    return [
        Figure("requests: wrong answers", wrong.total(), "", 0, kinds or rate),
        Figure("  open files more", after.files - before.files, "", 0, files),
        Figure("  threads more", after.threads - before.threads, "", 0, threads),
        Figure("  children come or gone", replaced, "", 0, f"{len(after.children)} engines"),
        Figure("  RSS grown", grown, "%", 10, f"{before.rss_mb:.1f} to {after.rss_mb:.1f} MB"),
        Figure("  engines' RSS grown", engines, "%", None, f"{after.engines_rss_mb:.1f} MB"),
    ]


def settled(process: psutil.Process) -> Held:
    """The resources of a process that has had no request for a while."""
    time.sleep(_SETTLE_S)
    children = process.children(recursive=True)
    return Held(
        process.num_fds(),
        process.num_threads(),
        tuple(child.pid for child in children),
        process.memory_info().rss / _MB,
        sum(child.memory_info().rss for child in children) / _MB,
    )


def _send(url: str, requests: int) -> Counter[str]:
    """Send the requests from several clients at once; count the wrong answers by kind."""
    with ThreadPoolExecutor(_CLIENTS) as pool:
        shares = [requests // _CLIENTS + (n < requests % _CLIENTS) for n in range(_CLIENTS)]
        done = pool.map(lambda share: _Client(url, share[0]).run(share[1]), enumerate(shares))
        return sum(done, Counter[str]())


class _Client:
    """A client with its own connection, session and order of requests."""

    def __init__(self, url: str, number: int) -> None:
        self._url = url
        self._random = random.Random(number)
        self._session = str(uuid.uuid4())
        self._turns = 0

    def run(self, requests: int) -> Counter[str]:
        """Send `requests` requests; return how many wrong answers each kind got."""
        kinds = [
            self._whole, self._streamed, self._chat, self._embeddings, self._leave,
            self._bad_option, self._unknown_model, self._unknown_route, self._too_large,
            self._models, self._health,
        ]  # fmt: skip
        wrong: Counter[str] = Counter()
        with httpx.Client(base_url=self._url, timeout=120, trust_env=False) as self._http:
            for _ in range(requests):
                kind = self._random.choice(kinds)
                name = kind.__name__.lstrip("_")
                try:
                    wrong[name] += not kind()
                except httpx.HTTPError as failure:
                    wrong[f"{name} ({type(failure).__name__})"] += 1
        return wrong

    def _whole(self) -> bool:
        answer = self._http.post("/api/generate", json=self._body(stream=False))
        return answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] > 0

    def _streamed(self) -> bool:
        answer = self._http.post("/api/generate", json=self._body(stream=True))
        return answer.status_code == 200 and '"done":true,"full_text"' in answer.text

    def _chat(self) -> bool:
        """A turn of a session; a new session begins after a few turns."""
        self._turns += 1
        if self._turns > _TURNS:
            self._session, self._turns = str(uuid.uuid4()), 1
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": f"Turn {self._turns}: hello!"}],
            "session_id": self._session,
            "options": {"max_tokens": 8},
            "stream": self._turns % 2 == 0,
        }
        return self._http.post("/api/chat", json=body).status_code == 200

    def _embeddings(self) -> bool:
        body = {"model": "demo", "input": ["one text", "another one"]}
        answer = self._http.post("/api/embeddings", json=body)
        return answer.status_code == 200 and len(answer.json()["embeddings"]) == 2

    def _leave(self) -> bool:
        """Leave in the middle of a stream, with its first event read or not."""
        body = self._body(stream=True, max_tokens=200)
        with self._http.stream("POST", "/api/generate", json=body) as answer:
            if self._random.random() < 0.5:
                next(answer.iter_lines())
            return answer.status_code == 200

    def _bad_option(self) -> bool:
        return self._status("/api/generate", self._body(temperature="hot")) == 400

    def _unknown_model(self) -> bool:
        return self._status("/api/generate", self._body() | {"model": "nobody"}) == 404

    def _unknown_route(self) -> bool:
        return self._status("/api/nothing", {}) == 404

    def _too_large(self) -> bool:
        prompt = "x" * int(_BODY_LIMIT_MB * 2**20)
        return self._status("/api/generate", self._body() | {"prompt": prompt}) == 413

    def _models(self) -> bool:
        return self._http.get("/api/models").status_code == 200

    def _health(self) -> bool:
        return self._http.get("/health").status_code == 200

    def _status(self, path: str, body: object) -> int:
        return self._http.post(path, json=body).status_code

    def _body(self, stream: bool = False, **options: object) -> dict[str, object]:
        prompt = f"Once upon a time {self._random.randrange(50)}"
        chosen = {"max_tokens": 8, **options}
        return {"model": "demo", "prompt": prompt, "stream": stream, "options": chosen}
