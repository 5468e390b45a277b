"""What an engine shows of itself between two looks: tokens, answers to probes, work, files."""

from __future__ import annotations

from myllm.launcher.base import EngineUsage
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
        self._usage = EngineUsage(0.0, 0)
        self._probed_at = self._answered_at = 0  # requests that had been sent by then

    def owes_answer(self) -> bool:
        """Whether somebody waits for it, or it has not answered since the last request: whoever
        sent that may have left it in an endless computation."""
        asked = self._instance.requests != self._answered_at
        return self._instance.is_expected() or (asked and not self._instance.is_over())

    def look(self, ask_gpus: bool) -> Signs:
        """What has happened since the last look; `ask_gpus`: work of its GPUs counts, too."""
        instance = self._instance
        told, self._signs = instance.signs != self._signs, instance.signs
        heard = self._probe.heard() if self._probe is not None else Heard()
        if heard.answered:
            self._answered_at = self._probed_at
        worked, carried = self._used()
        if ask_gpus and not (told or worked) and instance.process is not None:
            worked = instance.process.is_working()
        return Signs(told, heard.answered, heard.moved, worked, carried)

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
        """Whether it had a CPU, and whether it read or wrote much. What cannot be found out is not
        held against it."""
        process = self._instance.process
        if process is None:
            return False, False
        try:
            usage = process.usage()
        except OSError:
            return True, False
        if usage is None:
            return False, False  # its own `wait` tells the instance
        worked = usage.cpu_s - self._usage.cpu_s > _LEAST_WORK_S
        much = usage.io_bytes - self._usage.io_bytes > _MUCH
        self._usage = usage
        return worked, much
