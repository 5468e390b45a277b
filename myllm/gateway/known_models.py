"""The models as requests see them.

A running model is what it was started with: its name, aliases, parameters and template are those of
its engine, even if its folder has changed since. Only a model that is not loaded is looked for on
disk.
"""

from __future__ import annotations

import asyncio

from myllm.gateway.scheduling.engine_run import EngineRun
from myllm.gateway.scheduling.fleet import Fleet
from myllm.gateway.scheduling.tickets import Plan
from myllm.models.registry import Model, Registry
from myllm.supervisor.spec import Role


class KnownModels:
    """The models that run, and those on disk."""

    def __init__(self, registry: Registry, fleet: Fleet) -> None:
        self._registry = registry
        self._fleet = fleet

    async def find(self, name: str, role: Role | None = None) -> Model:
        """The model of this name or alias, as it runs in `role` (None: in any), or else as it is
        on disk, which is read in a thread.

        Raises ModelNotFound, and InvalidModel for a model on disk that cannot be loaded.
        """
        run = self._fleet.serving(name, role)
        if run is not None:
            return _model(run)
        return self._running_or(await asyncio.to_thread(self._registry.get, name), role)

    async def name_of(self, name: str) -> str:
        """The name of the model that `name` means; `name` without its tag if there is none."""
        run = self._fleet.serving(name)
        if run is not None:
            return _model(run).name
        return await asyncio.to_thread(self._registry.name_of, name)

    def running_plan(self, name: str) -> Plan | None:
        """What the engine that serves this name or alias was started with; None if none runs."""
        run = self._fleet.serving(name)
        return None if run is None else run.plan

    def running(self) -> list[Model]:
        """The models with an engine that takes requests, or will when it has loaded."""
        states = self._fleet.models()
        names = {each.key.model for each in states if each.run}
        return [_model(run) for name in names if (run := self._fleet.serving(name)) is not None]

    async def all(self) -> list[Model]:
        """All models by name; a model that cannot be loaded gives its `problem`.

        Raises InvalidModel when the model folder itself cannot be read.
        """
        found = {model.name: model for model in await asyncio.to_thread(self._registry.list)}
        found |= {model.name: model for model in self.running()}
        return [found[name] for name in sorted(found)]

    def _running_or(self, found: Model, role: Role | None = None) -> Model:
        """The running model instead of `found`: an alias on disk can be newer than the engine."""
        run = self._fleet.serving(found.name, role)
        return found if run is None else _model(run)


def _model(run: EngineRun) -> Model:
    return run.plan.spec.model
