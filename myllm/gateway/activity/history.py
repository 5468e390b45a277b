"""The last hour in steps of five seconds, in memory, for charts.

Requests are counted in the step in which they end. Nothing is done per token: when an answer is
complete, its tokens are spread over the steps in which they were generated. So the last steps are
too low while long answers are under way.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final

from myllm.gateway.gateway import Gateway
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import RequestRecord
from myllm.launcher.devices import GpuReadings
from myllm.loops import in_background, keep_running

STEP_S: Final = 5.0
STEPS: Final = 720
# Far more than one server answers in a step; beyond that, the last ones count.
_MOST_WAITS: Final = 4096


@dataclass(slots=True)
class Step:
    """One step; `since` and `until` are of the monotonic clock, `at` is the Unix time of its end.

    `first_token` is the median and the 95th percentile of the seconds until the first token; None
    without any. `memory` is what was predicted for the engines and what they were measured to
    take, in MiB by device.
    """

    since: float
    until: float = math.inf
    at: int = 0
    requests: int = 0
    errors: int = 0
    prompt_tokens: float = 0.0
    generated_tokens: float = 0.0
    first_token: tuple[float, float] | None = None
    running: int = 0
    queued: int = 0
    memory: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    utilization: Mapping[str, float | None] = field(default_factory=dict)

    def share(self, begins: float, ends: float) -> float:
        """How much of a time lies in this step, from 0 to 1."""
        return max(0.0, min(ends, self.until) - max(begins, self.since)) / (ends - begins)


class History(Observer):
    """Keeps the steps of the last hour."""

    def __init__(self, gateway: Gateway, readings: GpuReadings) -> None:
        self._gateway = gateway
        self._readings = readings
        self._steps: deque[Step] = deque(maxlen=STEPS)
        self._open = Step(time.monotonic())
        self._waits: deque[float] = deque(maxlen=_MOST_WAITS)
        self._sampling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sample."""
        sampling = keep_running("history", self._sample, STEP_S)
        self._sampling = in_background("history", sampling, Context())

    def close(self) -> None:
        """Stop sampling."""
        if self._sampling is not None:
            self._sampling.cancel()

    def last(self, count: int) -> list[Step]:
        """The last `count` steps, oldest first."""
        return list(self._steps)[-count:]

    def request_ended(self, record: RequestRecord) -> None:
        if record.has_failed:
            self._open.errors += 1
        elif record.model is None:
            return
        self._open.requests += 1
        first = record.first_token_at
        if first is None or not record.generated_tokens:
            self._open.prompt_tokens += record.prompt_tokens
            return
        self._waits.append(first - record.began_at)
        for step, share in self._shares(record.granted_at or first, first):
            step.prompt_tokens += share * record.prompt_tokens
        for step, share in self._shares(first, record.last_token_at or first):
            step.generated_tokens += share * record.generated_tokens

    def _shares(self, begins: float, ends: float) -> Iterable[tuple[Step, float]]:
        """The steps of a time, and how much of it lies in each."""
        if begins >= self._open.since or ends <= begins:
            return [(self._open, 1.0)]
        shares = [(self._open, self._open.share(begins, ends))]
        for step in reversed(self._steps):
            if step.until <= begins:
                break
            shares.append((step, step.share(begins, ends)))
        return shares

    async def _sample(self) -> None:
        readings = await asyncio.to_thread(self._readings)
        snapshot, step = self._gateway.snapshot(), self._open
        predicted: Counter[str] = Counter()
        measured: Counter[str] = Counter()
        for engine in snapshot.engines():
            predicted.update(engine.need_mb)
            measured.update(engine.used_mb)
        names = self._gateway.devices()
        step.memory = {name: (predicted[name], measured[name]) for name in names}
        step.utilization = {name: each.utilization for name, each in readings.items()}
        step.running, step.queued = snapshot.active, snapshot.queued
        step.first_token = _percentiles(self._waits)
        step.until, step.at = time.monotonic(), round(time.time())
        self._steps.append(step)
        self._open = Step(step.until)
        self._waits.clear()


def columns_of(steps: Sequence[Step]) -> dict[str, Any]:
    """The steps as columns of equal length; null where nothing is known."""
    devices = dict.fromkeys(name for step in steps for name in step.memory)
    gpus = dict.fromkeys(name for step in steps for name in step.utilization)
    return {
        "step_seconds": STEP_S,
        "times": [step.at for step in steps],
        "requests": [step.requests for step in steps],
        "errors": [step.errors for step in steps],
        "prompt_tokens_per_second": [_rate(step, step.prompt_tokens) for step in steps],
        "generated_tokens_per_second": [_rate(step, step.generated_tokens) for step in steps],
        "first_token_seconds": {
            "median": [step.first_token and round(step.first_token[0], 4) for step in steps],
            "p95": [step.first_token and round(step.first_token[1], 4) for step in steps],
        },
        "running": [step.running for step in steps],
        "queued": [step.queued for step in steps],
        "memory": {
            name: {
                "predicted_mb": [step.memory.get(name, (None, None))[0] for step in steps],
                "measured_mb": [step.memory.get(name, (None, None))[1] for step in steps],
            }
            for name in devices
        },
        "gpu_utilization": {name: [step.utilization.get(name) for step in steps] for name in gpus},
    }


def _rate(step: Step, amount: float) -> float:
    return round(amount / max(1e-3, step.until - step.since), 2)


def _percentiles(values: Iterable[float]) -> tuple[float, float] | None:
    """The median and the 95th percentile, each one of the values; None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    count = len(ordered)
    return ordered[math.ceil(0.5 * count) - 1], ordered[math.ceil(0.95 * count) - 1]
