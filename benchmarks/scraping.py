"""Measure how long `/metrics` takes on a full server, and for how long it blocks the event loop.

    python -m benchmarks.scraping [--json] [--rounds N]

50 models have answered requests, 20 of them have an engine, and 200 keys exist. The server runs in
this process, so that each gap between two turns of its event loop can be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure, median_of, print_json, print_table
from benchmarks.models import micro_models_dir
from myllm.api.http.access import Access
from myllm.api.shared.dependencies import Services
from myllm.app import App
from myllm.engine.engine import Engine
from myllm.engine.find import find_engine
from myllm.garbage import Garbage
from myllm.gateway.request_record import RequestRecord, no_gaps
from myllm.server import SWITCH_S
from myllm.sessions.keys import KeyRules
from myllm.settings import Settings, load_settings
from myllm.supervisor.spec import InstanceKey
from tests.keys import add_key
from tests.serving import short_home

_MODELS, _ENGINES, _KEYS, _ROUNDS = 50, 20, 200, 20
_MOST_S, _MOST_BLOCKED_S = 0.2, 0.01
_TURN_S = 0.001
_FORMATS = {"classic": "", "OpenMetrics": "application/openmetrics-text;version=1.0.0"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    args = parser.parse_args()
    engine = find_engine(load_settings())
    if engine is None:
        sys.exit("no engine; compile one with 'scripts/myllm engine build'")
    with _full_home() as home:
        figures = asyncio.run(_measured(home, engine, args.rounds))
    (print_json if args.json else print_table)(figures)
    return 0 if all(figure.ok for figure in figures) else 1


@contextmanager
def _full_home() -> Iterator[Path]:
    """The directories of a server with all models and keys."""
    with short_home() as home:
        (home / "models").mkdir()
        for number in range(_MODELS):
            (home / "models" / _name(number)).symlink_to(micro_models_dir() / "micro")
        for number in range(_KEYS):
            add_key(home, f"key-{number}", f"secret-{number}-0123456789", KeyRules())
        yield home


def _name(number: int) -> str:
    return f"model-{number:02}"


async def _measured(home: Path, engine: Engine, rounds: int) -> list[Figure]:
    folders = {f"{each}_dir": home / each for each in ("models", "data", "state", "cache")}
    settings = Settings(runtime_dir=home / "run", threads=1, context_size=512, **folders)
    app = App(settings, engine, Access())
    async with app.services() as services:
        for number in range(_MODELS):
            app.observers.request_ended(_answered(_name(number)))
        for number in range(_ENGINES):
            await services.gateway.load(_name(number))
        await services.metrics.polls.ask()
        await asyncio.sleep(1)
        assert len(services.metrics.polls.answers()) == _ENGINES
        await services.metrics.render("")  # imports what it needs
        sys.setswitchinterval(SWITCH_S)  # this and the next as `myllm serve` does
        Garbage()
        return [each for name in _FORMATS for each in await _scraped(services, name, rounds)]


def _answered(model: str) -> RequestRecord:
    """A request that took every bucket's way through the counts."""
    record = RequestRecord("id", "POST", "/api/chat", "native", "127.0.0.1", handler="/api/chat")
    record.model, record.tickets, record.status = InstanceKey(model, "generate"), 1, 200
    record.granted_at = record.first_token_at = record.last_token_at = record.began_at
    record.prompt_tokens, record.generated_tokens = 100, 100
    record.gaps, record.gaps_s, record.finish_reason = no_gaps(), 1.0, "stop"
    record.ended_at = record.began_at + 1
    return record


async def _scraped(services: Services, name: str, rounds: int) -> list[Figure]:
    seconds: list[float] = []
    blocked: list[float] = []
    size = 0
    for _ in range(rounds):
        gaps = _Gaps()
        watching = asyncio.create_task(gaps.watch())
        await asyncio.sleep(0.02)
        gaps.longest_s = 0.0
        began = time.perf_counter()
        content, _ = await services.metrics.render(_FORMATS[name])
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)
        watching.cancel()
        blocked.append(gaps.longest_s)
        size = len(content)
    return [
        median_of(f"{name}: a scrape", seconds, _MOST_S),
        median_of(f"{name}: longest block of the event loop", blocked, _MOST_BLOCKED_S),
        Figure(f"{name}: size", size / 2**20, "MiB"),
    ]


class _Gaps:
    """The longest delay of a task that wants a turn of the event loop every millisecond."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        """Take note of every turn, until cancelled."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(_TURN_S)
            now = time.perf_counter()
            self.longest_s, last = max(self.longest_s, now - last - _TURN_S), now


if __name__ == "__main__":
    sys.exit(main())
