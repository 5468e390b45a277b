"""What the processes use and whether they still do anything.

An engine hangs when it has something to do, and yet for a whole while gives no token, makes no
progress and spends no time on a CPU. A long batch is no hang: its CPU time grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextvars import Context

import psutil
import structlog

from myllm.loops import in_background, keep_running, note_failure
from myllm.supervisor.devices import GpuReader, used_by
from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)
_EVERY_S = 2.0
# Less than this part of a CPU is housekeeping, such as the comments of an idle stream.
_LEAST_WORK = 0.01


class Watcher:
    """Looks at every instance each two seconds or more often, and ends those that hang."""

    def __init__(
        self, instances: Iterable[Instance], hang_timeout_s: float, gpus: GpuReader | None
    ) -> None:
        self._instances = instances
        self._gpus = gpus
        self._hang_timeout_s = hang_timeout_s
        self._every_s = min(_EVERY_S, hang_timeout_s / 4)
        self._cpu_s: dict[int, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, unless it does already."""
        if self._task is None:
            watching = keep_running("engine watcher", self._look, self._every_s)
            # It is the server's, not the request's that came first.
            self._task = in_background("engine watcher", watching, Context())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def measure(self, instance: Instance) -> None:
        """Read what the process uses now."""
        if instance.pid is None:
            return
        try:
            times = psutil.Process(instance.pid).cpu_times()
        except psutil.NoSuchProcess:
            return  # its own `wait` tells the instance
        if not instance.is_ending():  # or it has given some of it back already
            instance.used = used_by(instance.pid, self._gpus) or instance.used
        cpu_s, before = times.user + times.system, self._cpu_s.get(instance.run_id, 0.0)
        # Always against the last look: housekeeping must not add up to work.
        self._cpu_s[instance.run_id] = cpu_s
        if cpu_s - before > _LEAST_WORK * self._every_s:
            instance.sign_of_life()

    async def _look(self) -> None:
        instances = list(self._instances)
        for instance in instances:
            try:
                self.measure(instance)
            except (OSError, psutil.Error) as failure:  # no file descriptor is free, say
                note_failure("engine watcher", failure)
            silent_s = instance.silent_s()
            if silent_s > self._hang_timeout_s:
                instance.declare_dead(
                    "hung",
                    f"hung: no token, no progress and no work for {silent_s:.0f} s "
                    "(MYLLM_HANG_TIMEOUT)",
                )
                _log.error("engine hangs", model=str(instance.spec.key), pid=instance.pid)
        live = {instance.run_id for instance in instances}
        self._cpu_s = {run: cpu for run, cpu in self._cpu_s.items() if run in live}
