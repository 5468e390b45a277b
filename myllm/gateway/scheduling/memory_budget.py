"""Memory as a budget: what fits, what must leave, and what never can. Pure arithmetic in MiB.

Two bounds hold at once for each device: what MyLLM's engines may take together (the budget),
and what is really free, because other programs use memory too. An engine counts against the
budget from its start to its end with what it needs; free memory shows it only once it has
loaded, so until then its need is taken off what is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from myllm.gateway.scheduling.tickets import Need

Space = dict[str, float]
UNBOUNDED = float("inf")


@dataclass
class _Charge:
    need: Need
    loading: bool = True


class Room:
    """Who takes what. `budget` has the devices that are bounded; at `freed_at` the last run
    has ended."""

    def __init__(self, budget: Mapping[str, int]) -> None:
        self.budget: Mapping[str, int] = dict(budget)
        self._charges: dict[int, _Charge] = {}
        self.freed_at = float("-inf")

    def take(self, run: int, need: Need) -> None:
        """A run starts."""
        self._charges[run] = _Charge(need)

    def loaded(self, run: int, need: Need | None = None) -> None:
        """A run's memory shows in what is free now; `need` is what it really took."""
        self._charges[run] = _Charge(need or self._charges[run].need, loading=False)

    def give_back(self, run: int, now: float) -> None:
        """A run has ended."""
        self._charges.pop(run, None)
        self.freed_at = now

    def need_of(self, run: int) -> Need:
        """What a run is charged with."""
        return self._charges[run].need

    def taken(self) -> Space:
        """What all runs are charged with, per device."""
        return total(charge.need for charge in self._charges.values())

    def space(self, free: Need) -> Space:
        """What a new engine may take now, with `free` MiB free per device."""
        taken = self.taken()
        arriving = total(charge.need for charge in self._charges.values() if charge.loading)
        devices = {*self.budget, *free}
        return {
            device: min(
                self.budget.get(device, UNBOUNDED) - taken.get(device, 0),
                free.get(device, UNBOUNDED) - arriving.get(device, 0),
            )
            for device in devices
        }

    def never_fits(self, need: Need) -> str | None:
        """The first device whose whole budget is too small for `need`."""
        return next((d for d, mb in need.items() if mb > self.budget.get(d, UNBOUNDED)), None)


def total(needs: Iterable[Need]) -> Space:
    """The sum of several needs."""
    sums: Space = {}
    for need in needs:
        for device, mb in need.items():
            sums[device] = sums.get(device, 0) + mb
    return sums


def fits(need: Need, space: Mapping[str, float]) -> bool:
    """Whether `space` has room for `need`; devices it does not name are unbounded."""
    return all(mb <= space.get(device, UNBOUNDED) for device, mb in need.items())


def plus(space: Mapping[str, float], *needs: Need, sign: int = 1) -> Space:
    """`space` with `needs` added (or with `sign` -1 taken off)."""
    more = total(needs)
    return {device: mb + sign * more.get(device, 0) for device, mb in space.items()}


def fewest_to_leave(
    need: Need, space: Mapping[str, float], candidates: Sequence[tuple[int, Need]]
) -> list[int] | None:
    """Which runs must leave so that `need` fits: the first of `candidates` first, and no more
    than needed. None when even all of them are not enough."""
    leaving: list[tuple[int, Need]] = []
    for candidate in candidates:
        lacking = [d for d, mb in need.items() if mb > _with(space, leaving).get(d, UNBOUNDED)]
        if not lacking:
            break
        if any(candidate[1].get(device, 0) > 0 for device in lacking):
            leaving.append(candidate)
    if not fits(need, _with(space, leaving)):
        return None
    for candidate in reversed(list(leaving)):  # a later one may have made an earlier superfluous
        others = [each for each in leaving if each is not candidate]
        if fits(need, _with(space, others)):
            leaving = others
    return [run for run, _ in leaving]


def _with(space: Mapping[str, float], leaving: Iterable[tuple[int, Need]]) -> Space:
    return plus(space, *(need for _, need in leaving))
