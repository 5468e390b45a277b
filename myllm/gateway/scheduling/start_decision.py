"""Whether an engine may start now. A pure decision over the room and those who are in it.

The cases, in this order:
  1. it is larger than the whole budget                              -> TooBig
  2. it fits into what is free                                       -> StartNow
  3. it will fit when those who are leaving have left                -> Wait
  4. it will fit when some idle ones leave                           -> Wait, and they leave
  5. it has waited for a turn, and others have had theirs            -> Wait, and they yield
  6. it would fit if everybody who may leave did                     -> Wait
  7. memory is held by others than us, or was freed a moment ago;
     given up after a short while                                    -> Wait, then TooBig
Who waited longer goes first: the room that those need who come earlier is not free, if they
are only waiting for others to leave, or have waited for a whole turn.
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
from myllm.gateway.scheduling.model_state import ModelState
from myllm.gateway.scheduling.tickets import Plan
from myllm.supervisor.devices import MemoryByDevice
from myllm.supervisor.spec import InstanceKey

# How long a model that is in use keeps its place when another one waits for it.
TURN_S = 5.0
# Memory that was freed a moment ago may not show as free yet.
SETTLE_S = 5.0


@dataclass(frozen=True)
class StartNow:
    """The memory is free."""


@dataclass(frozen=True)
class Wait:
    """Memory will come free; `leave` are the runs that must make it."""

    leave: tuple[EngineRun, ...] = ()


@dataclass(frozen=True)
class TooBig:
    """It cannot run: it needs, there could be at most, both in MiB on `device`."""

    device: str
    needs_mb: int
    has_mb: int
    budget_mb: int

    def error(self, key: InstanceKey) -> NoRoom:
        """What the client is told."""
        return NoRoom(str(key), self.device, self.needs_mb, self.has_mb, self.budget_mb)


def decide(
    model: ModelState,
    plan: Plan,
    models: Sequence[ModelState],
    memory: MemoryBudget,
    free: MemoryByDevice,
    now: float,
) -> StartNow | Wait | TooBig:
    """What becomes of `model`, which waits for room with `plan`; `models` are all."""
    assert model.waiting_since is not None
    need = plan.need
    never = memory.never_fits(need)
    if never is not None:
        return _too_big(plan, never, memory.limits[never], memory)
    leaving = _leaving(models, memory)
    headroom = _minus_earlier(memory.headroom(free), leaving, model, models, now)
    if fits(need, headroom):
        return StartNow()
    coming = plus(headroom, *leaving)
    if fits(need, coming):
        return Wait()
    others = [each for each in models if each is not model]
    idle = _runs(each for each in others if each.can_be_evicted())
    chosen = _choose(need, coming, idle, memory)
    waited_s = now - model.waiting_since
    if chosen is None and waited_s >= TURN_S:
        yielding = [e for e in others if e.can_be_asked_to_yield(now, TURN_S)]
        chosen = _choose(need, coming, idle + _runs(yielding, but=idle), memory)
    if chosen is not None:
        return Wait(tuple(chosen))
    movable = [r for e in others for r in e.runs() if r not in e.draining and not r.plan.pinned]
    at_most = plus(memory.headroom(free), *leaving, *(memory.charge(run.id) for run in movable))
    if fits(need, at_most) or now - max(model.waiting_since, memory.freed_at) < SETTLE_S:
        return Wait()
    return _lacking(plan, at_most, memory)


def beside(
    old: EngineRun,
    plan: Plan,
    models: Sequence[ModelState],
    memory: MemoryBudget,
    free: MemoryByDevice,
) -> StartNow | Wait | TooBig:
    """Whether an engine with `plan` may take the place of `old`: now, beside it; or when `old`
    has left, and perhaps idle ones; or never, and `old` is better than none."""
    never = memory.never_fits(plan.need)
    if never is not None:
        return _too_big(plan, never, memory.limits[never], memory)
    headroom = memory.headroom(free)
    if fits(plan.need, headroom):
        return StartNow()
    idle = _runs(each for each in models if each.can_be_evicted())
    movable = [memory.charge(run.id) for run in {old, *idle}]
    at_most = plus(headroom, *_leaving(models, memory), *movable)
    return Wait((old,)) if fits(plan.need, at_most) else _lacking(plan, at_most, memory)


def _leaving(models: Iterable[ModelState], memory: MemoryBudget) -> list[MemoryByDevice]:
    return [memory.charge(run.id) for each in models for run in each.draining]


def _minus_earlier(
    headroom: Headroom,
    leaving: Sequence[MemoryByDevice],
    model: ModelState,
    models: Sequence[ModelState],
    now: float,
) -> Headroom:
    """`headroom` without what those need who wait longer than `model` and go before it."""
    assert model.waiting_since is not None
    for other in models:
        if other is model or other.plan is None or other.waiting_since is None:
            continue
        earlier = other.waiting_since < model.waiting_since
        patient = now - other.waiting_since >= TURN_S
        if earlier and (patient or fits(other.plan.need, plus(headroom, *leaving))):
            headroom = plus(headroom, other.plan.need, sign=-1)
    return headroom


def _choose(
    need: MemoryByDevice, headroom: Headroom, runs: Sequence[EngineRun], memory: MemoryBudget
) -> list[EngineRun] | None:
    """Which of `runs` must leave, least recently used first."""
    candidates = [(run.id, memory.charge(run.id)) for run in runs]
    ids = fewest_to_leave(need, headroom, candidates)
    return None if ids is None else [run for run in runs if run.id in ids]


def _runs(models: Iterable[ModelState], but: Sequence[EngineRun] = ()) -> list[EngineRun]:
    runs = [model.run for model in models if model.run is not None and model.run not in but]
    return least_recently_used(runs)


def _lacking(plan: Plan, at_most: Headroom, memory: MemoryBudget) -> TooBig:
    device = next(name for name, mb in plan.need.items() if mb > at_most.get(name, mb))
    return _too_big(plan, device, int(at_most[device]), memory)


def _too_big(plan: Plan, device: str, has_mb: int, memory: MemoryBudget) -> TooBig:
    return TooBig(device, plan.need[device], has_mb, int(memory.limits.get(device, has_mb)))
