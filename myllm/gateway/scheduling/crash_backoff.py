"""Back off from a model whose engine keeps crashing.

A crash counts if the engine died before it was ready, or before it delivered a single token; an
engine that delivers resets the count. Five crashes within ten minutes close the model for 10 s, and
each further one for twice as long, up to five minutes. Two deaths in a row by the same signal, both
before the engine was ready, close it as well: a third try would end the same way.
"""

from __future__ import annotations

import math
from collections import deque

MAX_CRASHES = 5
WINDOW_S = 600.0
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0


class CrashBackoff:
    """The crashes of one model's engines; `now` is a monotonic time in seconds.

    `last_error` says why the last engine that failed did so, whether or not that counted.
    """

    def __init__(self) -> None:
        self.last_error: str | None = None
        self._times: deque[float] = deque()
        self._last_signal: int | None = None
        self._pause_s = 0.0
        self._until = 0.0

    def record_crash(self, now: float, loading_signal: int | None = None) -> None:
        """An engine has crashed, and the crash counts.

        `loading_signal` is the signal that killed it before it was ready, unless it lacked memory:
        another try with less may succeed.
        """
        repeated = loading_signal is not None and loading_signal == self._last_signal
        self._last_signal = loading_signal
        self._times.append(now)
        while now - self._times[0] > WINDOW_S:
            self._times.popleft()
        if repeated or len(self._times) >= MAX_CRASHES:
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
            self._until = now + self._pause_s

    def reset(self) -> None:
        """An engine works, so forget the crashes."""
        self._times.clear()
        self._last_signal = None
        self._pause_s = self._until = 0.0

    def pause_s(self, now: float) -> int:
        """Whole seconds until another engine may be started; 0 if it may be now."""
        return max(0, math.ceil(self._until - now))

    @property
    def crashes(self) -> int:
        """How many crashes count at the moment."""
        return len(self._times)
