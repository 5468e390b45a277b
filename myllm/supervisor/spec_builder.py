"""Decides what an engine runs with, from the model's config, the settings and measurements."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from myllm.cpus import machine_cores, usable_cores
from myllm.engine.engine import Engine
from myllm.engine.hardware import cpu_identity
from myllm.launcher.devices import Devices
from myllm.models.memory_estimate import estimate_mb
from myllm.models.registry import Model
from myllm.settings import Settings
from myllm.supervisor.batch_sizes import CPU_START, GPU_START, SMALLEST
from myllm.supervisor.device_headroom import DeviceHeadroom, headroom
from myllm.supervisor.placement import choose, lay_out
from myllm.supervisor.prompt_speeds import PromptSpeeds
from myllm.supervisor.spec import InstanceKey, InstanceSpec, Layout, input_context, input_slots

# So that a list of many models reads the devices once.
_HEADROOM_VALID_S = 1.0
_MIN_CONTEXT = 512
# With fewer parameters, threads mostly wait for each other. Requests per second of 50 clients on
# two cores with 2.9 million parameters: 84 with two threads and 134 with one; with two such models
# at once, 5 and 150.
_PARAMETERS_PER_THREAD = 50e6
# A prompt has many tokens to compute at once, so a thread has enough to do with fewer parameters.
_PARAMETERS_PER_BATCH_THREAD = 5e6


class SpecBuilder:
    """Makes an InstanceSpec for a model in a role.

    `devices` is the launcher's; `used` returns what the engines have on each device, in MiB.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        speeds: PromptSpeeds,
        devices: Devices,
        used: Callable[[], Mapping[str, int]],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._speeds = speeds
        self._devices = devices
        self._used = used
        self._headroom: dict[str, DeviceHeadroom] = {}
        self._headroom_until = 0.0
        self._died: dict[InstanceKey, InstanceSpec] = {}

    def spec(self, key: InstanceKey, model: Model, smaller: bool = False) -> InstanceSpec:
        """What an instance of `key` would run with if it were started now.

        `smaller` halves a context that the server chose itself.
        """
        if key.role != "generate":
            context, slots = input_context(model), input_slots(model)
            layout = lay_out(model, estimate_mb(model, context, slots, context), self.headroom())
            return InstanceSpec(
                key,
                model,
                context_size=context,
                slots=slots,
                batch=context,
                threads=self._threads(model),
                batch_threads=self._batch_threads(model),
                layout=layout,
            )
        spec = self._generating(key, model)
        if smaller and spec.automatic_context and spec.context_size > _MIN_CONTEXT:
            half = max(spec.context_size // 2, _MIN_CONTEXT)
            return replace(spec, context_size=half)
        return spec

    def ended(self, spec: InstanceSpec, crashed: bool) -> None:
        """Note how an engine ended. The one that replaces a crashed engine reads prompts in equal
        batches: others round differently, and a cut answer could continue in other words."""
        if crashed:
            self._died[spec.key] = spec
        else:
            self._died.pop(spec.key, None)

    def headroom(self) -> dict[str, DeviceHeadroom]:
        """What engines may have of each device; a second old at most."""
        now = time.monotonic()
        if now >= self._headroom_until:
            self._headroom = headroom(self._devices(), self._settings, self._used())
            self._headroom_until = now + _HEADROOM_VALID_S
        return self._headroom

    def _generating(self, key: InstanceKey, model: Model) -> InstanceSpec:
        place = choose(model, self._settings, self.headroom(), partial(estimate_mb, model))
        threads, batch_threads = self._threads(model), self._batch_threads(model)
        speed_key = self._speed_key(model, batch_threads or threads, place.layout)
        start = (
            GPU_START if self._engine.has_gpu and model.config.engine.gpu_layers != 0 else CPU_START
        )
        return InstanceSpec(
            key,
            model,
            context_size=place.context_size,
            slots=place.slots,
            batch=min(self._batch(key, speed_key, start), _largest_batch(place.context_size)),
            threads=threads,
            batch_threads=batch_threads,
            automatic_context=place.automatic_context,
            layout=place.layout,
            projector=model.projector,
            # Even if nothing is saved there: without it the engine cannot empty a slot.
            slot_dir=self._settings.kv_dir(),
            engine_id=f"{self._engine.version} {self._engine.commit}",
            speed_key=speed_key,
        )

    def _batch(self, key: InstanceKey, speed_key: str, start: int) -> int:
        died = self._died.get(key)
        if died is not None and died.speed_key == speed_key:
            return died.batch
        return self._speeds.batch(speed_key, start)

    def _threads(self, model: Model) -> int | None:
        """Fewer threads than the machine has cores, if the model is small or an affinity or a quota
        leaves fewer cores; else None: llama-server can distinguish fast cores from slow ones."""
        useful = max(1, int(model.header.parameter_count // _PARAMETERS_PER_THREAD))
        threads = min(useful, usable_cores())
        return self._settings.threads or (threads if threads < machine_cores() else None)

    def _batch_threads(self, model: Model) -> int | None:
        """Threads for reading prompts if a small model has fewer for its answers; else None."""
        threads = self._threads(model)
        if self._settings.threads or threads is None:
            return None
        useful = int(model.header.parameter_count // _PARAMETERS_PER_BATCH_THREAD)
        useful = min(useful, usable_cores())
        return useful if useful > threads else None

    def speed(self, spec: InstanceSpec) -> float:
        """Tokens of a prompt that an engine reads per second."""
        return self._speeds.expected(spec, self._used_cores())

    def _speed_key(self, model: Model, threads: int | None, layout: Layout) -> str:
        cores = model.config.engine.threads or threads or usable_cores()
        parts = (self._engine.identity, cpu_identity(), str(cores), *layout.arguments())
        return f"{model.digest} {hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"

    def _used_cores(self) -> int:
        return self._settings.threads or usable_cores()


def _largest_batch(context_size: int) -> int:
    """Half of the context, in tokens: `/infill` keeps a whole batch of the context free, and drops
    a request's other files to do so."""
    return max(SMALLEST, context_size // 2)
