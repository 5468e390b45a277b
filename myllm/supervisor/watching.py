"""What the processes use, whether they still answer and get on, and the end of those that do not.

The rules are in `vitals.py`; what they are told is gathered here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextvars import Context

import psutil
import structlog

from myllm.loops import in_background, keep_running, note_failure
from myllm.supervisor.containment import excess
from myllm.supervisor.devices import HOST, GpuReader, used_by
from myllm.supervisor.instance import Instance
from myllm.supervisor.probing import Probe
from myllm.supervisor.spec import InstanceSpec
from myllm.supervisor.vitals import Signs, Vitals

_log = structlog.get_logger(__name__)
_EVERY_S = 2.0
# A look that comes later than this many of its turns was kept from coming, by a machine that was
# suspended or a server that was stopped: nobody looked for the rest of the time.
_LATE = 2
# Seconds of CPU between two looks; less is housekeeping, such as the answers to probes.
_LEAST_WORK_S = 0.02
# Bytes between two looks; what an engine prints is less.
_MUCH = 2**20


class _Watched:
    """What was seen of one engine so far."""

    def __init__(self) -> None:
        self.vitals = Vitals()
        self.probe: Probe | None = None
        self._signs = 0
        self._cpu_s = 0.0
        self._bytes = 0

    def look(self, instance: Instance, gpus: GpuReader | None) -> Signs:
        """What has happened since the last look.

        Always against the last look: housekeeping must not add up to work.
        """
        told, self._signs = instance.signs != self._signs, instance.signs
        heard = self.probe.heard() if self.probe is not None else None
        worked, carried = self._used(instance)
        if gpus is not None and not (told or worked) and instance.pid is not None:
            worked = gpus.is_working(instance.pid)
        answered, moved = (heard.answered, heard.moved) if heard is not None else (False, False)
        return Signs(told, answered, moved, worked, carried)

    def _used(self, instance: Instance) -> tuple[bool, bool]:
        """Whether it had a CPU, and whether it read or wrote much. What cannot be found out is not
        held against it."""
        if instance.pid is None:
            return False, False
        try:
            process = psutil.Process(instance.pid)
            times = process.cpu_times()
            cpu_s, before_s = times.user + times.system, self._cpu_s
            moved, before = _moved(process), self._bytes
        except psutil.NoSuchProcess:
            return False, False  # its own `wait` tells the instance
        except (OSError, psutil.Error):
            return True, False
        self._cpu_s, self._bytes = cpu_s, moved
        return cpu_s - before_s > _LEAST_WORK_S, moved - before > _MUCH

    def ask(self, instance: Instance, timeout_s: float) -> None:
        """Probe it."""
        if self.probe is None and instance.socket is not None:
            self.probe = Probe(instance.socket)
        if self.probe is not None:
            self.probe.ask(timeout_s)

    def close(self) -> None:
        if self.probe is not None:
            self.probe.close()


class Watcher:
    """Looks at every instance each two seconds or more often, and ends those that hang or grow
    beyond their bounds.

    `batch_s` tells how long one batch of a prompt should take an engine.
    """

    def __init__(
        self,
        instances: Iterable[Instance],
        hang_timeout_s: float,
        gpus: GpuReader | None,
        batch_s: Callable[[InstanceSpec], float],
    ) -> None:
        self._instances = instances
        self._gpus = gpus
        self._hang_timeout_s = hang_timeout_s
        self._batch_s = batch_s
        self._every_s = min(_EVERY_S, hang_timeout_s / 4)
        self._watched: dict[int, _Watched] = {}
        self._looked_at = time.monotonic()
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
        self._forget(set())

    def measure(self, instance: Instance) -> None:
        """Read how much memory the process has now."""
        if instance.pid is not None and not instance.is_ending():  # or it has given some back
            instance.used = used_by(instance.pid, self._gpus) or instance.used

    async def _look(self) -> None:
        before, self._looked_at = self._looked_at, time.monotonic()
        elapsed_s = min(self._looked_at - before, _LATE * self._every_s)
        instances = list(self._instances)
        for instance in instances:
            try:
                self._look_at(instance, elapsed_s)
            except Exception as failure:  # noqa: BLE001 - no file descriptor is free, say
                note_failure("engine watcher", failure)
        self._forget({instance.run_id for instance in instances})

    def _look_at(self, instance: Instance, elapsed_s: float) -> None:
        watched = self._watched.setdefault(instance.run_id, _Watched())
        expected = instance.is_expected()
        signs = watched.look(instance, self._gpus if expected else None)
        if not expected:
            watched.vitals.rest()
        else:
            watched.vitals.look(elapsed_s, signs)
            self._judge(instance, watched.vitals)
            if not signs.told and instance.state != "loading":
                watched.ask(instance, self._hang_timeout_s)
        self.measure(instance)
        self._contain(instance)

    def _judge(self, instance: Instance, vitals: Vitals) -> None:
        loading, batch_s = instance.state == "loading", self._batch_s(instance.spec)
        if how := vitals.hang(self._hang_timeout_s, batch_s, loading):
            instance.declare_dead("hung", f"hung: {how} (MYLLM_HANG_TIMEOUT)")
            _log.error("engine hangs", model=str(instance.spec.key), pid=instance.pid, how=how)

    def _contain(self, instance: Instance) -> None:
        over = excess(instance.used.get(HOST, 0), instance.expected_mb)
        if over is not None and instance.state != "loading" and not instance.is_ending():
            instance.declare_dead("too large", over)
            _log.error("engine too large", model=str(instance.spec.key), pid=instance.pid, how=over)

    def _forget(self, live: set[int]) -> None:
        for run in [run for run in self._watched if run not in live]:
            self._watched.pop(run).close()


def _moved(process: psutil.Process) -> int:
    """Bytes that it has read from and written to files so far, cached or not; 0 where that is
    not told."""
    if not hasattr(process, "io_counters"):
        return 0
    counters = process.io_counters()
    return int(counters.read_chars + counters.write_chars)
