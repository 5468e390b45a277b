"""Asks each engine for its own counters, in the background.

Each engine has a connection of its own for this, so that the questions do not count as requests:
they keep no engine loaded, and no answer to them is a sign of life. An engine answers them between
two batches. One that has had no request since the last answer is not asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import httpx

from myllm.loops import in_background, keep_running
from myllm.supervisor.engine_client import EngineClient
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey

EVERY_S: Final = 5.0
# An engine on few cores may take this long for one batch of a prompt.
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True)
class EngineAnswers:
    """What an engine answered last: the bodies of `/metrics` and of `/slots`."""

    metrics: bytes
    slots: bytes


class EnginePolls:
    """Keeps the latest answers of the engines among `instances` that have loaded."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self._instances = instances
        self._polls: dict[int, _Poll] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask every `EVERY_S` seconds."""
        asking = keep_running("polling engines", self.ask, EVERY_S)
        self._task = in_background("polling engines", asking)

    def stop(self) -> None:
        """Give up all questions."""
        if self._task is not None:
            self._task.cancel()
        self._forget(set())

    async def ask(self) -> None:
        """Ask every engine that has had requests since its last answer."""
        instances = [each for each in self._instances if not each.is_over()]
        self._forget({each.run_id for each in instances})
        for instance in instances:
            if instance.state in ("ready", "draining") and not instance.is_ending():
                if instance.run_id not in self._polls:
                    self._polls[instance.run_id] = _Poll(instance)
                self._polls[instance.run_id].ask()

    def answers(self) -> dict[InstanceKey, EngineAnswers]:
        """The latest answers of the engines that run now; of two engines of one model, those of the
        younger one."""
        live = sorted(each.run_id for each in self._instances if not each.is_over())
        polls = (self._polls[run] for run in live if run in self._polls)
        return {each.key: each.answers for each in polls if each.answers is not None}

    def _forget(self, live: set[int]) -> None:
        for run in [run for run in self._polls if run not in live]:
            self._polls.pop(run).close()


class _Poll:
    """The questions to one engine, one at a time."""

    def __init__(self, instance: Instance) -> None:
        assert instance.process is not None
        self.key = instance.spec.key
        self.answers: EngineAnswers | None = None
        self._instance = instance
        self._client = EngineClient(instance.process.connect)
        self._task: asyncio.Task[None] | None = None
        self._answered_at: int | None = None  # requests that it had been sent, and answered

    def ask(self) -> None:
        is_free = self._task is None or self._task.done()
        if is_free and self._instance.requests != self._answered_at:
            self._task = in_background("polling an engine", self._ask())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._client.close()

    async def _ask(self) -> None:
        instance = self._instance
        requests = None if instance.client.open_requests else instance.requests
        try:
            metrics = await self._client.get("/metrics", _TIMEOUT_S)
            slots = await self._client.get("/slots", _TIMEOUT_S)
        except httpx.TransportError:
            return  # it is busy with a long batch, or has died
        if metrics.status == slots.status == 200:
            self.answers = EngineAnswers(metrics.body, slots.body)
            self._answered_at = requests
