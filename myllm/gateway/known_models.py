"""The models as requests see them.

A running model is what it was started with: its name, aliases, parameters and template are those of
its engine, even if its folder has changed since. Only a model that is not loaded is looked for on
disk. A model outside the scope of the client's key does not exist here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from myllm.errors import InvalidModel, ModelNotFound
from myllm.gateway.key_limits.scope import Scope, scope_of
from myllm.gateway.request_record import current
from myllm.gateway.scheduling.engine_run import EngineRun
from myllm.gateway.scheduling.fleet import Fleet
from myllm.gateway.scheduling.model_state import ModelState
from myllm.gateway.scheduling.tickets import Plan
from myllm.models.registry import Model, Registry
from myllm.supervisor.spec import Role


class KnownModels:
    """The models that run, and those on disk, as far as they exist for the client of the request
    that the calling task answers."""

    def __init__(self, registry: Registry, fleet: Fleet) -> None:
        self._registry = registry
        self._fleet = fleet

    async def find(self, name: str, role: Role | None = None) -> Model:
        """The model of this name or alias, as it runs in `role` (None: in any), or else as it is
        on disk, which is read in a thread.

        Raises ModelNotFound, and InvalidModel for a model on disk that cannot be loaded.
        """
        scope, run = _scope(), self._fleet.serving(name, role)
        if run is not None and _is_running_in(scope, run):
            return _model(run)
        found = await asyncio.to_thread(self._on_disk, name, scope)
        if found.problem is not None:
            raise InvalidModel(found.problem)
        return self._running_or(found, role)

    async def name_of(self, name: str) -> str:
        """The name of the model that `name` means; `name` without its tag if there is none.

        Raises ModelNotFound if not all models exist for the client, and this one does not.
        """
        scope, run = _scope(), self._fleet.serving(name)
        if run is not None and _is_running_in(scope, run):
            return _model(run).name
        if scope is None:
            return await asyncio.to_thread(self._registry.name_of, name)
        return (await asyncio.to_thread(self._on_disk, name, scope)).name

    async def require_on_disk(self, name: str) -> None:
        """Raise ModelNotFound if not all models exist for the client, and the one that `name` means
        on disk does not, whatever runs."""
        if (scope := _scope()) is not None:
            await asyncio.to_thread(self._on_disk, name, scope)

    def running_plan(self, name: str) -> Plan | None:
        """What the engine that serves this name or alias was started with; None if none runs."""
        run = self._fleet.serving(name)
        return None if run is None else run.plan

    def running(self) -> list[Model]:
        """The models with an engine that takes requests, or will when it has loaded."""
        names = {each.key.model for each in self._fleet.models() if each.run}
        runs = [run for name in names if (run := self._fleet.serving(name)) is not None]
        scope = _scope()
        return [_model(run) for run in runs if _is_running_in(scope, run)]

    def states(self) -> list[ModelState]:
        """The state of every model that was asked for since the server started."""
        scope = _scope()
        return [each for each in self._fleet.models() if _is_state_in(scope, each)]

    async def all(self) -> list[Model]:
        """All models by name; a model that cannot be loaded gives its `problem`.

        Raises InvalidModel when the model folder itself cannot be read.
        """
        on_disk = await asyncio.to_thread(self._all_on_disk, _scope())
        found = {model.name: model for model in on_disk}
        found |= {model.name: model for model in self.running()}
        return [found[name] for name in sorted(found)]

    def has(self, names: tuple[str, ...]) -> bool:
        """Whether a model with this name and these aliases exists for the client."""
        scope = _scope()
        return scope is None or scope.has(names[0], names[1:])

    def are_all(self) -> bool:
        """Whether every model exists for the client."""
        return _scope() is None

    def _on_disk(self, name: str, scope: Scope | None) -> Model:
        """The model on disk, even if it cannot be loaded. Raises ModelNotFound."""
        if scope is None:
            return self._registry.find(name)
        with suppress(ModelNotFound):
            found = self._registry.find(name)
            if scope.has(found.name) or scope.has(found.name, self._registry.aliases_of(found)):
                return found
        raise ModelNotFound(name, [model.name for model in self._all_on_disk(scope)])

    def _all_on_disk(self, scope: Scope | None) -> list[Model]:
        models = self._registry.list()
        if scope is None:
            return models
        aliases = self._registry.aliases()
        return [model for model in models if scope.has(model.name, aliases.get(model.name, ()))]

    def _running_or(self, found: Model, role: Role | None) -> Model:
        """The same model as it runs instead of `found`: an alias on disk can be newer than the
        engine. Another model that runs with the name of `found` as its alias is not meant."""
        run = self._fleet.serving(found.name, role)
        return found if run is None or _model(run).name != found.name else _model(run)


def _scope() -> Scope | None:
    """The models that exist for the client of the request that this task answers; None: all."""
    record = current()
    key = record.client.key if record is not None and record.client is not None else None
    return scope_of(key.models) if key is not None and key.models else None


def _is_running_in(scope: Scope | None, run: EngineRun) -> bool:
    return scope is None or _is_plan_in(scope, run.plan)


def _is_plan_in(scope: Scope, plan: Plan) -> bool:
    return scope.has(plan.spec.model.name, plan.aliases)


def _is_state_in(scope: Scope | None, state: ModelState) -> bool:
    """Of a model that was never planned, only the name is known here."""
    if scope is None or scope.has(state.key.model):
        return True
    plans = [run.plan for run in state.runs()] + ([state.pending.plan] if state.pending else [])
    return any(_is_plan_in(scope, plan) for plan in plans)


def _model(run: EngineRun) -> Model:
    return run.plan.spec.model
