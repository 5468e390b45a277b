"""Python's cyclic garbage collection, kept out of the way of requests.

A full collection takes 30 to 70 ms while 2,000 clients are connected, and all of them wait
meanwhile. So Python itself only collects the young generations. This module collects everything
while few requests are under way, or when that has not happened for some minutes. An ordinary
request leaves no cycles.
"""

from __future__ import annotations

import gc
import time

_NEVER = 1_000_000_000
_AT_LEAST_EVERY_S = 300.0
_FEW = 64


class Garbage:
    """Takes over full collections from Python, whose collector may be off.

    Objects alive at startup are frozen and never scanned.
    """

    def __init__(self) -> None:
        gc.freeze()
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, _NEVER)
        gc.enable()
        self._searched = self._searches()
        self._searched_at = time.monotonic()

    def look(self, under_way: int) -> None:
        """Collect everything if it is time to: objects have aged since the last collection, and
        few requests are under way or that collection was long ago."""
        overdue = time.monotonic() - self._searched_at > _AT_LEAST_EVERY_S
        if (under_way <= _FEW or overdue) and self._searches() != self._searched:
            gc.collect()
            self._searched, self._searched_at = self._searches(), time.monotonic()

    def _searches(self) -> int:
        """How often Python has collected the middle generation."""
        return int(gc.get_stats()[1]["collections"])
