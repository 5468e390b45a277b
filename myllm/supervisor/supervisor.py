"""The set of instances: starts them, watches them, ends them all when the server leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass
from typing import Protocol

import psutil
import structlog

from myllm.engine.types import Engine
from myllm.launcher.base import Launcher
from myllm.models.registry import Model
from myllm.settings import Settings
from myllm.supervisor.batching import PromptSpeeds, batch_for, first_batch
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, InstanceSpec, embed_context

_log = structlog.get_logger(__name__)
_WATCH_EVERY_S = 2.0
_MIB = 2**20


class Listener(Protocol):
    """Who is told what becomes of an instance; called on the event loop."""

    def instance_ready(self, instance: Instance) -> None: ...

    def instance_exited(self, instance: Instance) -> None: ...


@dataclass
class History:
    """What is remembered of a key over its instances."""

    starts: int = 0
    last_error: str | None = None


class Supervisor:
    """Owns every Instance and the task that runs it."""

    def __init__(
        self, settings: Settings, engine: Engine, launcher: Launcher, speeds: PromptSpeeds
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._launcher = launcher
        self.speeds = speeds
        self.listener: Listener | None = None
        self._instances: dict[InstanceKey, Instance] = {}
        self._tasks: dict[InstanceKey, asyncio.Task[None]] = {}
        self._histories: dict[InstanceKey, History] = {}
        self._watcher: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._instances.values()))

    def get(self, key: InstanceKey) -> Instance | None:
        """The live instance of `key`, if there is one."""
        return self._instances.get(key)

    def history(self, key: InstanceKey) -> History:
        """How often `key` was started and how it last failed."""
        return self._histories.setdefault(key, History())

    def start(self, key: InstanceKey, model: Model) -> Instance:
        """Begin a new process life for `key`, which must have no live one."""
        assert key not in self._instances, f"{key} is running already"
        spec = self.spec(key, model)
        instance = Instance(
            spec,
            spec.argv(self._engine.server),
            self._launcher,
            load_timeout_s=self._settings.load_timeout,
            stop_grace_s=self._settings.stop_grace,
            on_ready=self._ready,
            on_exit=self._exited,
        )
        self._instances[key] = instance
        # An empty context: the engine is the server's, not the request's that came first.
        self._tasks[key] = asyncio.create_task(
            instance.run(), name=f"instance {key}", context=Context()
        )
        self.history(key).starts += 1
        _log.info("engine starting", model=str(key), context=spec.context_size, slots=spec.slots)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="instance watcher")
        return instance

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
        speed = self.speeds.get(model.digest)
        if speed is not None:
            return batch_for(speed)
        cores = self._settings.threads or psutil.cpu_count(logical=False) or 1
        return first_batch(model.header.parameter_count, cores, gpu)

    async def close(self) -> None:
        """Stop every instance at once; when this returns, all have been reaped."""
        if self._watcher is not None:
            self._watcher.cancel()
        for instance in self:
            instance.stop()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _ready(self, instance: Instance) -> None:
        self.history(instance.spec.key).last_error = None
        if self.listener is not None:
            self.listener.instance_ready(instance)

    def _exited(self, instance: Instance) -> None:
        key = instance.spec.key
        if instance.error is not None:
            self.history(key).last_error = instance.error.detail
        del self._instances[key]
        del self._tasks[key]
        self.speeds.save()
        if self.listener is not None:
            self.listener.instance_exited(instance)

    async def _watch(self) -> None:
        """Keep each instance's memory figure fresh and notice processes that are no more."""
        while True:
            for instance in self:
                if instance.pid is not None:
                    _measure(instance, instance.pid)
            await asyncio.sleep(_WATCH_EVERY_S)


def _measure(instance: Instance, pid: int) -> None:
    try:
        process = psutil.Process(pid)
        instance.rss_mb = process.memory_info().rss // _MIB
        if process.status() == psutil.STATUS_STOPPED:
            _log.warning("engine is suspended", model=str(instance.spec.key), pid=pid)
    except psutil.NoSuchProcess:
        pass  # its own `wait` tells the instance
