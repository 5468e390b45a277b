"""From a model to a plan: what its engine would run with, and what that takes."""

from __future__ import annotations

import psutil

from myllm.gateway.tickets import Need, Plan
from myllm.models.memory import estimate_mb
from myllm.models.registry import Registry
from myllm.settings import Settings
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from myllm.supervisor.specs import Specs

# Not a device, but bounded like one: how many engines there may be at once.
ENGINES = "engines"


class Planner:
    """Makes plans; asks models, settings and devices."""

    def __init__(self, settings: Settings, registry: Registry, specs: Specs) -> None:
        self._settings = settings
        self._registry = registry
        self._specs = specs

    def budget(self) -> Need:
        """What the engines may take together, on each device that is bounded."""
        cap = self._settings.max_loaded_models
        return {} if cap is None else {ENGINES: cap}

    async def plan(self, key: InstanceKey, smaller: bool) -> Plan:
        """Raises ModelNotFound, InvalidModel, and EngineError when nothing can be found out."""
        model = self._registry.get(key.model)
        spec = self._specs.spec(key, model)
        need = {"host": estimate_mb(model, spec.context_size, spec.slots, spec.physical_batch)}
        keep_alive = model.engine.keep_alive
        return Plan(
            spec,
            need | {ENGINES: 1},
            self._settings.keep_alive if keep_alive is None else keep_alive,
            pinned=model.engine.pinned,
        )

    def free(self) -> Need:
        """MiB that new engines may take on each device, as it is now."""
        return {"host": psutil.virtual_memory().available // 2**20}

    def measured(self, instance: Instance) -> Need | None:
        """What an engine that has just loaded really takes; remembered for the next plan."""
        return {**instance.used, ENGINES: 1} if instance.used else None
