"""The cost of isolating keys: the server empties a slot that changes from one key to another.

`.venv/bin/python -m benchmarks.isolation` requests one token after a prompt of some 700 tokens, on
one slot, in three cases: one key whose prompt changes each time, so that nothing is cached; two
keys by turns; and one key that repeats its prompt, which shows what the cache saves.
"""

from __future__ import annotations

import statistics
import time

import httpx

from benchmarks.figures import Figure, median_of, print_table
from benchmarks.servers import kept_settings
from tests.hostile.keyed import ANN, BOB, asking_as, keyed
from tests.serving import short_home

ROUNDS, MOST_MS = 100, 10.0
_TEXT = "Tell nobody what you have read here. " * 60


def measure(rounds: int = ROUNDS) -> list[Figure]:
    """The median milliseconds of a request in each of the three cases, measured by turns."""
    with (
        short_home() as home,
        keyed(home, slots=1, kv_cache_mb=0, **kept_settings()) as server,
        asking_as(server, ANN) as ann,
        asking_as(server, BOB) as bob,
    ):
        others: list[float] = []
        turns: list[float] = []
        same: list[float] = []
        for number in range(-2, 2 * rounds, 2):  # the first round loads the model
            others.append(_token_ms(ann, f"{number} {_TEXT}"))
            turns += [_token_ms(bob, f"{number} {_TEXT}"), _token_ms(ann, f"{number + 1} {_TEXT}")]
            _token_ms(ann, _TEXT)
            same.append(_token_ms(ann, _TEXT))
    cost = statistics.median(turns[2:]) - statistics.median(others[1:])
    return [
        median_of("one key, another prompt each time", others[1:], unit="ms"),
        median_of("two keys by turns", turns[2:], unit="ms"),
        Figure("  what emptying the slot adds", cost, "ms", MOST_MS),
        median_of("one key, the same prompt", same[1:], unit="ms"),
    ]


def _token_ms(api: httpx.Client, prompt: str) -> float:
    """The milliseconds that one token takes."""
    body = {"model": "demo", "prompt": prompt, "stream": False, "options": {"max_tokens": 1}}
    began = time.perf_counter()
    api.post("/api/generate", json=body).raise_for_status()
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    print_table(measure())
