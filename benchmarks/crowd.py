"""Many clients at once: some that leave early, and a full queue."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from itertools import groupby
from typing import Any

import httpx
import psutil

from benchmarks.figures import Figure
from benchmarks.probing import SAMPLE_EVERY_S, more_files, probing, sampling
from benchmarks.raw_requests import Reply, Request, ask
from benchmarks.servers import engine_client, myllm_server, slots_busy
from myllm.settings import Settings
from tests.serving import wait_until

CLIENTS, LEAVERS, CROWD = 1000, 900, 2000
_MB = 1_000_000


def measure_leavers(clients: int = CLIENTS, leavers: int = LEAVERS) -> list[Figure]:
    """Connect `clients`, of which `leavers` leave at random moments; check the others' answers."""
    more_files()
    with myllm_server(queue_size=clients) as server, server.client() as api:
        _warm(api)
        with (
            engine_client(server.engine_socket()) as engine,
            sampling(lambda: _counts(api)[1] - slots_busy(engine)) as idle_held,
        ):
            began = time.monotonic()
            failed = asyncio.run(_come_and_go(server.url, clients, leavers))
            took = time.monotonic() - began
        idle_s = wait_until(lambda: _counts(api) == (0, 0), 60, "an idle gateway")
        with engine_client(server.engine_socket()) as engine:
            engine_s = wait_until(lambda: not slots_busy(engine), 60, "idle slots")
        health = api.get("/api/instances").json()["instances"][0]
    stays = f"{clients - leavers} of {clients} stay, {took:.0f} s"
    return [
        Figure(f"{leavers} clients leave: others failed", failed.total(), "", 0, stays),
        Figure("  slots lost", health["slots"]["busy"], "", 0, f"of {health['slots']['total']}"),
        Figure("  longest that a slot was held and idle", _longest(idle_held), "s", 2.0),
        Figure("  until gateway and engine are idle", idle_s + engine_s, "s", 1.0),
    ]


def _longest(idle_held: list[float]) -> float:
    """Seconds of the longest run of samples with slots that were granted to requests while the
    engine did not work on them."""
    rows = [len(list(row)) for held, row in groupby(idle_held, lambda n: n > 0) if held]
    return max(rows, default=0) * SAMPLE_EVERY_S


async def _come_and_go(url: str, clients: int, leavers: int) -> Counter[str]:
    chance = random.Random(3)
    leaving = set(chance.sample(range(clients), leavers))
    started = asyncio.Semaphore(100)  # the kernel's queue of connections is short

    async def one(number: int) -> str:
        body = _body(f"Client {number}: ", stream=True, max_tokens=chance.randint(1, 100))
        request = Request(url, "/api/generate", body)
        async with started:
            await request.send()
        if number in leaving:
            await asyncio.sleep(chance.uniform(0, 5))
            request.leave()
            return ""
        reply = await request.answer()
        if reply.status != 200 or "full_text" not in reply.last_event():
            return f"{reply.status} {reply.body[-100:]!r}"
        return ""

    results = await asyncio.gather(*(one(number) for number in range(clients)))
    return Counter(filter(None, results))


def measure_full_queue(crowd: int = CROWD, queue_size: int | None = None) -> list[Figure]:
    """Send many requests for one model at once; check the bound on the queue and the server."""
    more_files()
    with myllm_server(queue_size=queue_size) as server, server.client() as api:
        _warm(api)
        process = psutil.Process(server.process.pid)
        asyncio.run(_all_at_once(server.url, crowd))  # connections take memory the first time
        rss_before = process.memory_info().rss
        with probing(server) as probes, sampling(lambda: _counts(api)[0]) as queued:
            replies = asyncio.run(_all_at_once(server.url, crowd))
        rss = 100 * (process.memory_info().rss / rss_before - 1)
    statuses = Counter(reply.status for reply in replies)
    complete = [r for r in replies if r.status == 429 and _has_retry_headers(r)]
    other = {status for status in statuses if status not in (200, 429)}
    note = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    times = sorted(probes)
    tail = f"{len(times)} asked; p50 {1000 * statistics.median(times):.1f} ms"
    incomplete = statuses[429] - len(complete)
    bound = queue_size or Settings.model_fields["queue_size"].default
    return [
        Figure(f"{crowd} at once: neither answered nor 429", len(other), "", 0, note),
        Figure("  429 without Retry-After or position", incomplete, "", 0),
        Figure("  waiting at most", max(queued), "", bound, f"{len(queued)} samples"),
        Figure("  RSS grown over a crowd before", rss, "%", 10, f"from {rss_before / _MB:.0f} MB"),
        Figure("  /health, 99th percentile", times[int(0.99 * len(times))], "s", 0.05, tail),
        Figure("  /health, slowest", times[-1], "s", 0.05),
    ]


async def _all_at_once(url: str, crowd: int) -> list[Reply]:
    body = _body("Once upon a time", stream=False, max_tokens=20)
    return await asyncio.gather(*(ask(url, "/api/generate", body) for _ in range(crowd)))


def _has_retry_headers(reply: Reply) -> bool:
    return int(reply.headers["retry-after"]) > 0 and int(reply.headers["x-queue-position"]) > 0


def _body(prompt: str, stream: bool, max_tokens: int) -> dict[str, Any]:
    options = {"max_tokens": max_tokens, "temperature": 0}
    return {"model": "demo", "prompt": prompt, "stream": stream, "options": options}


def _warm(api: httpx.Client) -> None:
    api.post("/api/generate", json=_body("Hello", stream=False, max_tokens=4)).raise_for_status()


def _counts(api: httpx.Client) -> tuple[int, int]:
    health = api.get("/health").json()
    return health["queued"], health["active"]
