"""Notices when the event loop is blocked: while one piece of work keeps it, nobody is served.

The loop notes the time twenty times a second, and a thread looks whether it still does. How long
the loop was late tells how long it was blocked, less what was nobody's fault:

  - The loop's thread waited for a core, because other programs had them all. Linux counts that.
  - The process did not run at all: it was stopped, or the machine slept. Then the watching thread
    did not run either, and the process took no CPU time. (When it took some, a thread held
    Python's lock, and that blocks the loop as its own work does.)

So a block of more than `LIMIT_S` and one interval is always noticed, one of less than `LIMIT_S`
never.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from types import FrameType

import structlog

from myllm.counters import count
from myllm.loops import note_failure

_log = structlog.get_logger(__name__)

LIMIT_S = 0.1
_EVERY_S = 0.05
_LATE_LOOK_S = 1.2 * _EVERY_S
# Only the innermost: what is further out is the loop itself.
_MOST_FRAMES = 24


@dataclass(frozen=True)
class _Late:
    """The loop should have noted the time at `due`, and did so at `at`; of that time it computed
    for `computed_s` at least and waited for a core for `waited_s`."""

    due: float
    at: float
    computed_s: float
    waited_s: float

    def blocked_s(self, lost_s: float) -> float:
        """How long it was blocked, when the process did not run for `lost_s`."""
        return max(self.computed_s, self.at - self.due - self.waited_s - lost_s)


class LoopWatch:
    """Watches the loop that it is started in; counts blocks (`counted()`), and logs each with the
    stack."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._late: deque[_Late] = deque()
        # What the thread alone uses: until when for how long the process did not run, and where
        # the loop was when the thread had waited longest.
        self._losses: list[tuple[float, float]] = []
        self._seen: tuple[float, dict[str, str]] | None = None

    def start(self) -> None:
        """Watch the running loop, whose thread calls this, until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._ident = threading.get_ident()
        self._core = CoreWaits(threading.get_native_id())
        self._due, self._spent = time.monotonic(), self._spends()
        self._beat()
        threading.Thread(target=self._watch, name="loop watch", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer; called in the loop's thread."""
        self._over.set()
        self._timer.cancel()

    # In the loop's thread

    def _beat(self) -> None:
        now, spent = time.monotonic(), self._spends()
        if now - self._due > LIMIT_S:
            computed_s, waited_s = (new - old for new, old in zip(spent, self._spent, strict=True))
            self._late.append(_Late(self._due, now, computed_s - _EVERY_S, waited_s))
        self._due, self._spent = now + _EVERY_S, spent
        self._timer = self._loop.call_later(_EVERY_S, self._beat)

    def _spends(self) -> tuple[float, float]:
        """How long it has computed, and waited for a core."""
        return time.thread_time(), self._core.seconds()

    # In the thread of its own

    def _watch(self) -> None:
        self._own_core = CoreWaits(threading.get_native_id())
        self._due_then, self._now = self._due, self._clocks()
        is_over = False
        while not is_over:
            is_over = self._over.wait(_EVERY_S)
            try:
                self._look()
            except Exception as failure:  # noqa: BLE001 - the next look may work
                note_failure("event loop watch", failure)
        self._own_core.close()
        self._core.close()

    def _clocks(self) -> tuple[float, float, float, float]:
        """The time; how long this process has computed; how long the loop's thread and this one
        have waited for a core."""
        waited_s, own_waited_s = self._core.seconds(), self._own_core.seconds()
        return time.monotonic(), time.process_time(), waited_s, own_waited_s

    def _look(self) -> None:
        """Judge the blocks that have ended, and see where one is that lasts."""
        # Before the clock is read: what is late only afterwards may be so because of a pause that
        # the next look will notice.
        due, ended = self._due, len(self._late)
        now = self._clocks()
        took, *rest = (new - old for new, old in zip(now, self._now, strict=True))
        self._losses = [each for each in self._losses if each[0] > self._due_then]
        self._losses.append((now[0], _lost_s(took, *rest)))
        is_late = now[0] - due > LIMIT_S / 2
        if is_late and (self._seen is None or took > self._seen[0]):
            # If Python's lock was held for `took`, it was let go where the loop is now.
            self._seen = took, self._stacks()
        for _ in range(ended):
            self._judge(self._late.popleft())
        if ended or not is_late:
            self._seen = None
        self._due_then, self._now = due, now

    def _judge(self, late: _Late) -> None:
        lost = sum(seconds for at, seconds in self._losses if at > late.due)
        blocked = late.blocked_s(lost)
        seen = self._seen[1] if self._seen else {"stack": "not seen"}
        if blocked <= LIMIT_S:
            return
        count("event loop blocked")
        _log.warning("event loop blocked", seconds=round(blocked, 3), **seen)

    def _stacks(self) -> dict[str, str]:
        """Where the loop's thread is, and where the others are, one of which may keep it waiting
        for Python's lock; innermost last."""
        frames, me = sys._current_frames(), threading.get_ident()
        others = [
            f"{each.name}: {_stack(frames.get(each.ident or 0), 1)}"
            for each in threading.enumerate()
            if each.ident not in (me, self._ident)
        ]
        stack = _stack(frames.get(self._ident), _MOST_FRAMES)
        return {"stack": stack, "threads": "\n".join(others)}


def _lost_s(took: float, computed: float, loop_waited: float, waited: float) -> float:
    """How long the process did not run, or not all of it, while a look `took` that long.

    A look that was in time proves that it did. This one may have been late because a thread kept
    Python's lock, which either computed or waited for a core itself.
    """
    unknown = took - computed - loop_waited if took > _LATE_LOOK_S else 0.0
    return max(unknown, waited)


def _stack(frame: FrameType | None, most: int) -> str:
    lines: deque[str] = deque()
    while frame is not None and len(lines) < most:
        code = frame.f_code
        lines.appendleft(f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}")
        frame = frame.f_back
    return "\n".join(lines)


class CoreWaits:
    """How long a thread of this process has been ready to run without a core to run on."""

    def __init__(self, native_id: int) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):  # it is Linux that counts this
            path = f"/proc/self/task/{native_id}/schedstat"
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def seconds(self) -> float:
        """Since the thread began; 0 where the system does not tell."""
        if self._file is None:
            return 0.0
        return int(os.pread(self._file, 64, 0).split()[1]) / 1e9

    def close(self) -> None:
        """Ask no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
