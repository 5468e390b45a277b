"""Admits the requests of keys with limits."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from myllm.errors import KeyLimitReached
from myllm.gateway.key_limits.allowance import Allowance, KeyUse
from myllm.gateway.key_limits.token_window import WINDOW_S
from myllm.sessions.keys import Key

if TYPE_CHECKING:  # importing the library takes 15 ms, and most servers have no key with limits
    from myllm.gateway.key_limits.request_windows import RequestWindows

_AT_ONCE_RETRY_S: Final = 1


class Left(NamedTuple):
    """What is left of the limit on `what` (requests or tokens) per minute.

    `reset_s` is after how many seconds all of it is left again, if no other request comes.
    """

    what: str
    limit: int
    remaining: int
    reset_s: int


def is_limited(key: Key) -> bool:
    """Return whether the requests of `key` are counted at all."""
    return (
        key.requests_per_minute is not None
        or key.tokens_per_minute is not None
        or key.concurrent_requests is not None
    )


class KeyLimits:
    """What the requests of each key take, by its name, so that a change of the key changes nothing
    of what is counted. Keys that rest for a minute are forgotten. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: OrderedDict[str, KeyUse] = OrderedDict()  # the longest unused first
        self._requests: RequestWindows | None = None

    async def admit(self, key: Key, counts: bool) -> Allowance:
        """Let a request of `key` in, which takes from its limits if it `counts`; then `end` must be
        called. Raises KeyLimitReached."""
        if key.requests_per_minute is not None and self._requests is None:
            await self._load()
        now = self._clock()
        use = self._use_of(key.name, now)
        if len(self._uses) > 1:
            self._forget_two(now)
        if counts:
            self._require(key, use, now)
            use.running += 1
        return Allowance(key, use, counts, self._clock)

    def left(self, key: Key) -> list[Left]:
        """Return what is left of each limit per minute that `key` has."""
        now, use, left = self._clock(), self._uses.get(key.name), []
        limit = key.requests_per_minute
        if limit is not None and self._requests is not None:
            sent, reset_s = self._requests.sent(key.name, now)
            left.append(Left("requests", limit, max(0, limit - sent), math.ceil(reset_s)))
        limit = key.tokens_per_minute
        if limit is not None:
            used, reset_s = (use.tokens.used(now), use.tokens.reset_s(now)) if use else (0, 0)
            left.append(Left("tokens", limit, max(0, limit - used), reset_s))
        return left

    def _require(self, key: Key, use: KeyUse, now: float) -> None:
        name, most = key.name, key.concurrent_requests
        if most is not None and use.running >= most:
            raise KeyLimitReached(
                f"The key '{name}' has reached its limit on requests at once ({most})",
                _AT_ONCE_RETRY_S,
            )
        limit = key.tokens_per_minute
        if limit is not None and (wait_s := use.tokens.wait_s(1, limit, now)):
            raise KeyLimitReached(
                f"The key '{name}' has reached its limit on tokens per minute ({limit})", wait_s
            )
        limit = key.requests_per_minute
        if limit is None or self._requests is None or self._requests.hit(name, limit):
            return
        raise KeyLimitReached(
            f"The key '{name}' has reached its limit on requests per minute ({limit})",
            math.ceil(self._requests.wait_s(name, limit, now)),
        )

    def _use_of(self, name: str, now: float) -> KeyUse:
        use = self._uses.get(name)
        if use is None:
            use = self._uses[name] = KeyUse()
        else:
            self._uses.move_to_end(name)
        use.at = now
        return use

    def _forget_two(self, now: float) -> None:
        """Forget keys that rest. One request adds one key at most, so two for each are enough."""
        for _ in range(2):
            name, use = next(iter(self._uses.items()))
            if use.running or now - use.at <= WINDOW_S:
                if not use.running:
                    return  # the others can wait: most of them rest for a shorter time
                self._uses.move_to_end(name)
                continue
            del self._uses[name]
            if self._requests is not None:
                self._requests.forget(name)

    async def _load(self) -> None:
        windows = await asyncio.to_thread(_windows, self._clock)
        self._requests = self._requests or windows


def _windows(clock: Callable[[], float]) -> RequestWindows:
    from myllm.gateway.key_limits.request_windows import RequestWindows

    return RequestWindows(clock)
