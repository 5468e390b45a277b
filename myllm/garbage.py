"""Python's cyclic garbage collection, kept out of the way of requests.

A full collection takes 40 to 80 ms while 2,000 clients are connected, even if they send nothing, or
while a request with many messages is under way, and all clients wait meanwhile. So Python itself
only collects the young generations. This module collects everything while few clients are connected
and no large request is under way, or when that has not happened for some minutes. An ordinary
request leaves no cycles.
"""

from __future__ import annotations

import gc
import time
from typing import Any

_NEVER = 1_000_000_000
_AT_LEAST_EVERY_S = 300.0
_AT_MOST_EVERY_S = 1.0
_FEW = 128
_STEP = 1_024
_SMALL = 2**18
"""Bytes of all bodies under way: the objects made of these take a millisecond or two to scan."""


def keep_for_good() -> None:
    """Never scan the objects again that are alive now, such as modules that were just imported."""
    gc.freeze()


def drop_frames(error: BaseException) -> None:
    """Let go of the frames in the traceback of an `error` that has been handled, and in those of
    the errors that led to it. They hold all that a request consisted of. If they refer to the
    error, too, only the garbage collector would free it."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__, next_one = None, each.__cause__ or each.__context__
        each.__cause__ = each.__context__ = None
        each = next_one


def free_in_steps(value: Any) -> None:
    """Empty all lists and objects in `value`, which must not be used any more, a few entries at a
    time: freeing 300,000 of them in one piece keeps Python's lock for 40 ms, in a thread, too."""
    values = [value]
    while values:
        each = values.pop()
        if isinstance(each, list):
            values += [held for held in each if isinstance(held, list | dict)]
            while each:
                del each[-_STEP:]
        elif isinstance(each, dict):
            values += [held for held in each.values() if isinstance(held, list | dict)]
            while each:
                each.popitem()


class Garbage:
    """Takes over full collections from Python, whose collector may be off.

    Objects alive at startup are frozen and never scanned.
    """

    def __init__(self) -> None:
        keep_for_good()
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, _NEVER)
        gc.enable()
        self._searched = self._searches()
        self._searched_at = time.monotonic()
        self._rests_until = 0.0

    def look(self, connections: int, body_bytes: int) -> None:
        """Collect everything if it is time to: objects have aged since the last collection, and
        few clients with small requests are connected or that collection was long ago."""
        now = time.monotonic()
        if now < self._rests_until:
            return
        is_quiet = connections <= _FEW and body_bytes <= _SMALL
        overdue = now - self._searched_at > _AT_LEAST_EVERY_S
        if (is_quiet or overdue) and self._searches() != self._searched:
            gc.collect()
            self._searched, self._searched_at = self._searches(), time.monotonic()
            self._rests_until = self._searched_at + _AT_MOST_EVERY_S

    def _searches(self) -> int:
        """How often Python has collected the middle generation."""
        return int(gc.get_stats()[1]["collections"])
