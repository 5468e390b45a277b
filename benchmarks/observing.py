"""Measure what keys, limits, metrics, usage and events cost.

    python -m benchmarks.observing --before CHECKOUT [--json] [--rounds N]

CHECKOUT is MyLLM without them, such as a `git worktree` of an earlier commit. This checkout runs
with all of them on: its clients use a key with limits, `/metrics` is scraped every five seconds,
and a client listens to `/api/events`. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from benchmarks import startup
from benchmarks.contestants import Contestant, in_both_dialects, myllm
from benchmarks.driving import in_turn
from benchmarks.figures import Figure, median_of, print_json, print_table
from benchmarks.measuring import Load, Round, measure
from benchmarks.models import micro_models_dir
from benchmarks.probing import more_files
from tests.serving import Serving

_CLIENTS, _ROUNDS, _TURNS = 16, 5, 300
_SECONDS: dict[Load, float] = {"streams": 3.0, "single": 2.0}
_SCRAPE_S = 5.0
# Limits that the load never reaches, so that every request is counted and none is refused.
_PLENTY = {"requests_per_minute": 10**7, "tokens_per_minute": 10**9, "concurrent_requests": 1000}
_MORE_CPU: dict[Load, float] = {"streams": 1.05, "single": 1.08}
_MORE_MS, _MORE_MB = 0.05, 10.0

Pair = tuple[Contestant, Contestant]
"""The same server with everything on, and before."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--before", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    args = parser.parse_args()
    more_files()
    figures = _started(args.before.resolve(), args.rounds)
    with ExitStack() as running:
        observed = running.enter_context(_observed())
        before = in_both_dialects(
            "before", running.enter_context(myllm(micro_models_dir(), args.before.resolve()))
        )
        pairs = list(zip(observed, before, strict=True))
        figures += [each for pair in pairs for each in _compared(pair, args.rounds)]
    (print_json if args.json else print_table)(figures)
    return 0 if all(figure.ok for figure in figures) else 1


@contextmanager
def _observed() -> Iterator[list[Contestant]]:
    """This checkout with everything on, in both dialects."""
    admin_key = secrets.token_urlsafe(32)
    access = {"Authorization": f"Bearer {admin_key}"}
    with (
        myllm(micro_models_dir(), admin_key=admin_key) as server,
        httpx.Client(base_url=server.url, headers=access, timeout=60, trust_env=False) as admin,
    ):
        made = admin.post("/api/keys", json={"name": "load", **_PLENTY}).raise_for_status().json()
        with _watching(server, access):
            yield in_both_dialects("MyLLM", server, made["key"])


@contextmanager
def _watching(server: Serving, access: dict[str, str]) -> Iterator[None]:
    """Scrape the metrics of `server` now and then, and listen to its events."""
    over = threading.Event()

    def scrape() -> None:
        with httpx.Client(base_url=server.url, headers=access, trust_env=False) as monitor:
            while not over.wait(_SCRAPE_S):
                monitor.get("/metrics", timeout=60).raise_for_status()

    def listen() -> None:
        with (
            httpx.Client(base_url=server.url, headers=access, trust_env=False) as page,
            page.stream("GET", "/api/events", timeout=60) as events,
        ):
            for _ in events.iter_lines():
                if over.is_set():
                    return

    watchers = [threading.Thread(target=each) for each in (scrape, listen)]
    for each in watchers:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in watchers:
            each.join(60)


def _compared(pair: Pair, rounds: int) -> Iterator[Figure]:
    """CPU time per token and per request, and the time to the first token, of a pair."""
    dialect = pair[0].name.removeprefix("MyLLM ")
    units: dict[Load, str] = {"streams": "token", "single": "request"}
    for load, unit in units.items():
        made: dict[str, list[Round]] = defaultdict(list)
        for number in range(rounds):
            for each in pair if number % 2 else reversed(pair):
                made[each.name].append(measure(each, load, _CLIENTS, _SECONDS[load]))
        ours, theirs = ([getattr(r, f"gateway_us_per_{unit}") for r in made[c.name]] for c in pair)
        shares = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        yield median_of(f"{dialect}: CPU per {unit}, of before", shares, _MORE_CPU[load], "x")
        yield median_of(f"  {unit}: CPU now", ours, unit="us")
    first = [each.first_ms for each in in_turn([each.stream() for each in pair], _TURNS)]
    added = statistics.median(first[0]) - statistics.median(first[1])
    yield Figure(f"{dialect}: first token later by", added, "ms", _MORE_MS, f"{_TURNS} turns")


def _started(before: Path, rounds: int) -> list[Figure]:
    """The time to `/health` and the memory of an idle server, beside those of before."""
    now, then = zip(
        *((startup.started(None), startup.started(before)) for _ in range(1 + rounds)), strict=True
    )
    waits = [a.seconds / b.seconds for a, b in zip(now[1:], then[1:], strict=True)]
    sizes = [a.rss_mb - b.rss_mb for a, b in zip(now[1:], then[1:], strict=True)]
    return [
        median_of("serve: command to /health, of before", waits, unit="x"),
        median_of("serve: idle RSS, more than before", sizes, _MORE_MB, "MB"),
    ]


if __name__ == "__main__":
    sys.exit(main())
