"""Compares how fast an engine reads prompts in batches of different sizes, within seconds.

The comparison is made between an engine's load and its first request, while its slots are empty.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import orjson

from myllm.launcher.base import EngineProcess
from myllm.supervisor.engine_client import EngineClient
from myllm.supervisor.instance import Instance
from myllm.supervisor.prompt_speeds import Known, PromptSpeeds

MAX_S = 3.0
_MAX_ROUNDS = 3
# An engine cannot be stopped within a batch, so a short prompt shows first whether it reads so
# slowly that even the smallest batch would keep the first request waiting.
_PROBE_TOKENS, _PROBE_MAX_S = 8, 1.0
# An engine with a sliding window goes back to a checkpoint, and so reads a few tokens again.
_MAX_AGAIN = 1.25
# A machine is busy when the engine's threads wait for a core for a larger share of the time.
_MAX_WAITING = 0.1


class CoreWatch:
    """Whether an engine has had the cores for itself since this was made.

    Linux counts for each thread how long it was ready to run and waited for a core. On other
    systems every machine counts as calm. Time that a hypervisor takes away counts as waiting.
    """

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self._began = time.monotonic()
        self._waited_s = process.core_wait_s()

    def is_calm(self) -> bool:
        took_s = time.monotonic() - self._began
        return self._process.core_wait_s() - self._waited_s <= _MAX_WAITING * took_s


async def compare(
    client: EngineClient,
    process: EngineProcess,
    sizes: Sequence[int],
    vocabulary: int,
    context: int,
) -> Known:
    """Time the engine on prompts of each size, for at most MAX_S seconds.

    `sizes` ascend to the engine's batch size; `context` is how many tokens a slot holds. The result
    is "slow" when the time does not suffice for one round, and "busy" when the engine did not get
    its cores; both include the speeds seen. Raises httpx.TransportError when the engine is gone,
    and ValueError for an invalid answer.
    """
    watch, rounds = CoreWatch(process), _Rounds(client, vocabulary, context)
    try:
        enough = await rounds.make(watch, sizes)
    except httpx.ReadTimeout:
        enough = rounds.complete > 0
    if not watch.is_calm():
        return Known("busy", rounds.tokens_per_s)
    return Known("measured" if enough else "slow", rounds.tokens_per_s)


class _Rounds:
    """Prompts that each continue the one before, as those of a long conversation do.

    A token takes longer the more tokens precede it. A round ascends to the largest size and
    descends again, so that on average the same number of tokens precede each size. The smaller
    sizes come before it: they show early that an engine is too slow, and make the round's prompts
    long, because long prompts are what clients wait for.
    """

    def __init__(self, client: EngineClient, vocabulary: int, context: int) -> None:
        self.complete = 0
        self.tokens_per_s: dict[int, float] = {}
        self._client = client
        self._vocabulary = vocabulary
        self._context = context
        self._ends_at = time.monotonic() + MAX_S
        self._held: list[int] = []
        self._first = -1  # the token that the slot's prompt begins with
        self._per_token_s = 0.0

    async def make(self, watch: CoreWatch, sizes: Sequence[int]) -> bool:
        """Note the best speed of each size; False when the time does not suffice for a round."""
        if await self._read(_PROBE_TOKENS) > _PROBE_MAX_S:
            return False
        self._per_token_s = 0.0  # so few tokens say nothing about larger batches
        smaller = sizes[:-1]
        while self.complete < _MAX_ROUNDS and watch.is_calm():
            if not await self._round(smaller, [*sizes, *reversed(smaller)]):
                break
        return self.complete > 0

    async def _round(self, before: Sequence[int], sizes: Sequence[int]) -> bool:
        """Read `before` and then `sizes`. Returns False when the time runs out, and then notes
        nothing; of the first round it notes each speed, for lack of better figures."""
        self._held.clear()
        took_s: dict[int, list[float]] = {}
        steps = [*before, *sizes]
        for number, size in enumerate(steps):
            if not self._suffices(size, sum(steps[number:])):
                return False
            seconds = await self._read(size)
            if number >= len(before):
                took_s.setdefault(size, []).append(seconds)
            if self.complete == 0:
                self.tokens_per_s[size] = size / seconds
        for size, each in took_s.items():
            speed = size * len(each) / sum(each)
            best = self.tokens_per_s[size] if self.complete else 0.0
            self.tokens_per_s[size] = max(speed, best)
        self.complete += 1
        return True

    def _suffices(self, size: int, tokens: int) -> bool:
        """Whether the time left suffices for a prompt of `size`, and would suffice for all `tokens`
        that follow if they were read twice as fast as the last ones."""
        left_s = self._ends_at - time.monotonic()
        return size * self._per_token_s <= left_s and tokens * self._per_token_s <= 2 * left_s

    async def _read(self, size: int) -> float:
        """Have `size` new tokens read; returns the seconds."""
        plain = _plain_tokens(self._vocabulary)
        prompt = random.choices(plain, k=size)
        if len(self._held) + size >= self._context:
            self._held.clear()
        if not self._held:
            if prompt[0] == self._first:  # the slot has read that one already
                prompt[0] = plain[0] if prompt[0] != plain[0] else plain[-1]
            self._first = prompt[0]
        self._held += prompt
        body = {"prompt": self._held, "n_predict": 1, "id_slot": 0, "cache_prompt": True}
        left_s = max(self._ends_at - time.monotonic(), 0.001)
        answer = await self._client.post("/completion", orjson.dumps(body), left_s)
        timings: dict[str, Any] = orjson.loads(answer.body).get("timings", {})
        read, read_ms = timings.get("prompt_n", 0), timings.get("prompt_ms", 0)
        if not size <= read <= _MAX_AGAIN * size or not read_ms > 0:
            raise ValueError(f"the engine answered {answer.status}: {answer.body[:200]!r}")
        self._per_token_s = read_ms / 1000 / read
        return size * self._per_token_s


def _plain_tokens(vocabulary: int) -> range:
    """Tokens from the middle of a vocabulary; special ones are at its beginning or end."""
    return range(vocabulary // 4, max(vocabulary // 2, vocabulary // 4 + 1))


class Reading:
    """Learns the speed of a model from a real prompt that is about to be read.

    It learns only from models that are too slow for a comparison, and only from prompts that were
    read while the engine did nothing else and the machine was calm.
    """

    def __init__(self, speeds: PromptSpeeds, instance: Instance) -> None:
        self._speeds = speeds
        self._instance = instance
        learns = speeds.learns(instance.spec.speed_key) and instance.client.open_requests == 0
        process = instance.process
        self._watch = CoreWatch(process) if learns and process is not None else None

    def done(self, timings: Mapping[str, Any]) -> None:
        """Note the engine's timings of the answer; call it before the stream is closed."""
        alone = self._instance.client.open_requests <= 1
        if self._watch is not None and alone and self._watch.is_calm():
            spec = self._instance.spec
            seconds = timings["prompt_ms"] / 1000
            self._speeds.learn(spec.speed_key, spec.batch, timings["prompt_n"], seconds)
