"""The requests of the last minute, by key, for the moving window of the library `limits`.

The library's own storage goes by the time of day, so a clock that is set back locks a key out for
hours. It also starts a thread after each hit, which takes longer than a request's whole way through
the gateway, and keeps an entry for each key that was ever used. The thread that its constructor
starts ends within 10 ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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
        self._items: dict[int, _PerMinute] = {}

    def hit(self, key: str, limit: int) -> bool:
        """Count a request of `key` unless `limit` was reached in the last minute."""
        return self._limiter.hit(self._item(limit), key)

    def remaining(self, key: str, limit: int) -> int:
        """Return how many requests `key` may send now."""
        return max(0, self._limiter.get_window_stats(self._item(limit), key).remaining)

    def wait_s(self, key: str, limit: int) -> float:
        """Return in how many seconds `key` may send a request."""
        return self._storage.leaves_in(key, limit)

    def reset_s(self, key: str) -> float:
        """Return in how many seconds no request of `key` counts, if it sends no other."""
        return self._storage.leaves_in(key, 1)

    def forget(self, key: str) -> None:
        """Forget the requests of `key`."""
        self._storage.clear(key)

    def _item(self, limit: int) -> _PerMinute:
        item = self._items.get(limit)
        if item is None:
            if len(self._items) > 1000:
                self._items.clear()
            item = self._items[limit] = _PerMinute(limit)
        return item


class _PerMinute(RateLimitItemPerMinute):
    """A limit, whose amount can change: what was counted before counts on."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return str(identifiers[0])


class _MonotonicStorage(MemoryStorage):
    """The times of the last requests of each key, by `clock`, and at most as many as its limit."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._hits: dict[str, deque[float]] = {}

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self._clock()
        hits = self._recent(key, now - expiry)
        if len(hits) + amount > limit:
            return False
        hits.extend([now] * amount)
        self._hits[key] = hits
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        now = self._clock()
        hits = self._recent(key, now - expiry)
        return (hits[0] if hits else now), len(hits)

    def clear(self, key: str) -> None:
        self._hits.pop(key, None)

    def leaves_in(self, key: str, newest: int) -> float:
        """Return in how many seconds the hit leaves that is number `newest` from the latest one;
        0 if there are fewer."""
        now = self._clock()
        hits = self._recent(key, now - _MINUTE_S)
        return hits[-newest] + _MINUTE_S - now if len(hits) >= newest else 0.0

    def _recent(self, key: str, since: float) -> deque[float]:
        hits = self._hits.get(key)
        if hits is None:
            return deque()
        while hits and hits[0] <= since:
            hits.popleft()
        return hits
