"""Counts the starts and the ends of engines."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from myllm.gateway.metrics.histogram import SECONDS, Histogram
from myllm.gateway.observers.observer import Observer
from myllm.supervisor.exit_cause import Cause
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey


class EngineCounts(Observer):
    """Counts what has become of engines since the start of the server.

    `loads` are by result: `success`, `failure`, or `cancelled` if the engine was asked to leave
    before it had loaded. `evictions` are the engines that were asked to leave afterwards, by
    reason. `restarts` are the engines that replace one that died, by what ended that one (see
    `supervisor/exit_cause.py: Cause`).
    """

    def __init__(self) -> None:
        self.loads: Counter[tuple[InstanceKey, str]] = Counter()
        self.load_seconds: dict[InstanceKey, Histogram] = {}
        self.evictions: Counter[tuple[InstanceKey, str]] = Counter()
        self.restarts: Counter[tuple[InstanceKey, str]] = Counter()
        self._died: dict[InstanceKey, str] = {}

    def engine_started(self, instance: Instance) -> None:
        key = instance.spec.key
        for cause in get_args(Cause):  # a series must begin with 0, or its first increase is lost
            self.restarts.setdefault((key, cause), 0)
        if (cause := self._died.pop(key, None)) is not None:
            self.restarts[key, cause] += 1

    def engine_ready(self, instance: Instance) -> None:
        key = instance.spec.key
        self.loads[key, "success"] += 1
        if key not in self.load_seconds:
            self.load_seconds[key] = Histogram(SECONDS)
        self.load_seconds[key].observe(instance.load_seconds)

    def engine_exited(self, instance: Instance) -> None:
        key = instance.spec.key
        if instance.error is not None and instance.death is not None:
            self._died[key] = instance.death.cause
        if instance.ready_at is None:
            self.loads[key, "cancelled" if instance.error is None else "failure"] += 1
        elif instance.error is None:
            self.evictions[key, _in_a_word(instance.stop_reason)] += 1

    def copy(self) -> EngineCounts:
        """Return counts that do not change with these."""
        same = EngineCounts()
        same.loads, same.evictions = self.loads.copy(), self.evictions.copy()
        same.restarts = self.restarts.copy()
        same.load_seconds = {key: each.copy() for key, each in self.load_seconds.items()}
        return same


def _in_a_word(reason: str) -> str:
    """The reason why an engine was stopped as a label, which does not name other models."""
    words = {"evicted for": "room", "the server stops": "shutdown"}
    return next((word for begin, word in words.items() if reason.startswith(begin)), reason)
