"""The requests of the last minute, by key, for the moving window of the library `limits`.

The library's own storage goes by the time of day, so a clock that is set back locks a key out for
hours. It also starts a thread after each hit, which takes longer than a request's whole way through
the gateway, and keeps an entry for each key that was ever used. The thread that its constructor
starts ends within 10 ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

_MINUTE_S: Final = 60


class RequestWindows:
    """Counts the requests of each key. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._storage = _MonotonicStorage(clock)
        self._limiter = MovingWindowRateLimiter(self._storage)

    def hit(self, key: str, limit: int) -> bool:
        """Count a request of `key` unless `limit` was reached in the last minute."""
        return self._limiter.hit(_per_minute(limit), key)

    def sent(self, key: str, now: float) -> tuple[int, float]:
        """Return how many requests of `key` the last minute has, and in how many seconds none of
        them counts any more."""
        hits = self._storage.recent(key, now - _MINUTE_S)
        return len(hits), (hits[-1] + _MINUTE_S - now if hits else 0.0)

    def wait_s(self, key: str, limit: int, now: float) -> float:
        """Return in how many seconds `key` may send a request."""
        hits = self._storage.recent(key, now - _MINUTE_S)
        return hits[-limit] + _MINUTE_S - now if len(hits) >= limit else 0.0

    def forget(self, key: str) -> None:
        """Forget the requests of `key`."""
        self._storage.clear(key)


class _PerMinute(RateLimitItemPerMinute):
    """A limit, whose amount can change: what was counted before counts on."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return str(identifiers[0])


_per_minute = lru_cache(1024)(_PerMinute)


class _MonotonicStorage(MemoryStorage):
    """The times of the last requests of each key, by `clock`, and at most as many as its limit."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._hits: dict[str, deque[float]] = {}

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self._clock()
        hits = self.recent(key, now - expiry)
        if len(hits) + amount > limit:
            return False
        hits.extend([now] * amount)
        self._hits[key] = hits
        return True

    def clear(self, key: str) -> None:
        self._hits.pop(key, None)

    def recent(self, key: str, since: float) -> deque[float]:
        """Return the times after `since`; forgets those before."""
        hits = self._hits.get(key)
        if hits is None:
            return deque()
        while hits and hits[0] <= since:
            hits.popleft()
        return hits
