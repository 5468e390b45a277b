"""Makes a plan for a model: what its engine would run with, and what that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from myllm.errors import ModelNotFound, ModelRemoved
from myllm.gateway.scheduling.tickets import Plan
from myllm.launcher.devices import Devices, MemoryByDevice
from myllm.models.registry import Model, Registry
from myllm.settings import Settings
from myllm.supervisor.device_headroom import budgets
from myllm.supervisor.footprints import Footprints
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from myllm.supervisor.spec_builder import SpecBuilder

_log = structlog.get_logger(__name__)
# Not a device, but bounded like one: how many engines there may be at once.
ENGINES = "engines"


class Planner:
    """Makes plans from models, settings and devices. Figures are MiB per device."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        specs: SpecBuilder,
        footprints: Footprints,
        devices: Devices,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._specs = specs
        self._footprints = footprints
        self._devices = devices

    def budget(self) -> MemoryByDevice:
        """What the engines may take together, on each bounded device."""
        cap = self._settings.max_loaded_models
        engines = {} if cap is None else {ENGINES: cap}
        return budgets(self._devices(), self._settings) | engines

    def free(self, loading: Mapping[str, int]) -> MemoryByDevice:
        """What new engines may take now. `loading` is what loading engines have taken already; the
        scheduler counts their whole need."""
        reserve = self._settings.memory_reserve_mb
        return {
            name: max(0, memory.free_mb - reserve) + loading.get(name, 0)
            for name, memory in self._devices().items()
        }

    async def plan(self, key: InstanceKey, smaller: bool = False) -> Plan:
        """What an engine for `key` would run with if it were started now; `smaller` halves an
        automatic context. Raises InvalidModel, and ModelRemoved if the model, which was found
        before, is no longer on disk."""
        model = await asyncio.to_thread(self._on_disk, key.model)
        spec = self._specs.spec(key, model, smaller)
        if smaller and spec.automatic_context:
            _log.warning("trying a smaller context", model=str(key), context=spec.context_size)
        footprint = await self._footprints.predict(spec)
        aliases = await asyncio.to_thread(self._registry.aliases_of, model)
        # Cached, so no file is read here; and nothing can be removed until the plan is used.
        if self._on_disk(key.model).path != model.path:  # a built-in model has become visible
            return await self.plan(key, smaller)
        keep_alive_s = model.config.engine.keep_alive
        return Plan(
            spec,
            footprint.need | {ENGINES: 1},
            self._settings.keep_alive if keep_alive_s is None else keep_alive_s,
            pinned=model.config.engine.pinned,
            aliases=aliases,
        )

    def _on_disk(self, name: str) -> Model:
        try:
            return self._registry.get(name)
        except ModelNotFound:
            raise ModelRemoved(name) from None

    def measured(self, instance: Instance) -> MemoryByDevice | None:
        """Remember what an engine really takes, or took. Returns what it is charged with, or None
        if it was not measured."""
        if instance.death is not None and instance.death.cause == "too large":
            self._footprints.forget(instance.spec)  # or the next engine could grow from there
            return None
        if not instance.used:
            return None
        worked = instance.is_over() and instance.delivered
        return self._footprints.measured(instance.spec, instance.used, worked) | {ENGINES: 1}

    def ended(self, instance: Instance) -> None:
        """An engine has ended; how it ended decides how its replacement is planned."""
        self._specs.ended(instance.spec, instance.crashed and not instance.lacks_memory)

    def save(self) -> None:
        """Keep what was measured for the next start of the server."""
        self._footprints.save()


def without_engines(need: MemoryByDevice) -> dict[str, int]:
    """The devices of `need` alone."""
    return {device: mb for device, mb in need.items() if device != ENGINES}
