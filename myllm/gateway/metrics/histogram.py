"""A histogram that costs little to add to; prometheus-client's own takes a lock for each value."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
    640.0, 1280.0, 2560.0, 5120.0, 10240.0,
)  # fmt: skip
"""Bounds for durations, from the first token of a small model to answers of almost three hours."""
TOKENS: Final = (
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0,
    20000.0, 50000.0, 100000.0, 200000.0, 500000.0, 1000000.0,
)  # fmt: skip


class Histogram:
    """How many values were at most as high as each of `bounds`, and above the one before; the last
    of the `counts` is for higher values. `sum` adds all of them up."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, counts: Iterable[int], total: float) -> None:
        """Add values that were counted by the same bounds, and that add up to `total`."""
        self.counts = [one + more for one, more in zip(self.counts, counts, strict=True)]
        self.sum += total

    def copy(self) -> Histogram:
        """Return a histogram that does not change with this one."""
        same = Histogram.__new__(Histogram)
        same.bounds, same.counts, same.sum = self.bounds, self.counts.copy(), self.sum
        return same
