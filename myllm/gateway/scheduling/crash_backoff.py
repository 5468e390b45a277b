"""When a model's engine keeps dying: back off, and say why.

A strike is a death before the engine was ready, or before it delivered a single token. One
that has delivered clears the strikes. Five strikes within ten minutes close the model for 10 s,
and each further one for twice as long, up to five minutes. Two deaths in a row by the same signal,
both before the engine was ready, close it as well: a third try would end like them.
"""

from __future__ import annotations

import math
from collections import deque

STRIKES = 5
WINDOW_S = 600.0
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0


class Strikes:
    """The deaths of one model's engines; `now` is a monotonic time in seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._last_signal: int | None = None
        self._pause_s = 0.0
        self._until = 0.0

    def strike(self, now: float, loading_signal: int | None = None) -> None:
        """An engine has died without having done anything.

        `loading_signal` is what killed it before it was ready, unless it lacked memory, which
        another try with less can cure.
        """
        repeated = loading_signal is not None and loading_signal == self._last_signal
        self._last_signal = loading_signal
        self._times.append(now)
        while now - self._times[0] > WINDOW_S:
            self._times.popleft()
        if repeated or len(self._times) >= STRIKES:
            self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
            self._until = now + self._pause_s

    def clear(self) -> None:
        """An engine works."""
        self._times.clear()
        self._last_signal = None
        self._pause_s = self._until = 0.0

    def pause_s(self, now: float) -> int:
        """Whole seconds until the next try is allowed; 0: now."""
        return max(0, math.ceil(self._until - now))

    @property
    def count(self) -> int:
        """Strikes that count at the moment."""
        return len(self._times)
