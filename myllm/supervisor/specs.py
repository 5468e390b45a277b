"""What an engine is to run with: the model's wishes, the settings, and what was measured."""

from __future__ import annotations

import psutil

from myllm.engine.types import Engine
from myllm.models.registry import Model
from myllm.settings import Settings
from myllm.supervisor.batching import PromptSpeeds, batch_for, first_batch
from myllm.supervisor.spec import InstanceKey, InstanceSpec, embed_context


class Specs:
    """Makes an InstanceSpec for a model in a role."""

    def __init__(self, settings: Settings, engine: Engine, speeds: PromptSpeeds) -> None:
        self._settings = settings
        self._engine = engine
        self._speeds = speeds

    def spec(self, key: InstanceKey, model: Model) -> InstanceSpec:
        """What an instance of `key` would run with."""
        gpu = self._engine.has_gpu and model.engine.gpu_layers != 0
        if key.role == "embed":
            context = embed_context(model)
            return InstanceSpec(key, model, context, 1, context, self._settings.threads, gpu)
        return InstanceSpec(
            key,
            model,
            context_size=model.context_for(self._settings.context_size),
            slots=model.engine.slots or self._settings.slots,
            batch=self._batch(model, gpu),
            threads=self._settings.threads,
            gpu=gpu,
        )

    def _batch(self, model: Model, gpu: bool) -> int:
        speed = self._speeds.get(model.digest)
        if speed is not None:
            return batch_for(speed)
        cores = self._settings.threads or psutil.cpu_count(logical=False) or 1
        return first_batch(model.header.parameter_count, cores, gpu)
