"""Memory as a budget: what fits, what must leave, and what never can. Pure arithmetic in MiB.

Two bounds hold at once for each device: what MyLLM's engines may take together (the budget),
and what is really free, because other programs use memory too. An engine counts against the
budget from its start to its end with what it needs; free memory shows it only once it has
loaded, so until then its need is taken off what is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from myllm.supervisor.devices import MemoryByDevice

Headroom = dict[str, float]
UNBOUNDED = float("inf")


@dataclass
class _Charge:
    need: MemoryByDevice
    loading: bool = True


class MemoryBudget:
    """Who takes what. `budget` has the devices that are bounded; at `freed_at` the last run
    has ended."""

    def __init__(self, budget: Mapping[str, int]) -> None:
        self.limits: Mapping[str, int] = dict(budget)
        self._charges: dict[int, _Charge] = {}
        self.freed_at = float("-inf")

    def reserve(self, run: int, need: MemoryByDevice) -> None:
        """A run starts."""
        self._charges[run] = _Charge(need)

    def loaded(self, run: int, need: MemoryByDevice | None = None) -> None:
        """A run's memory shows in what is free now; `need` is what it really took."""
        self._charges[run] = _Charge(need or self._charges[run].need, loading=False)

    def release(self, run: int, now: float) -> None:
        """A run has ended."""
        self._charges.pop(run, None)
        self.freed_at = now

    def charge(self, run: int) -> MemoryByDevice:
        """What a run is charged with."""
        return self._charges[run].need

    def taken(self) -> dict[str, float]:
        """What all runs are charged with, per device."""
        return total(charge.need for charge in self._charges.values())

    def headroom(self, free: MemoryByDevice) -> Headroom:
        """What a new engine may take now, with `free` MiB free per device."""
        taken = self.taken()
        arriving = total(charge.need for charge in self._charges.values() if charge.loading)
        devices = {*self.limits, *free}
        return {
            device: min(
                self.limits.get(device, UNBOUNDED) - taken.get(device, 0),
                free.get(device, UNBOUNDED) - arriving.get(device, 0),
            )
            for device in devices
        }

    def never_fits(self, need: MemoryByDevice) -> str | None:
        """The first device whose whole budget is too small for `need`."""
        return next((d for d, mb in need.items() if mb > self.limits.get(d, UNBOUNDED)), None)


def total(needs: Iterable[MemoryByDevice]) -> dict[str, float]:
    """The sum of several needs."""
    sums: dict[str, float] = {}
    for need in needs:
        for device, mb in need.items():
            sums[device] = sums.get(device, 0) + mb
    return sums


def fits(need: MemoryByDevice, headroom: Mapping[str, float]) -> bool:
    """Whether `headroom` has room for `need`; devices it does not name are unbounded."""
    return all(mb <= headroom.get(device, UNBOUNDED) for device, mb in need.items())


def plus(headroom: Mapping[str, float], *needs: MemoryByDevice, sign: int = 1) -> Headroom:
    """`headroom` with `needs` added (or with `sign` -1 taken off)."""
    more = total(needs)
    return {device: mb + sign * more.get(device, 0) for device, mb in headroom.items()}


def fewest_to_leave(
    need: MemoryByDevice,
    headroom: Mapping[str, float],
    candidates: Sequence[tuple[int, MemoryByDevice]],
) -> list[int] | None:
    """Which runs must leave so that `need` fits: the first of `candidates` first, and no more
    than needed. None when even all of them are not enough."""
    leaving: list[tuple[int, MemoryByDevice]] = []
    for candidate in candidates:
        lacking = [d for d, mb in need.items() if mb > _with(headroom, leaving).get(d, UNBOUNDED)]
        if not lacking:
            break
        if any(candidate[1].get(device, 0) > 0 for device in lacking):
            leaving.append(candidate)
    if not fits(need, _with(headroom, leaving)):
        return None
    for candidate in reversed(list(leaving)):  # a later one may have made an earlier superfluous
        others = [each for each in leaving if each is not candidate]
        if fits(need, _with(headroom, others)):
            leaving = others
    return [run for run, _ in leaving]


def _with(headroom: Mapping[str, float], leaving: Iterable[tuple[int, MemoryByDevice]]) -> Headroom:
    return plus(headroom, *(need for _, need in leaving))
