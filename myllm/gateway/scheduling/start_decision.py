"""Whether an engine may start now: a pure decision over the memory budget and what counts on it.

The cases, in this order:
  1. it needs more than the whole budget                             -> TooBig
  2. it fits into the memory that is free                            -> StartNow
  3. it will fit when the draining engines have ended                -> Wait
  4. it will fit if some idle engines leave                          -> Wait, and they leave
  5. it has waited for a turn, and other models have had theirs      -> Wait, and they yield
  6. it would fit if every engine left that may                      -> Wait
  7. other programs hold the memory, or it was freed a moment ago;
     given up after a short while                                    -> Wait, then TooBig
The model that has waited longer goes first: the memory that an earlier one needs does not count as
free if that model waits only for draining engines, or has waited for a whole turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from myllm.errors import NoRoom
from myllm.gateway.scheduling.engine_run import EngineRun, least_recently_used
from myllm.gateway.scheduling.memory_budget import (
    Headroom,
    MemoryBudget,
    fewest_to_leave,
    fits,
    plus,
)
from myllm.gateway.scheduling.model_state import ModelState, PendingStart
from myllm.gateway.scheduling.tickets import Plan
from myllm.launcher.devices import MemoryByDevice
from myllm.supervisor.spec import InstanceKey

# How long a model that is in use keeps its memory while another one waits for it.
TURN_S = 5.0
# Memory that was freed a moment ago may not show as free yet.
SETTLE_S = 5.0


@dataclass(frozen=True)
class StartNow:
    """The memory is free."""


@dataclass(frozen=True)
class Wait:
    """Memory will become free; the runs in `leave` must make it so."""

    leave: tuple[EngineRun, ...] = ()


@dataclass(frozen=True)
class TooBig:
    """The engine cannot run: it needs `needs_mb` MiB on `device`, and could get `has_mb`."""

    device: str
    needs_mb: int
    has_mb: int
    budget_mb: int

    def error(self, key: InstanceKey) -> NoRoom:
        """The client's error."""
        return NoRoom(str(key), self.device, self.needs_mb, self.has_mb, self.budget_mb)


def decide(
    model: ModelState,
    pending: PendingStart,
    models: Sequence[ModelState],
    memory: MemoryBudget,
    free: MemoryByDevice,
    now: float,
) -> StartNow | Wait | TooBig:
    """Whether the `pending` engine of `model` may start; `models` are all models."""
    plan, need = pending.plan, pending.plan.need
    never = memory.never_fits(need)
    if never is not None:
        return _too_big(plan, never, memory.limits[never], memory)
    draining = _draining(models, memory)
    headroom = _minus_earlier(memory.headroom(free), draining, pending, models, now)
    if fits(need, headroom):
        return StartNow()
    coming = plus(headroom, *draining)
    if fits(need, coming):
        return Wait()
    others = [each for each in models if each is not model]
    idle = _runs(each for each in others if each.can_be_evicted())
    chosen = _choose(need, coming, idle, memory)
    if chosen is None and now - pending.since >= TURN_S:
        yielding = [each for each in others if each.can_yield(now, TURN_S)]
        chosen = _choose(need, coming, idle + _runs(yielding, but=idle), memory)
    if chosen is not None:
        return Wait(tuple(chosen))
    movable = [r for e in others for r in e.runs() if r not in e.draining and not r.plan.pinned]
    at_most = plus(memory.headroom(free), *draining, *(memory.charge(run.id) for run in movable))
    if fits(need, at_most) or now - max(pending.since, memory.freed_at) < SETTLE_S:
        return Wait()
    return _lacking(plan, at_most, memory)


def decide_replacement(
    old: EngineRun,
    plan: Plan,
    models: Sequence[ModelState],
    memory: MemoryBudget,
    free: MemoryByDevice,
) -> StartNow | Wait | TooBig:
    """Whether an engine with `plan` may replace `old`: it may start next to it, or after `old` and
    perhaps idle engines have ended, or never; then `old` is better than none."""
    never = memory.never_fits(plan.need)
    if never is not None:
        return _too_big(plan, never, memory.limits[never], memory)
    headroom = memory.headroom(free)
    if fits(plan.need, headroom):
        return StartNow()
    idle = _runs(each for each in models if each.can_be_evicted())
    movable = [memory.charge(run.id) for run in {old, *idle}]
    at_most = plus(headroom, *_draining(models, memory), *movable)
    return Wait((old,)) if fits(plan.need, at_most) else _lacking(plan, at_most, memory)


def _draining(models: Iterable[ModelState], memory: MemoryBudget) -> list[MemoryByDevice]:
    return [memory.charge(run.id) for each in models for run in each.draining]


def _minus_earlier(
    headroom: Headroom,
    draining: Sequence[MemoryByDevice],
    pending: PendingStart,
    models: Sequence[ModelState],
    now: float,
) -> Headroom:
    """`headroom` less what those models need that wait longer than `pending` and go before it."""
    for earlier in [each.pending for each in models if each.pending is not None]:
        if earlier.since >= pending.since:
            continue
        need = earlier.plan.need
        has_waited_a_turn = now - earlier.since >= TURN_S
        if has_waited_a_turn or fits(need, plus(headroom, *draining)):
            headroom = plus(headroom, need, sign=-1)
    return headroom


def _choose(
    need: MemoryByDevice, headroom: Headroom, runs: Sequence[EngineRun], memory: MemoryBudget
) -> list[EngineRun] | None:
    """Which of `runs` must leave, the least recently used first."""
    candidates = [(run.id, memory.charge(run.id)) for run in runs]
    ids = fewest_to_leave(need, headroom, candidates)
    return None if ids is None else [run for run in runs if run.id in ids]


def _runs(models: Iterable[ModelState], but: Sequence[EngineRun] = ()) -> list[EngineRun]:
    runs = [each.run for each in models if each.run is not None and each.run not in but]
    return least_recently_used(runs)


def _lacking(plan: Plan, at_most: Headroom, memory: MemoryBudget) -> TooBig:
    device = next(name for name, mb in plan.need.items() if mb > at_most.get(name, mb))
    return _too_big(plan, device, int(at_most[device]), memory)


def _too_big(plan: Plan, device: str, has_mb: int, memory: MemoryBudget) -> TooBig:
    return TooBig(device, plan.need[device], has_mb, int(memory.limits.get(device, has_mb)))
