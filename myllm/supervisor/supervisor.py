"""The set of instances: starts them, watches them, ends them all when the server leaves."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass
from typing import Protocol

import structlog

from myllm.cpus import usable_cores
from myllm.engine.engine import Engine
from myllm.launcher.base import Launcher, LaunchSpec
from myllm.loops import in_background
from myllm.settings import Settings
from myllm.supervisor.batch_comparison import compare
from myllm.supervisor.batch_sizes import sizes_to_compare
from myllm.supervisor.instance import Hooks, Instance, State
from myllm.supervisor.prompt_speeds import PromptSpeeds
from myllm.supervisor.spec import InstanceKey, InstanceSpec
from myllm.supervisor.watcher import Watcher

_log = structlog.get_logger(__name__)
COMPARE_AGAIN_S = 60.0


class Listener(Protocol):
    """Receives what becomes of an instance; called on the event loop."""

    def instance_started(self, instance: Instance) -> None: ...

    def instance_ready(self, instance: Instance) -> None: ...

    def instance_exited(self, instance: Instance) -> None: ...


@dataclass
class History:
    """What is remembered of a key over its instances. `last_death` is the last error of an instance
    that had been ready."""

    starts: int = 0
    last_error: str | None = None
    last_death: str | None = None


class Supervisor:
    """Owns every Instance and the task that runs it."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        launcher: Launcher,
        speeds: PromptSpeeds,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._launcher = launcher
        self.speeds = speeds
        self.listener: Listener | None = None
        self._instances: dict[int, Instance] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._histories: dict[InstanceKey, History] = {}
        self._compared_at: dict[str, float] = {}
        self._watcher = Watcher(self, settings.hang_timeout, self._batch_s)

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._instances.values()))

    def get(self, run: int | None) -> Instance | None:
        """The live instance of this run, if it has not ended."""
        return None if run is None else self._instances.get(run)

    def of_model(self, model: str) -> list[Instance]:
        """The live instances of a model in any role."""
        return [instance for instance in self if instance.spec.key.model == model]

    def used(self, state: State | None = None) -> dict[str, int]:
        """MiB that the instances (in this state) have on each device, as last measured. Instances
        that load are measured now, because they grow quickly."""
        used: Counter[str] = Counter()
        for instance in self:
            if instance.state == "loading":
                self._watcher.measure(instance)
            if state in (None, instance.state):
                used.update(instance.used)
        return dict(used)

    def history(self, key: InstanceKey) -> History:
        """How often `key` was started and how it last failed."""
        return self._histories.setdefault(key, History())

    def start(self, run: int, spec: InstanceSpec, predicted_mb: int | None) -> Instance:
        """Begin a new process life with the id `run`. When this raises, nothing has begun."""
        assert run not in self._instances, f"run {run} has begun already"
        instance = Instance(
            run,
            spec,
            LaunchSpec(self._free_name(spec), spec.argv(self._engine.server)),
            self._launcher,
            Hooks(self._compare_batches, self._ready, self._exited),
            load_timeout_s=self._settings.load_timeout,
            stop_grace_s=self._settings.stop_grace,
            expected_mb=predicted_mb,
        )
        self._watcher.start()
        # An empty context: the engine belongs to the server, not to the request that came first.
        self._tasks[run] = in_background("engine's life", instance.run(), Context())
        self._instances[run] = instance
        self.history(spec.key).starts += 1
        if self.listener is not None:
            self.listener.instance_started(instance)
        return instance

    async def close(self, grace_s: float) -> None:
        """Stop every instance at once; when this returns, all have been reaped.

        Those that have not exited `grace_s` seconds after SIGTERM are killed.
        """
        self._watcher.stop()
        for instance in self:
            instance.stop(grace_s, reason="the server stops")
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _batch_s(self, spec: InstanceSpec) -> float:
        """Seconds that an engine should take for one batch of a prompt."""
        cores = self._settings.threads or usable_cores()
        return spec.batch / self.speeds.expected(spec, cores)

    def _free_name(self, spec: InstanceSpec) -> str:
        """A log name that no live instance has: a replaced instance lives on for a while."""
        taken = {instance.name for instance in self}
        names = [spec.file_stem, *(f"{spec.file_stem}.{n}" for n in range(2, len(taken) + 2))]
        return next(name for name in names if name not in taken)

    async def _compare_batches(self, instance: Instance) -> None:
        """Measure which batch size the next engine of this kind should have.

        Nothing is measured while another engine works, as each would disturb the other; a later
        load makes up for it. The same goes for a comparison that fails or ran on a busy machine,
        but not at once: requests wait for an engine that replaces a dead one.
        """
        spec, process = instance.spec, instance.process
        # A smaller context cannot hold the largest size.
        can = spec.key.role == "generate" and spec.batch < spec.context_size
        if not can or not self.speeds.wants_comparison(spec.speed_key):
            return
        others = [other for other in self if other is not instance]
        if process is None or any(other.has_work() for other in others):
            return
        now = time.monotonic()
        if now - self._compared_at.get(spec.speed_key, -math.inf) < COMPARE_AGAIN_S:
            return
        self._compared_at[spec.speed_key] = now
        try:
            sizes = sizes_to_compare(spec.batch)
            vocabulary = spec.model.header.vocabulary_size
            known = await compare(instance.client, process, sizes, vocabulary, spec.context_size)
        except Exception as failure:  # noqa: BLE001 - the engine works without the comparison
            _log.warning("batch sizes not compared", model=str(spec.key), cause=repr(failure))
            return
        self.speeds.compared(spec.speed_key, known)
        self.speeds.save()
        speeds = {size: round(speed) for size, speed in known.tokens_per_s.items()}
        _log.info(
            "batch sizes compared", model=str(spec.key), was=known.status, tokens_per_s=speeds
        )

    def _ready(self, instance: Instance) -> None:
        history = self.history(instance.spec.key)
        history.last_error = history.last_death  # the cause of a start that failed is gone
        self._watcher.measure(instance)
        instance.has_loaded()
        if self.listener is not None:
            self.listener.instance_ready(instance)

    def _exited(self, instance: Instance) -> None:
        if instance.error is not None:
            history = self.history(instance.spec.key)
            history.last_error = instance.error.detail
            if instance.ready_at is not None:
                history.last_death = instance.error.detail
        del self._instances[instance.run_id]
        del self._tasks[instance.run_id]
        try:
            self.speeds.save()
        finally:
            if self.listener is not None:
                self.listener.instance_exited(instance)
