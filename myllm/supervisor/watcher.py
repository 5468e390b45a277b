"""Measures the engines, and ends those that hang or take too much memory.

`engine_activity.py` gathers what an engine does, `hang_rules.py` and `memory_limit.py` judge it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextvars import Context

import structlog

from myllm.launcher.devices import HOST
from myllm.loops import in_background, keep_running, note_failure
from myllm.supervisor.engine_activity import ActivityMonitor
from myllm.supervisor.hang_rules import HangClocks
from myllm.supervisor.instance import Instance
from myllm.supervisor.memory_limit import excess
from myllm.supervisor.spec import InstanceSpec

_log = structlog.get_logger(__name__)
_EVERY_S = 2.0
# A look that is late by more than this many intervals was held up: the machine was suspended, or
# the server was stopped. The engines may have been stopped meanwhile, too.
_LATE_TURNS = 2


class Watcher:
    """Looks at every instance every two seconds or more often, and ends those that hang or grow
    beyond their bounds.

    `batch_s` returns the seconds that one batch of a prompt should take an engine.
    """

    def __init__(
        self,
        instances: Iterable[Instance],
        hang_timeout_s: float,
        batch_s: Callable[[InstanceSpec], float],
    ) -> None:
        self._instances = instances
        self._hang_timeout_s = hang_timeout_s
        self._batch_s = batch_s
        self._every_s = min(_EVERY_S, hang_timeout_s / 4)
        self._watched: dict[int, tuple[ActivityMonitor, HangClocks]] = {}
        self._looked_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; does nothing if it has begun."""
        if self._task is None:
            watching = keep_running("engine watcher", self._look, self._every_s)
            # An empty context: the task belongs to the server, not to the request that came first.
            self._task = in_background("engine watcher", watching, Context())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._forget(set())

    def measure(self, instance: Instance) -> None:
        """Read how much memory the engine takes now."""
        process = instance.process
        if process is not None and not instance.is_ending():  # or it has given some back
            instance.used = process.memory_mb() or instance.used

    async def _look(self) -> None:
        before, self._looked_at = self._looked_at, time.monotonic()
        elapsed_s = self._looked_at - before
        if elapsed_s > _LATE_TURNS * self._every_s:
            self._start_anew()
            elapsed_s = 0.0
        instances = list(self._instances)
        for instance in instances:
            try:
                self._look_at(instance, elapsed_s)
            except Exception as failure:  # noqa: BLE001 - no file descriptor is free, say
                note_failure("engine watcher", failure)
        self._forget({instance.run_id for instance in instances})

    def _start_anew(self) -> None:
        """Set all clocks to 0, and give up open probes: their timeouts ran out unwatched."""
        for monitor, clocks in self._watched.values():
            clocks.reset()
            monitor.close()

    def _look_at(self, instance: Instance, elapsed_s: float) -> None:
        if instance.run_id not in self._watched:
            self._watched[instance.run_id] = ActivityMonitor(instance), HangClocks()
        monitor, clocks = self._watched[instance.run_id]
        if not (owes := monitor.owes_answer()):
            clocks.reset()
        activity = monitor.look(ask_gpus=owes)
        if owes:
            clocks.advance(elapsed_s, activity)
            self._judge(instance, clocks)
            if not activity.reported and instance.state != "loading":
                monitor.probe(self._hang_timeout_s)
        self.measure(instance)
        self._contain(instance)

    def _judge(self, instance: Instance, clocks: HangClocks) -> None:
        loading, batch_s = instance.state == "loading", self._batch_s(instance.spec)
        if how := clocks.find_hang(self._hang_timeout_s, batch_s, loading):
            instance.declare_dead("hung", f"hung: {how} (MYLLM_HANG_TIMEOUT)")
            _log.error("engine hangs", model=str(instance.spec.key), pid=instance.pid, how=how)

    def _contain(self, instance: Instance) -> None:
        over = excess(instance.used.get(HOST, 0), instance.expected_mb)
        if over is not None and instance.state != "loading" and not instance.is_ending():
            instance.declare_dead("too large", over)
            _log.error("engine too large", model=str(instance.spec.key), pid=instance.pid, how=over)

    def _forget(self, live: set[int]) -> None:
        for run in [run for run in self._watched if run not in live]:
            monitor, _ = self._watched.pop(run)
            monitor.close()
