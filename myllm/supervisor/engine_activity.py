"""What an engine shows of itself between two looks: tokens, answers to probes, work, files."""

from __future__ import annotations

import psutil

from myllm.launcher.local.devices import GpuReader
from myllm.supervisor.hang_rules import Signs
from myllm.supervisor.instance import Instance
from myllm.supervisor.slots_probe import Heard, Probe

# Seconds of CPU between two looks; less is housekeeping, such as the answers to probes.
_LEAST_WORK_S = 0.02
# Bytes between two looks; what an engine prints is less.
_MUCH = 2**20


class Observed:
    """One engine. Everything is compared with the last look: housekeeping must not add up to
    work."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._probe: Probe | None = None
        self._signs = 0
        self._cpu_s = 0.0
        self._bytes = 0
        self._probed_at = self._answered_at = 0  # requests that had been sent by then

    def owes_answer(self) -> bool:
        """Whether somebody waits for it, or it has not answered since the last request: whoever
        sent that may have left it in an endless computation."""
        asked = self._instance.requests != self._answered_at
        return self._instance.is_expected() or (asked and not self._instance.is_over())

    def look(self, gpus: GpuReader | None) -> Signs:
        """What has happened since the last look."""
        instance = self._instance
        told, self._signs = instance.signs != self._signs, instance.signs
        heard = self._probe.heard() if self._probe is not None else Heard()
        if heard.answered:
            self._answered_at = self._probed_at
        worked, carried = self._used()
        if gpus is not None and not (told or worked) and instance.pid is not None:
            worked = gpus.is_working(instance.pid)
        return Signs(told, heard.answered, heard.moved, worked, carried)

    def probe(self, timeout_s: float) -> None:
        """Ask it for a sign of life, unless an earlier question is still open."""
        if self._probe is None and self._instance.socket is not None:
            self._probe = Probe(self._instance.socket)
        if self._probe is not None and self._probe.ask(timeout_s):
            self._probed_at = self._instance.requests

    def close(self) -> None:
        """Give up an open probe; the next one has a new connection."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _used(self) -> tuple[bool, bool]:
        """Whether it had a CPU, and whether it read or wrote much. What cannot be found out is not
        held against it."""
        if self._instance.pid is None:
            return False, False
        try:
            process = psutil.Process(self._instance.pid)
            times = process.cpu_times()
            cpu_s, carried = times.user + times.system, _carried(process)
        except psutil.NoSuchProcess:
            return False, False  # its own `wait` tells the instance
        except (OSError, psutil.Error):
            return True, False
        worked, much = cpu_s - self._cpu_s > _LEAST_WORK_S, carried - self._bytes > _MUCH
        self._cpu_s, self._bytes = cpu_s, carried
        return worked, much


def _carried(process: psutil.Process) -> int:
    """Bytes that it has read from and written to files so far, cached or not; 0 where that is
    not told."""
    if not hasattr(process, "io_counters"):
        return 0
    counters = process.io_counters()
    return int(counters.read_chars + counters.write_chars)
