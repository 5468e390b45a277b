"""What an engine does between two looks: tokens, answers to probes, work, file I/O."""

from __future__ import annotations

from myllm.launcher.base import EngineUsage
from myllm.supervisor.hang_rules import EngineActivity
from myllm.supervisor.instance import Instance
from myllm.supervisor.slots_probe import Probe, ProbeResult

# Seconds of CPU between two looks; less is housekeeping, such as answering probes.
_MIN_WORK_S = 0.02
# Bytes between two looks; an engine prints less.
_MUCH = 2**20


class ActivityMonitor:
    """Compares one engine with the last look at it, so that housekeeping does not add up to
    work."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._probe: Probe | None = None
        self._signs = 0
        self._usage = EngineUsage(0.0, 0)
        self._probed_at = self._answered_at = 0  # requests that had been sent by then

    def owes_answer(self) -> bool:
        """Whether a request waits for it, or it has not answered since the last request, whose
        client may have left it in an endless computation."""
        asked = self._instance.requests != self._answered_at
        return self._instance.is_expected() or (asked and not self._instance.is_over())

    def look(self, ask_gpus: bool) -> EngineActivity:
        """What has happened since the last look; `ask_gpus`: work of its GPUs counts, too."""
        instance = self._instance
        reported, self._signs = instance.signs != self._signs, instance.signs
        result = self._probe.take_result() if self._probe is not None else ProbeResult()
        if result.answered:
            self._answered_at = self._probed_at
        worked, did_io = self._used()
        if ask_gpus and not (reported or worked) and instance.process is not None:
            worked = instance.process.is_working()
        return EngineActivity(reported, result.answered, result.progressed, worked, did_io)

    def probe(self, timeout_s: float) -> None:
        """Ask it for a sign of life, unless an earlier question is still open."""
        if self._probe is None and self._instance.process is not None:
            self._probe = Probe(self._instance.process.connect)
        if self._probe is not None and self._probe.ask(timeout_s):
            self._probed_at = self._instance.requests

    def close(self) -> None:
        """Give up an open probe; the next one has a new connection."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _used(self) -> tuple[bool, bool]:
        """Whether it used a CPU, and whether it read or wrote much. A failed reading is not held
        against the engine."""
        process = self._instance.process
        if process is None:
            return False, False
        try:
            usage = process.usage()
        except OSError:
            return True, False
        if usage is None:
            return False, False  # the instance sees the end by itself
        worked = usage.cpu_s - self._usage.cpu_s > _MIN_WORK_S
        much = usage.io_bytes - self._usage.io_bytes > _MUCH
        self._usage = usage
        return worked, much
