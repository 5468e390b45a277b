"""What one request takes of its key's limits.

    admitted ──> reserved ──> counted ──> ended

It is admitted when its head has come. Before it queues, what it will probably take of the key's
tokens is reserved, and corrected where the server counts the prompt itself. When it ends, however
it does, what it took replaces what was reserved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from myllm.errors import InvalidRequest, KeyLimitReached
from myllm.gateway.key_limits.token_window import TokenWindow
from myllm.sessions.keys import Key


@dataclass(slots=True)
class KeyUse:
    """What the requests of one key take now: `running` of them are under way or wait in a queue.

    `at` is when one came or ended last.
    """

    running: int = 0
    at: float = 0.0
    tokens: TokenWindow = field(default_factory=TokenWindow)


class Allowance:
    """One request of `key`, whose limits are those that it had when the request came.

    Only a request that `counts` takes from the limits, until `end` is called. `is_reserved` is set
    when `reserve` has accepted it.
    """

    __slots__ = (
        *("_clock", "_counts", "_is_counted", "_key", "_limit"),
        *("_prompt", "_reserved", "_second", "_use", "is_reserved"),
    )

    def __init__(self, key: Key, use: KeyUse, counts: bool, clock: Callable[[], float]) -> None:
        self._key = key.name
        self._limit = key.tokens_per_minute
        self._counts = counts
        self._use = use
        self._clock = clock
        self._prompt = 0  # what was reserved for it
        self._reserved = 0
        self._second: int | None = None
        self._is_counted = False
        self.is_reserved = asyncio.Event()

    def reserve(self, prompt: int, answer: int) -> None:
        """Reserve an estimated `prompt` and the longest `answer`, both in tokens.

        Raises KeyLimitReached if they exceed what is left of this minute, and InvalidRequest if
        they exceed the whole limit.
        """
        now = self._clock()
        self._require(prompt, answer, "about ", now)
        self._prompt = prompt
        self._hold(prompt + answer, now)
        self.is_reserved.set()

    def count(self, prompt: int, answer: int) -> None:
        """Correct the reservation, now that the `prompt` is counted.

        Raises what `reserve` raises, unless it was counted before: an answer that has begun ends.
        """
        now = self._clock()
        if not self._is_counted:
            self._is_counted = True
            self._require(prompt, answer, "", now)
        self._prompt = prompt
        self._hold(prompt + answer, now)

    def settle(self, prompt: int, generated: int) -> None:
        """Replace what was reserved by what was used.

        An engine that was cut off may not have told how long the prompt was.
        """
        used = (prompt or (self._prompt if generated else 0)) + generated
        if used != self._reserved:
            self._hold(used, self._clock())

    def end(self) -> None:
        """The request is over."""
        if self._counts:
            self._use.running -= 1
            self._use.at = self._clock()

    def _require(self, prompt: int, answer: int, roughly: str, now: float) -> None:
        limit, tokens = self._limit, prompt + answer
        if limit is None:
            return
        if tokens > limit:
            raise InvalidRequest(
                f"This request can take {roughly}{tokens} tokens, {answer} of them for the answer, "
                f"but the key '{self._key}' may use {limit} per minute; shorten the prompt, or "
                "lower max_tokens"
            )
        if wait_s := self._use.tokens.wait_s(tokens - self._reserved, limit, now):
            left = max(0, limit - self._use.tokens.used(now))
            raise KeyLimitReached(
                f"The key '{self._key}' may use {limit} tokens per minute, of which {left} are "
                f"left; this request can take {roughly}{tokens}",
                wait_s,
            )

    def _hold(self, tokens: int, now: float) -> None:
        if self._second is None:
            self._second = self._use.tokens.count(tokens, now)
        else:
            self._use.tokens.correct(self._second, tokens - self._reserved, now)
        self._reserved = tokens
