"""A read-only view of the gateway, for everything that shows what runs and what waits.

A snapshot is complete in itself: it holds no object that changes later, and reads no device, so
that `/health` can answer at once. Memory is in MiB; times are Unix times in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from myllm.gateway.planner import without_engines
from myllm.gateway.scheduling.engine_run import FOREVER, EngineRun
from myllm.gateway.scheduling.model_state import ModelState
from myllm.launcher.devices import MemoryByDevice
from myllm.supervisor.instance import Instance, State
from myllm.supervisor.spec import InstanceKey, InstanceSpec
from myllm.supervisor.supervisor import Supervisor

ModelStatus = Literal["loaded", "loading", "unloaded"]
"""A model's status in the words of llama.cpp's router."""


@dataclass(frozen=True)
class EngineSnapshot:
    """One engine process.

    `takes_requests`: new requests go to it, now or when it has loaded; `is_ready`: now.
    `progress` of its load runs from 0 to 1. `busy_slots` of `spec.slots` hold a request.
    `need_mb` is what it was planned to take per device, `used_mb` what it was measured to take
    (empty before the first measurement). `load_s` is 0 until it has loaded.
    `keep_alive_s` is how long it stays after its last request; None means until it is
    unloaded. `expires_at` is when it will be unloaded unless a request comes; None while it is not
    ready, is answering, or stays forever. `warnings` say how its model's folder differs from
    what it was started with; `kv_problem` is why KV state cannot be restored on it, if it cannot.
    """

    run_id: int
    spec: InstanceSpec
    state: State
    takes_requests: bool
    is_ready: bool
    progress: float
    pid: int | None
    busy_slots: int
    need_mb: MemoryByDevice
    used_mb: MemoryByDevice
    load_s: float
    started_at: float | None
    last_used_at: float | None
    keep_alive_s: float | None
    expires_at: float | None
    pinned: bool
    warnings: tuple[str, ...]
    kv_problem: str | None


@dataclass(frozen=True)
class ModelSnapshot:
    """One model in one role, with every engine of it that has not ended.

    `queued` counts the requests that wait. `is_needed`: it is to be loaded if it is not.
    `planned_mb` is what it waits for, per device, and empty unless it waits for memory.
    After repeated crashes (`crashes` of them count), no engine is started for `backoff_s` seconds.
    """

    key: InstanceKey
    engines: tuple[EngineSnapshot, ...]
    queued: int
    is_needed: bool
    planned_mb: MemoryByDevice
    crashes: int
    backoff_s: int
    restarts: int
    last_error: str | None


@dataclass(frozen=True)
class Snapshot:
    """Every model that was asked for since the server started, of those that exist for the client.
    `draining`: the server is shutting down."""

    models: tuple[ModelSnapshot, ...]
    draining: bool

    @property
    def queued(self) -> int:
        """How many requests wait, over all models."""
        return sum(model.queued for model in self.models)

    @property
    def active(self) -> int:
        """How many requests are being answered, over all models."""
        return sum(engine.busy_slots for engine in self.engines())

    def status(self, model: str) -> ModelStatus:
        """Whether a request to the model with this name would be answered at once, in any role."""
        roles = [each for each in self.models if each.key.model == model]
        engines = [engine for each in roles for engine in each.engines]
        if any(engine.is_ready for engine in engines):
            return "loaded"
        loads = any(each.state == "loading" for each in engines)
        return "loading" if loads or any(each.is_needed for each in roles) else "unloaded"

    def engines(self, model: str | None = None) -> Iterator[EngineSnapshot]:
        """All engines, or those of the model with this name, in any role."""
        for each in self.models:
            if model in (None, each.key.model):
                yield from each.engines


@dataclass(frozen=True)
class DeviceSnapshot:
    """One device's memory in MiB: what engines may take together (`budget_mb`; None: unbounded),
    what they are charged with, and what is free now for new ones."""

    budget_mb: int | None
    taken_mb: int
    free_mb: int


KvProblem = Callable[[InstanceSpec], str | None]


def take_snapshot(
    states: Iterable[ModelState], supervisor: Supervisor, kv_problem: KvProblem, draining: bool
) -> Snapshot:
    """The state of these models at this moment."""
    models = tuple(_model(state, supervisor, kv_problem) for state in states)
    return Snapshot(models, draining)


def _model(state: ModelState, supervisor: Supervisor, kv_problem: KvProblem) -> ModelSnapshot:
    history = supervisor.history(state.key)
    return ModelSnapshot(
        key=state.key,
        engines=tuple(
            _engine(run, run is state.run, supervisor.get(run.id), kv_problem)
            for run in state.runs()
        ),
        queued=len(state.queue),
        is_needed=state.is_needed(),
        planned_mb=without_engines(state.pending.plan.need) if state.pending else {},
        crashes=state.backoff.crashes,
        backoff_s=state.backoff.pause_s(time.monotonic()),
        restarts=max(0, history.starts - 1),
        last_error=history.last_error,
    )


def _engine(
    run: EngineRun, takes_requests: bool, instance: Instance | None, kv_problem: KvProblem
) -> EngineSnapshot:
    """`instance` is None between the decision to start an engine and the start itself."""
    plan, ends_at = run.plan, run.expires_at()
    is_ready = run.state == "ready"
    expires = is_ready and not run.is_busy() and ends_at != FOREVER
    return EngineSnapshot(
        run_id=run.id,
        spec=plan.spec,
        state=instance.state if instance else run.state,
        takes_requests=takes_requests,
        is_ready=is_ready,
        progress=instance.progress if instance else 0.0,
        pid=instance.pid if instance else None,
        busy_slots=len(run.tickets()),
        need_mb=without_engines(plan.need),
        used_mb=dict(instance.used) if instance else {},
        load_s=instance.load_seconds if instance else 0.0,
        started_at=instance.started_at if instance else None,
        last_used_at=instance.last_used_at if instance else None,
        keep_alive_s=None if ends_at == FOREVER else run.keep_alive_s,
        expires_at=time.time() + ends_at - time.monotonic() if expires else None,
        pinned=plan.pinned,
        warnings=instance.warnings if instance else (),
        kv_problem=kv_problem(plan.spec),
    )
