"""Detects when the event loop is blocked: while one piece of work occupies it, no client is served.

The loop notes the time twenty times a second, and a thread checks that it still does. The time by
which the loop is late is the time for which it was blocked, less two delays that are not its fault:

  - The loop's thread waited for a core, because other programs had them all. Linux counts that.
  - The process did not run at all: it was stopped, or the machine slept. Then the watching thread
    did not run either, and the process used no CPU time. (If it did use some, a thread held
    Python's global lock, which blocks the loop just as its own work does.)

So a block of more than `LIMIT_S` plus one interval is always detected, one of less than `LIMIT_S`
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

from myllm.incidents import count
from myllm.loops import note_failure

_log = structlog.get_logger(__name__)

LIMIT_S = 0.1
_EVERY_S = 0.05
_LATE_LOOK_S = 1.2 * _EVERY_S
# Only the innermost frames: the outer ones are the loop itself.
_MAX_FRAMES = 24


@dataclass(frozen=True)
class _Late:
    """The loop should have noted the time at `due`, but did so at `at`; meanwhile it computed for
    at least `computed_s` and waited for a core for `waited_s`."""

    due: float
    at: float
    computed_s: float
    waited_s: float

    def blocked_s(self, lost_s: float) -> float:
        """How long it was blocked, when the process did not run for `lost_s`."""
        return max(self.computed_s, self.at - self.due - self.waited_s - lost_s)


class LoopWatch:
    """Watches the loop that it is started in; counts its blocks (see `incidents.py`), and logs each
    with the stack."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._late: deque[_Late] = deque()
        # Used by the watching thread only: pauses of the process as (end, seconds), and where the
        # loop was at the first check, or after another thread had held Python's lock for longest.
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
        """Stop watching; called in the loop's thread."""
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
        """How long this thread has computed, and waited for a core."""
        return time.thread_time(), self._core.seconds()

    # In the watching thread

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
        """The time, how long this process has computed, and how long the loop's thread and this
        thread have waited for a core."""
        waited_s, own_waited_s = self._core.seconds(), self._own_core.seconds()
        return time.monotonic(), time.process_time(), waited_s, own_waited_s

    def _look(self) -> None:
        """Judge the delays that have ended, and note the stack during one that lasts."""
        # Read before the clock: a delay that appears only afterwards may come from a pause that
        # only the next check can measure.
        due, ended = self._due, len(self._late)
        now = self._clocks()
        took, *rest = (new - old for new, old in zip(now, self._now, strict=True))
        self._losses = [each for each in self._losses if each[0] > self._due_then]
        self._losses.append((now[0], _lost_s(took, *rest)))
        is_late = now[0] - due > LIMIT_S / 2
        held_s = took - rest[-1]  # this thread waited for Python's lock or, on purpose, `_EVERY_S`
        if is_late and (self._seen is None or held_s > self._seen[0] + _EVERY_S):
            # If the lock was held that long, it was released where the loop is now. Otherwise the
            # first place is the one that matters: the loop may be about to go on.
            self._seen = held_s, self._stacks()
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
        """The stack of the loop's thread, innermost last, and the position of each other thread,
        one of which may hold Python's global lock."""
        frames, me = sys._current_frames(), threading.get_ident()
        del frames[me]  # this one holds `frames`, and so all that the others hold
        others = [
            f"{each.name}: {_stack(frames.get(each.ident or 0), 1)}"
            for each in threading.enumerate()
            if each.ident not in (me, self._ident)
        ]
        stack = _stack(frames.get(self._ident), _MAX_FRAMES)
        return {"stack": stack, "threads": "\n".join(others)}


def _lost_s(took: float, computed: float, loop_waited: float, waited: float) -> float:
    """How long the process, or a part of it, did not run in the `took` seconds before a check.

    A check that was in time proves that the process ran. A late one may have waited for Python's
    global lock, whose holder either computed or waited for a core; those times are not a pause.
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
        with contextlib.suppress(OSError):  # only Linux counts this
            path = f"/proc/self/task/{native_id}/schedstat"
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def seconds(self) -> float:
        """Seconds since the thread began; 0 where the system does not count them."""
        if self._file is None:
            return 0.0
        return int(os.pread(self._file, 64, 0).split()[1]) / 1e9

    def close(self) -> None:
        """Close the file; `seconds` is 0 from now on."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
