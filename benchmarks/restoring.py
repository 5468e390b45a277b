"""How soon a conversation continues after its model was unloaded, or its server restarted.

It has a history of 1,000 tokens on a model of TinyLlama's shape. The times do not include the load:
the model is loaded before the measured turn.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.figures import Figure
from benchmarks.models import big_models_dir
from benchmarks.servers import kept_settings
from tests.serving import serving, short_home

_ROUNDS = 5
_ANEW_ROUNDS = 2
_MODEL = "big"
_HISTORY = "These are the words of a long conversation about nothing much. " * 74


def measure() -> list[Figure]:
    """The next turn with the model still loaded, unloaded, and after a restart of the server."""
    settings = kept_settings(models_dir=big_models_dir(), context_size=2048, slots=1)
    with short_home() as home:
        loaded, unloaded, tokens = _here(home, settings, _ROUNDS)
        restarted = [_after_restart(home, settings) for _ in range(_ROUNDS)]
    with short_home() as home:
        _, anew, _ = _here(home, settings | {"kv_cache_mb": 0}, _ANEW_ROUNDS)
    return _figures(tokens, loaded, unloaded, restarted, anew)


def _here(
    home: Path, settings: dict[str, object], rounds: int
) -> tuple[list[float], list[float], int]:
    """First tokens in seconds: still loaded, after an unload; and the tokens of the history."""
    loaded, unloaded = [], []
    with serving(home, **settings) as server, server.client(120) as api:
        tokens = _tell(api)
        _first_token(api)
        for _ in range(rounds):
            loaded.append(_first_token(api))
            api.post(f"/api/models/{_MODEL}/unload").raise_for_status()
            api.post(f"/api/models/{_MODEL}/load").raise_for_status()
            unloaded.append(_first_token(api))
    return loaded, unloaded, tokens


def _after_restart(home: Path, settings: dict[str, object]) -> float:
    with serving(home, **settings) as server, server.client(120) as api:
        api.post(f"/api/models/{_MODEL}/load").raise_for_status()
        return _first_token(api)


def _tell(api: httpx.Client) -> int:
    """The first turn; returns how many tokens its prompt has."""
    answer = api.post("/api/chat", json=_turn(_HISTORY) | {"stream": False})
    return int(answer.raise_for_status().json()["usage"]["prompt_tokens"])


def _first_token(api: httpx.Client) -> float:
    """Seconds from the request of another turn to its first token."""
    started = time.monotonic()
    took = 0.0
    with api.stream("POST", "/api/chat", json=_turn("And then?")) as answer:
        for line in answer.raise_for_status().iter_lines():
            if not took and '"token":' in line:
                took = time.monotonic() - started
    return took


def _turn(text: str) -> dict[str, Any]:
    return {
        "model": _MODEL,
        "session_id": "s",
        "messages": [{"role": "user", "content": text}],
        "options": {"temperature": 0, "max_tokens": 4},
    }


def _figures(
    tokens: int,
    loaded: list[float],
    unloaded: list[float],
    restarted: list[float],
    anew: list[float],
) -> list[Figure]:
    still, new = statistics.median(loaded), statistics.median(anew)
    figures = [
        Figure("tokens of the history", tokens, ""),
        Figure("next turn's first token, still loaded", still, "s"),
        Figure("  read anew after an unload", new, "s", note=f"{len(anew)} rounds"),
    ]
    for name, samples in (("after an unload", unloaded), ("after a restart", restarted)):
        median = statistics.median(samples)
        figures += [
            Figure(f"  {name}", median, "s", note=f"{len(samples)} rounds"),
            Figure("    of the time when read anew", 100 * median / new, "%", 10),
            Figure("    of the time when still loaded", 100 * median / still, "%", 130),
        ]
    return figures
