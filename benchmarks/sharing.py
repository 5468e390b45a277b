"""Three models in memory for two: many clients, no failure, and never above the budget."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

import myllm
from benchmarks.figures import Figure
from benchmarks.servers import myllm_server
from tests.serving import Serving, short_home

CLIENTS, SECONDS = 50, 20.0
_MODELS = ("one", "two", "three")
_DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"
_MIB = 2**20
# The error of a request whose engine was evicted before the end of its answer.
_CUT = "was stopped before"


def measure(clients: int = CLIENTS, seconds: float = SECONDS) -> list[Figure]:
    """Send requests to three copies of the demo model at random, with memory for two of them."""
    with short_home() as folder:
        for name in _MODELS:
            (folder / name).mkdir()
            shutil.copy(_DEMO, folder / name)
        budget_mb = _budget_for_two_mb(folder)
        with myllm_server(models_dir=folder, memory_budget_mb=budget_mb) as server:
            return _share(server, budget_mb, clients, seconds)


def _budget_for_two_mb(folder: Path) -> int:
    """Two and a half times the memory that one model needs."""
    with myllm_server(models_dir=folder) as server, server.client() as api:
        return int(2.5 * api.get("/api/models/one").json()["memory"]["estimated_mb"])


def _share(server: Serving, budget_mb: int, clients: int, seconds: float) -> list[Figure]:
    over = threading.Event()
    peaks: list[float] = []
    sampler = threading.Thread(target=lambda: _sample(server, over, peaks))
    sampler.start()
    started = time.monotonic()
    try:
        with ThreadPoolExecutor(clients) as pool:
            until = started + seconds
            shares = list(pool.map(lambda number: _client(server, number, until), range(clients)))
    finally:
        over.set()
        sampler.join()
    took = time.monotonic() - started
    results = sum(shares, Counter[str]())
    done = results.pop("done")
    waits = f"{done / took:.0f} a second, {clients} clients, {took:.0f} s"
    log = server.log
    cut = sum(count for kind, count in results.items() if _CUT in kind)
    kinds = ", ".join(f"{count} {kind}" for kind, count in results.most_common(3))
    return [
        Figure("2 of 3 models fit: failed requests", results.total(), "", 0, kinds or waits),
        Figure("  engines' RSS at most", max(peaks), "MB", budget_mb, f"{len(peaks)} samples"),
        Figure("  answers cut by an eviction", cut, "", 0),
        Figure("  loads", log.count("engine ready"), ""),
    ]


def _sample(server: Serving, over: threading.Event, peaks: list[float]) -> None:
    while not over.is_set():
        total = 0
        for engine in server.engines():
            try:
                total += engine.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peaks.append(total / _MIB)
        time.sleep(0.05)


def _client(server: Serving, number: int, until: float) -> Counter[str]:
    chance = random.Random(number)
    results: Counter[str] = Counter()
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as api:
        while time.monotonic() < until:
            body = {
                "model": chance.choice(_MODELS),
                "prompt": "Once upon a time",
                "stream": False,
                "options": {"max_tokens": chance.randint(1, 60), "temperature": 0},
            }
            answer = api.post("/api/generate", json=body)
            results["done" if answer.status_code == 200 else answer.text[:100]] += 1
    return results
