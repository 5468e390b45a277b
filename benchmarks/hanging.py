"""How long other clients wait when a request makes their engine hang, and how large it can grow."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from benchmarks.figures import Figure, worst_of
from tests.hostile.bomb import BOOM, add_bomb, largest
from tests.hostile.endless import ENDLESS, attacked, is_caught
from tests.serving import Serving, serving, short_home, wait_until

_ROUNDS = 3
_HANG_S = 5.0
# To detect the hang, end the engine, start another one, and answer.
_WAIT_S = 3 * _HANG_S
_CAUGHT_S = 60.0
# The bomb builds a text of 1 GiB and copies it; the watcher measures it every 1.25 s.
_LARGEST_MB = 6000.0
_ASKED = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "stream": False,
    "options": {"temperature": 0, "max_tokens": 20},
}


def measure() -> list[Figure]:
    """Attack a new server in each way, several times."""
    with short_home() as home:
        add_bomb(home / "models")
        with serving(home, threads=1, hang_timeout=_HANG_S) as server, server.client(300) as api:
            return [*(_waits(server, api, kind) for kind in ENDLESS), *_grows(server, api)]


def _waits(server: Serving, api: httpx.Client, kind: str) -> Figure:
    """Seconds until a client that sends its request after the attack has its answer."""
    undisturbed, took_s = _answer(api, "demo"), []
    for _ in range(_ROUNDS):
        socket = server.engine_socket()
        with attacked(socket, **ENDLESS[kind]):
            wait_until(lambda at=socket: is_caught(at), _CAUGHT_S, f"{kind} hangs")  # type: ignore[misc]
            began = time.monotonic()
            assert _answer(api, "demo") == undisturbed
            took_s.append(time.monotonic() - began)
    return worst_of(f"answer behind an endless {kind}", took_s, _WAIT_S)


def _grows(server: Serving, api: httpx.Client) -> list[Figure]:
    """The most memory of an engine under a template bomb, and answers that other clients lose."""
    undisturbed, lost, answers = _answer(api, "bomb"), 0, 0
    with largest(server) as most, ThreadPoolExecutor(1) as pool, server.client(300) as other:
        attack = pool.submit(other.post, "/api/chat", json=BOOM)
        while not attack.done():
            lost += _answer(api, "bomb") != undisturbed
            answers += 1
    note = f"of {answers}, beside a template bomb"
    return [
        Figure("memory of an engine with a template bomb", most[0], "MB", _LARGEST_MB),
        Figure("answers that others lost", lost, "", 0, note),
    ]


def _answer(api: httpx.Client, model: str) -> str:
    answer = api.post("/api/chat", json=_ASKED | {"model": model})
    return str(answer.json()["message"]["content"]) if answer.status_code == 200 else answer.text
