"""Python's search for garbage in cycles, kept out of the way of requests.

To search everything takes 30 to 70 ms while 2,000 clients are connected, and all of them wait
meanwhile. So by itself Python only searches what is young, and the rest is searched while few
requests are under way, or when that has not happened for some minutes. An ordinary request leaves
no cycles.
"""

from __future__ import annotations

import gc
import time

_NEVER = 1_000_000_000
_AT_LEAST_EVERY_S = 300.0
_FEW = 64


class Garbage:
    """Takes over from Python's collector, which may be off; nothing that is there is garbage."""

    def __init__(self) -> None:
        gc.freeze()
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, _NEVER)
        gc.enable()
        self._searched = self._searches()
        self._searched_at = time.monotonic()

    def look(self, under_way: int) -> None:
        """Search everything if it is time to: something has happened since the last time, and
        few requests are under way, or that was long ago."""
        overdue = time.monotonic() - self._searched_at > _AT_LEAST_EVERY_S
        if (under_way <= _FEW or overdue) and self._searches() != self._searched:
            gc.collect()
            self._searched, self._searched_at = self._searches(), time.monotonic()

    def _searches(self) -> int:
        """How often what is in the middle has been searched."""
        return int(gc.get_stats()[1]["collections"])
