"""Memory as a budget: what fits, what must leave for it, and what never fits. All in MiB.

Two bounds hold at once for each device: what MyLLM's engines may take together (the budget), and
what is really free, because other programs use memory too. An engine is charged to the budget with
what it needs, from its start to its end. The free memory shows that only when it has loaded, so
until then its charge is subtracted from what is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from myllm.launcher.devices import MemoryByDevice

Headroom = dict[str, float]
"""What a new engine may take, by device name; `UNBOUNDED` where nothing limits it."""

UNBOUNDED = float("inf")


@dataclass
class _Charge:
    need: MemoryByDevice
    loading: bool = True


class MemoryBudget:
    """What each run is charged with. `limits` has the devices that are bounded; `freed_at` is when
    a run has ended last."""

    def __init__(self, budget: Mapping[str, int]) -> None:
        self.limits: Mapping[str, int] = dict(budget)
        self._charges: dict[int, _Charge] = {}
        self.freed_at = float("-inf")

    def reserve(self, run: int, need: MemoryByDevice) -> None:
        """Charge a run that starts with `need`."""
        self._charges[run] = _Charge(need)

    def loaded(self, run: int, need: MemoryByDevice | None = None) -> None:
        """A run has loaded, so the free memory shows what it took: `need`, if that was measured."""
        self._charges[run] = _Charge(need or self._charges[run].need, loading=False)

    def release(self, run: int, now: float) -> None:
        """A run has ended; it is charged with nothing any more."""
        self._charges.pop(run, None)
        self.freed_at = now

    def charge(self, run: int) -> MemoryByDevice:
        """What the run is charged with."""
        return self._charges[run].need

    def taken(self) -> dict[str, float]:
        """What all runs together are charged with, per device."""
        return total(charge.need for charge in self._charges.values())

    def headroom(self, free: MemoryByDevice) -> Headroom:
        """What a new engine may take now, if `free` is free."""
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
    """The sum of `needs`, per device."""
    sums: dict[str, float] = {}
    for need in needs:
        for device, mb in need.items():
            sums[device] = sums.get(device, 0) + mb
    return sums


def fits(need: MemoryByDevice, headroom: Mapping[str, float]) -> bool:
    """Whether `need` fits into `headroom`; devices that it does not name are unbounded."""
    return all(mb <= headroom.get(device, UNBOUNDED) for device, mb in need.items())


def plus(headroom: Mapping[str, float], *needs: MemoryByDevice, sign: int = 1) -> Headroom:
    """`headroom` with `needs` added, or subtracted if `sign` is -1."""
    more = total(needs)
    return {device: mb + sign * more.get(device, 0) for device, mb in headroom.items()}


def fewest_to_leave(
    need: MemoryByDevice,
    headroom: Mapping[str, float],
    candidates: Sequence[tuple[int, MemoryByDevice]],
) -> list[int] | None:
    """Which runs must leave so that `need` fits: the first of `candidates` first, and no more than
    necessary. None if all of them together are not enough."""
    leaving: list[tuple[int, MemoryByDevice]] = []
    for candidate in candidates:
        lacking = [d for d, mb in need.items() if mb > _with(headroom, leaving).get(d, UNBOUNDED)]
        if not lacking:
            break
        if any(candidate[1].get(device, 0) > 0 for device in lacking):
            leaving.append(candidate)
    if not fits(need, _with(headroom, leaving)):
        return None
    for candidate in reversed(
        list(leaving)
    ):  # a later one may have made an earlier one unnecessary
        others = [each for each in leaving if each is not candidate]
        if fits(need, _with(headroom, others)):
            leaving = others
    return [run for run, _ in leaving]


def _with(headroom: Mapping[str, float], leaving: Iterable[tuple[int, MemoryByDevice]]) -> Headroom:
    return plus(headroom, *(need for _, need in leaving))
