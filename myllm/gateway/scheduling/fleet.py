"""The engines as the scheduler sees them: started, drained, stopped, and charged with memory."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from myllm.gateway.scheduling.engine_run import FOREVER, EngineRun, least_recently_used
from myllm.gateway.scheduling.memory_budget import MemoryBudget
from myllm.gateway.scheduling.model_state import ModelState
from myllm.gateway.scheduling.tickets import Action, Drain, Plan, Start, Stop
from myllm.launcher.devices import MemoryByDevice
from myllm.models.registry import untagged
from myllm.supervisor.spec import InstanceKey, Role

_ROLES: tuple[Role, ...] = ("generate", "embed", "rerank")


class Fleet:
    """Every model that was ever requested, and every run that has not ended.

    `shutting_down`: no engine is started any more.
    """

    def __init__(self, budget: Mapping[str, int]) -> None:
        self.memory = MemoryBudget(budget)
        self.shutting_down = False
        self._models: dict[InstanceKey, ModelState] = {}
        self._runs: dict[int, EngineRun] = {}
        self._ids = itertools.count(1)

    def model(self, key: InstanceKey) -> ModelState:
        """The state of `key`, which is kept from now on."""
        model = self._models.get(key)
        if model is None:
            model = self._models[key] = ModelState(key)
        return model

    def model_of(self, run: EngineRun) -> ModelState:
        """The model that `run` serves."""
        return self.model(run.plan.spec.key)

    def models(self, name: str | None = None) -> list[ModelState]:
        """All models in all roles, or the model of this `name` in all its roles."""
        models = self._models.values()
        return [each for each in models if name in (None, each.key.model)]

    def is_loaded(self, name: str) -> bool:
        """Whether any engine of the model `name` runs."""
        return any(model.runs() for model in self.models(name))

    def serving(self, name: str, role: Role | None = None) -> EngineRun | None:
        """The run that takes the requests for this name or alias, in `role` or, if None, in any.

        If two have the same alias, the one that was started first takes them.
        """
        bare = untagged(name)
        for key in [InstanceKey(bare, each) for each in (_ROLES if role is None else (role,))]:
            model = self._models.get(key)
            if model is not None and model.run is not None:
                return model.run
        called = [
            run
            for key, model in self._models.items()
            if (run := model.run) and bare in run.plan.aliases and role in (None, key.role)
        ]
        return min(called, key=lambda run: run.id, default=None)

    def run(self, run: int | None) -> EngineRun | None:
        """The run of this id; None if it has ended."""
        return None if run is None else self._runs.get(run)

    def start(self, plan: Plan) -> tuple[EngineRun, Start]:
        """A new run, with the memory that `plan` needs reserved, and the action that starts it."""
        run = EngineRun(next(self._ids), plan, keep_alive_s=plan.keep_alive_s)
        self._runs[run.id] = run
        self.memory.reserve(run.id, plan.need)
        return run, Start(run.id, plan)

    def ready(
        self, run_id: int, slots: int, need: MemoryByDevice | None, now: float
    ) -> EngineRun | None:
        """A run has loaded; None if it has been drained in the meantime."""
        run = self._runs[run_id]
        self.memory.loaded(run_id, need)
        if run.state != "loading":
            return None
        run.become_ready(slots, now)
        return run

    def ended(self, run_id: int, now: float) -> tuple[EngineRun, ModelState]:
        """A run's process is gone, and its memory is free; the caller makes the model forget it."""
        run = self._runs.pop(run_id)
        self.memory.release(run_id, now)
        return run, self.model_of(run)

    def drain(
        self,
        run: EngineRun,
        reason: str,
        evicted_for: InstanceKey | None = None,
        until: float = FOREVER,
    ) -> list[Action]:
        """Give `run` no more requests, and stop it when its answers have ended, or at `until`."""
        run.drain_until = min(run.drain_until, until)
        if run.state == "draining":
            return []
        loading = run.state == "loading"
        run.state, run.drain_reason = "draining", reason
        self.model_of(run).retire(run)
        return self.stop(run) if loading else [Drain(run.id, evicted_for), *self.stop_if_idle(run)]

    def stop_if_idle(self, run: EngineRun) -> list[Action]:
        """Stop a draining run if its answers have ended."""
        return [] if run.is_busy() else self.stop(run)

    def stop(self, run: EngineRun) -> list[Action]:
        """Stop a run, once."""
        if run.stopping:
            return []
        run.stopping = True
        return [Stop(run.id, run.drain_reason)]

    def stop_overdue(self, now: float) -> list[Action]:
        """Stop the runs whose time to drain is over."""
        late = [run for run in self._runs.values() if now > run.drain_until]
        return [action for run in late for action in self.stop(run)]

    def least_needed(self) -> EngineRun | None:
        """The least recently used run that may be evicted, if there is one."""
        idle = [each.run for each in self.models() if each.can_be_evicted() and each.run]
        return next(iter(least_recently_used(idle)), None)
