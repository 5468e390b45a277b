"""What MyLLM adds to llama-server's load time, and the first token of an unloaded model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.figures import Figure, median_of
from benchmarks.servers import bare_engine, myllm_server

_ROUNDS = 7
_QUESTION = [{"role": "user", "content": "What can you do?"}]


def measure(models_dir: Path | None) -> list[Figure]:
    """Load and first token, MyLLM and the bare engine by turns."""
    with myllm_server(models_dir=models_dir) as server, server.client() as client:
        client.post("/api/models/demo/load").raise_for_status()
        argv = _engine_command(server.process.pid)
        _unload(client)
        loads = _by_turns(lambda: _load(client), lambda: _bare_load(argv))
        tokens = _by_turns(lambda: _first_token(client), lambda: _bare_first_token(argv))
    return [
        median_of("load: added to llama-server's own", _differences(loads), 0.1),
        median_of("  POST /api/models/demo/load", [ours for ours, _ in loads]),
        median_of("  llama-server, exec to ready", [bare for _, bare in loads]),
        median_of("first token of demo from unloaded", [ours for ours, _ in tokens], 1.0),
        median_of("  added to llama-server's own", _differences(tokens)),
    ]


def _by_turns(ours: Any, bare: Any) -> list[tuple[float, float]]:
    """Pairs measured right after each other, so that a slowdown of the machine affects both.

    The first pair warms up. The order alternates.
    """
    pairs = []
    for each in range(1 + _ROUNDS):
        if each % 2:
            mine, other = ours(), bare()
        else:
            other, mine = bare(), ours()
        pairs.append((mine, other))
    return pairs[1:]


def _differences(pairs: list[tuple[float, float]]) -> list[float]:
    return [ours - bare for ours, bare in pairs]


def _engine_command(pid: int) -> list[str]:
    [engine] = psutil.Process(pid).children()
    return engine.cmdline()


def _load(client: httpx.Client) -> float:
    started = time.monotonic()
    client.post("/api/models/demo/load").raise_for_status()
    took = time.monotonic() - started
    _unload(client)
    return took


def _unload(client: httpx.Client) -> None:
    client.post("/api/models/demo/unload").raise_for_status()


def _bare_load(argv: list[str]) -> float:
    with bare_engine(argv) as engine:
        return engine.ready_s


def _first_token(client: httpx.Client) -> float:
    body = {"model": "demo", "messages": _QUESTION, "options": {"max_tokens": 16}}
    started = time.monotonic()
    took = _until_text(client, "/api/chat", body, started)
    _unload_when_idle(client)
    return took


def _unload_when_idle(client: httpx.Client) -> None:
    """Unload the model; a stream left early ends its request only moments later."""
    deadline = time.monotonic() + 10
    while client.get("/health").json()["active"] and time.monotonic() < deadline:
        time.sleep(0.01)
    _unload(client)


def _bare_first_token(argv: list[str]) -> float:
    body = {"messages": _QUESTION, "max_tokens": 16, "stream": True}
    with bare_engine(argv) as engine, engine.client() as client:
        sent_at = time.monotonic()
        return engine.ready_s + _until_text(client, "/v1/chat/completions", body, sent_at)


def _until_text(client: httpx.Client, path: str, body: dict[str, Any], since: float) -> float:
    """Seconds from `since` to the first event that carries text."""
    with client.stream("POST", path, json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {") and _has_text(json.loads(line[6:])):
                return time.monotonic() - since
    raise AssertionError(f"{path} answered without any text")


def _has_text(event: dict[str, Any]) -> bool:
    if "choices" in event:
        return any(choice["delta"].get("content") for choice in event["choices"])
    return bool(event.get("token"))
