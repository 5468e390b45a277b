"""How a model gets its engine: a plan, a start when the memory is free, another try after a death.

A plan is requested with MakePlan and arrives with `planned` or `plan_failed`; there is never more
than one in the making per model. It is made anew whenever memory may have become free, because
what is free is part of it. A load belongs to the server, not to the request that came first.
"""

from __future__ import annotations

from collections.abc import Iterable

from myllm.errors import MyLLMError
from myllm.gateway.scheduling import start_decision
from myllm.gateway.scheduling.engine_run import EngineRun
from myllm.gateway.scheduling.fleet import Fleet
from myllm.gateway.scheduling.model_state import ModelState, PendingStart
from myllm.gateway.scheduling.rejections import backing_off, give_up
from myllm.gateway.scheduling.tickets import Action, EngineExit, KeepEngine, MakePlan, Plan
from myllm.launcher.devices import MemoryByDevice


class Loader:
    """Starts and replaces the engines of `fleet`, until it is shutting down."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def load_if_needed(self, model: ModelState, now: float) -> list[Action]:
        """Request a plan if an engine is missing or is to be replaced."""
        if model.run is not None:
            return self.replace_if_due(model)
        if not model.is_needed() or model.pending is not None or self._fleet.shutting_down:
            return []
        refused = backing_off(model, now)
        return self._make_plan(model) if refused is None else give_up(model, refused)

    def replace_if_due(self, model: ModelState) -> list[Action]:
        """Request the plan of a successor, unless there is one: if the configuration changes once
        more, the successor is replaced in turn."""
        due = model.replace and model.successor is None and not self._fleet.shutting_down
        return self._make_plan(model) if due else []

    def plan_again(self) -> list[Action]:
        """Make the plans that wait for memory anew: an engine may have ended."""
        waiting = [model for model in self._fleet.models() if model.pending is not None]
        return [action for model in waiting for action in self._make_plan(model)]

    def planned(
        self, model: ModelState, plan: Plan, free: MemoryByDevice, now: float
    ) -> list[Action]:
        """A plan has arrived; `free` has what loading engines have taken added back."""
        replace, model.planning, model.replace = model.replace, False, False
        if self._fleet.shutting_down:
            return []
        if replace and model.run is not None:
            return self._replace(model, model.run, plan, free, now)
        if model.run is not None or not model.is_needed():
            model.pending = None
            return []
        return self._start(model, model.waits_for_memory(plan, now), free, now)

    def plan_failed(self, model: ModelState, error: MyLLMError) -> list[Action]:
        """No plan can be made: the model is gone or broken. A running engine goes on."""
        model.planning = model.replace = False
        return [KeepEngine(model.key, error)] if model.run is not None else give_up(model, error)

    def retry(self, model: ModelState, run: EngineRun, ended: EngineExit) -> list[Action]:
        """The engine of `model` died, and has no successor. Another one is started for those who
        wait, unless this one said why it cannot start."""
        assert ended.error is not None
        if run.state == "ready":
            model.wanted = model.wanted or run.plan.pinned
            return []
        if ended.no_memory and (ended.crashed or not model.smaller):
            # Another program may kill it once; if it happens again, it is the system.
            model.smaller = model.smaller or not ended.crashed or model.backoff.crashes > 1
            idle = self._fleet.least_needed()
            model.starts_after = idle.id if idle is not None else None
            return self._evict([idle], model) if idle is not None else []
        if ended.crashed:
            return []
        model.smaller = False
        return give_up(model, ended.error)

    def _make_plan(self, model: ModelState) -> list[Action]:
        if model.planning:
            return []
        model.planning = True
        return [MakePlan(model.key, smaller=model.smaller)]

    def _start(
        self, model: ModelState, pending: PendingStart, free: MemoryByDevice, now: float
    ) -> list[Action]:
        fleet = self._fleet
        if fleet.run(model.starts_after) is not None:
            return []
        match start_decision.decide(model, pending, fleet.models(), fleet.memory, free, now):
            case start_decision.StartNow():
                model.pending = model.starts_after = None
                model.wanted = False
                model.run, start = fleet.start(pending.plan)
                return [start]
            case start_decision.Wait(leave):
                return self._evict(leave, model)
            case start_decision.TooBig() as reason:
                return give_up(model, reason.error(model.key))

    def _replace(
        self, model: ModelState, old: EngineRun, plan: Plan, free: MemoryByDevice, now: float
    ) -> list[Action]:
        """Start a successor next to the run, or drain the run first if both do not fit."""
        fleet = self._fleet
        match start_decision.decide_replacement(old, plan, fleet.models(), fleet.memory, free):
            case start_decision.StartNow():
                model.successor, start = fleet.start(plan)
                return [start]
            case start_decision.Wait(leave):
                model.wanted = True
                actions = [action for run in leave for action in fleet.drain(run, "reloaded")]
                return actions + self.load_if_needed(model, now)
            case start_decision.TooBig() as reason:
                return [KeepEngine(model.key, reason.error(model.key))]

    def _evict(self, runs: Iterable[EngineRun], model: ModelState) -> list[Action]:
        """Make `runs` leave, so that `model` gets their memory."""
        reason = f"evicted for {model.key}"
        return [action for run in runs for action in self._fleet.drain(run, reason, model.key)]
