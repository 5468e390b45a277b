"""The tokens of the last minute, as one sum for each second."""

from __future__ import annotations

from typing import Final

WINDOW_S: Final = 60


class TokenWindow:
    """Tokens by the second in which they were counted; each is forgotten a minute later.

    Times are of the monotonic clock, so that no change of the time of day matters.
    """

    __slots__ = ("_sums", "_used")

    def __init__(self) -> None:
        self._sums: dict[int, int] = {}  # in the order of the seconds, and 60 at most
        self._used = 0

    def used(self, now: float) -> int:
        """Return how many tokens the last minute has."""
        oldest = int(now) - WINDOW_S
        while self._sums and (second := next(iter(self._sums))) <= oldest:
            self._used -= self._sums.pop(second)
        return self._used

    def count(self, tokens: int, now: float) -> int:
        """Count `tokens` now, and return the second, by which `correct` finds them again."""
        self.used(now)
        second = int(now)
        self._sums[second] = self._sums.get(second, 0) + tokens
        self._used += tokens
        return second

    def correct(self, second: int, by: int, now: float) -> None:
        """Change what was counted in `second`.

        If it is forgotten already, there is nothing to take back, and what is more counts now.
        """
        self.used(now)
        if second in self._sums:
            self._sums[second] += by
            self._used += by
        elif by > 0:
            self.count(by, now)

    def wait_s(self, tokens: int, limit: int, now: float) -> int:
        """Return in how many seconds `tokens` more are within `limit`, which they must not exceed
        by themselves."""
        excess = self.used(now) + tokens - limit
        if excess <= 0:
            return 0
        for second, counted in self._sums.items():
            excess -= counted
            if excess <= 0:
                return second + WINDOW_S - int(now)
        return WINDOW_S

    def reset_s(self, now: float) -> int:
        """Return in how many seconds the window is empty if nothing else is counted."""
        self.used(now)
        return next(reversed(self._sums)) + WINDOW_S - int(now) if self._sums else 0
