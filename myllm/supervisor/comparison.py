"""How fast an engine reads prompts in batches of different sizes: a comparison within seconds.

It is made between an engine's load and its first request, when its slots hold nothing yet.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil

from myllm.supervisor.engine_client import EngineClient
from myllm.supervisor.instance import Instance
from myllm.supervisor.prompt_speeds import Known, PromptSpeeds

MOST_S = 3.0
_LEAST_ROUNDS, _MOST_ROUNDS = 2, 3
# Nothing can stop an engine within a batch, so a short prompt shows whether it reads so slowly
# that even the smallest batch would keep the first request waiting.
_PROBE_TOKENS, _PROBE_MOST_S = 8, 1.0
# A machine is busy when the engine's threads wait for a core for a larger part of the time.
_MOST_WAITING = 0.1


class CoreWatch:
    """Whether a process had the cores for itself since this was made.

    Linux tells for each thread how long it could have run and had to wait for a core. Elsewhere
    every machine counts as calm. What a hypervisor takes away counts as waiting.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = time.monotonic()
        self._waited_s = _waited_s(pid)

    def is_calm(self) -> bool:
        took_s = time.monotonic() - self._began
        return _waited_s(self._pid) - self._waited_s <= _MOST_WAITING * took_s


async def compare(client: EngineClient, pid: int, sizes: Sequence[int], vocabulary: int) -> Known:
    """Read prompts of each size by turns, for MOST_S seconds at most.

    `sizes` ascend to the engine's batch size. "slow" when the time does not suffice for two
    rounds, "busy" when the engine could not have its cores; both come with what was seen.
    Raises httpx.TransportError when the engine is gone, and ValueError for an answer that is none.
    """
    watch, best_s = CoreWatch(pid), dict[int, float]()
    try:
        enough = await _rounds(client, watch, sizes, vocabulary, best_s)
    except httpx.ReadTimeout:
        enough = False
    speeds = {size: size / took_s for size, took_s in best_s.items()}
    if not watch.is_calm():
        return Known("busy", speeds)
    return Known("measured" if enough else "slow", speeds)


async def _rounds(
    client: EngineClient,
    watch: CoreWatch,
    sizes: Sequence[int],
    vocabulary: int,
    best_s: dict[int, float],
) -> bool:
    """Note the least seconds that each size takes; False when the time does not suffice."""
    ends_at = time.monotonic() + MOST_S
    if await _read(client, _PROBE_TOKENS, vocabulary, MOST_S) > _PROBE_MOST_S:
        return False
    for number in range(_MOST_ROUNDS):
        for size in sizes:
            left_s = ends_at - time.monotonic()
            rounds_left = max(_LEAST_ROUNDS - number, 0)
            if not _suffices(left_s, best_s, size, rounds_left * sum(sizes)):
                return rounds_left == 0
            took_s = await _read(client, size, vocabulary, left_s)
            best_s[size] = min(took_s, best_s.get(size, took_s))
        if not watch.is_calm():
            break
    return True


def _suffices(left_s: float, best_s: Mapping[int, float], size: int, tokens: int) -> bool:
    """Whether a prompt of `size` can be read in `left_s`, and all `tokens` that are to be read
    could be if large batches are read twice as fast as what was read last."""
    if not best_s:
        return True
    last = max(each for each in best_s if each <= size) if size in best_s else max(best_s)
    per_token_s = best_s[last] / last
    return size * per_token_s <= left_s and tokens * per_token_s <= 2 * left_s


async def _read(client: EngineClient, size: int, vocabulary: int, within_s: float) -> float:
    """Have a prompt of `size` tokens read, which nobody has read before; returns the seconds."""
    prompt = random.choices(_plain_tokens(vocabulary), k=size)
    body = {"prompt": prompt, "n_predict": 1, "id_slot": 0, "cache_prompt": False}
    answer = await client.post("/completion", orjson.dumps(body), within_s)
    timings: dict[str, Any] = orjson.loads(answer.body).get("timings", {})
    if answer.status != 200 or timings.get("prompt_n") != size or not timings["prompt_ms"] > 0:
        raise ValueError(f"the engine answered {answer.status}: {answer.body[:200]!r}")
    return float(timings["prompt_ms"]) / 1000


def _plain_tokens(vocabulary: int) -> range:
    """Tokens from the middle of a vocabulary, for special ones are at its beginning or end."""
    return range(vocabulary // 4, max(vocabulary // 2, vocabulary // 4 + 1))


def _waited_s(pid: int) -> float:
    """Seconds for which threads of a process have waited for a core, and the machine's CPUs for
    their hypervisor; 0 where that is not told, or the process is gone."""
    waited_ns = 0
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError, ValueError, IndexError):  # one that has just ended
                waited_ns += int(
                    Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1]
                )
    return waited_ns / 1e9 + float(getattr(psutil.cpu_times(), "steal", 0.0))


class Reading:
    """A real prompt that is about to be read: whoever has it answered tells how long it took.

    Only of a model that is too slow for a comparison, and only of a prompt that was read while
    the engine had nothing else to do and the machine was calm, anything is learned.
    """

    def __init__(self, speeds: PromptSpeeds, instance: Instance) -> None:
        self._speeds = speeds
        self._instance = instance
        learns = speeds.learns(instance.spec.speed_key) and instance.client.open_requests == 0
        self._watch = CoreWatch(instance.pid) if learns and instance.pid is not None else None

    def done(self, timings: Mapping[str, Any]) -> None:
        """Take in the engine's timings of the answer; called before its stream is closed."""
        alone = self._instance.client.open_requests <= 1
        if self._watch is not None and alone and self._watch.is_calm():
            spec = self._instance.spec
            seconds = timings["prompt_ms"] / 1000
            self._speeds.learn(spec.speed_key, spec.batch, timings["prompt_n"], seconds)
