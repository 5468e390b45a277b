"""Carries out what the scheduler decides, and reports to it what becomes of engines.

The scheduler returns actions; the executor grants and rejects requests, makes plans, and starts,
drains and stops engines. Whatever fails on the way is reported to the scheduler or to the request,
so that no request waits for something that will not come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from myllm.errors import EngineError, MyLLMError
from myllm.gateway.kv.slot_cache import SlotCache
from myllm.gateway.lease import Lease
from myllm.gateway.observers.observer import Observers
from myllm.gateway.planner import Planner
from myllm.gateway.scheduling.scheduler import Scheduler
from myllm.gateway.scheduling.tickets import (
    Action,
    Drain,
    EngineExit,
    Grant,
    KeepEngine,
    MakePlan,
    Pause,
    Reject,
    Start,
    Stop,
    Ticket,
)
from myllm.launcher.devices import HOST
from myllm.loops import in_background, note_failure
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from myllm.supervisor.supervisor import Supervisor

_log = structlog.get_logger(__name__)
SAVE_TIMEOUT_S: Final = 10.0
"""How long saving an engine's conversations may delay its end."""


class Executor:
    """Carries out actions, and listens to the supervisor.

    `grants` has a future for each request that is queued or holds a slot; `idle` is set while there
    are none. `leases` are those of the requests that hold a slot. `planning` are the plans in the
    making.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        supervisor: Supervisor,
        planner: Planner,
        slot_cache: SlotCache,
        observers: Observers,
    ) -> None:
        self._scheduler = scheduler
        self._supervisor = supervisor
        self._planner = planner
        self._slot_cache = slot_cache
        self._observers = observers
        self.grants: dict[Ticket, asyncio.Future[Instance]] = {}
        self.leases: dict[Ticket, Lease] = {}
        self.planning: set[asyncio.Task[None]] = set()
        self.idle = asyncio.Event()
        self._stopping: set[asyncio.Task[None]] = set()
        supervisor.listener = self

    def carry_out(self, actions: Sequence[Action]) -> None:
        """Carry out all of `actions`, even if some of them fail."""
        for action in actions:
            try:
                self._do(action)
            except Exception as failure:  # noqa: BLE001 - or a request would wait forever
                note_failure(f"to {type(action).__name__.lower()}", failure)
                self._give_up(action, _as_error(failure))

    def _do(self, action: Action) -> None:
        match action:
            case MakePlan():
                self._plan(action)
            case Start(run, plan):
                self._supervisor.start(run, plan.spec, plan.need.get(HOST))
            case Drain(run, evicted_for):
                self._drain(run, evicted_for)
            case Stop(run, reason):
                self._stop(run, reason)
            case Grant(ticket):
                self._grant(ticket)
            case Reject(ticket, error):
                self._reject(ticket, error)
            case Pause(ticket):
                if (lease := self.leases.get(ticket)) is not None:
                    lease.pause(partial(self.release, ticket))
            case KeepEngine(key, error):
                self._supervisor.history(key).last_error = error.detail
                _log.warning("engine not replaced", model=str(key), cause=error.detail)

    def _give_up(self, action: Action, error: MyLLMError) -> None:
        """`action` failed: the requests that wait for it get `error`."""
        match action:
            case MakePlan(key):
                self._no_plan(key, error)
            case Start(run, plan):
                self._supervisor.history(plan.spec.key).last_error = error.detail
                self.carry_out(self._scheduler.exited(run, EngineExit(error), time.monotonic()))
            case Stop(run, reason):
                if (instance := self._supervisor.get(run)) is not None:
                    instance.stop(reason=reason)
            case Grant(ticket):
                self._reject(ticket, error)

    def _plan(self, request: MakePlan) -> None:
        task = in_background("planning", self._make_plan(request))
        self.planning.add(task)
        task.add_done_callback(self.planning.discard)

    async def _make_plan(self, request: MakePlan) -> None:
        """The plan fails if the model has vanished or broken since the request came."""
        try:
            plan = await self._planner.plan(request.key, request.smaller)
            free = self._planner.free(self._supervisor.used(state="loading"))
            actions = self._scheduler.planned(plan, free, time.monotonic())
        except MyLLMError as failure:
            self._no_plan(request.key, failure)
        except Exception as failure:  # noqa: BLE001 - or requests would wait forever
            note_failure("planning", failure)
            self._no_plan(request.key, _as_error(failure))
        else:
            self.carry_out(actions)

    def _no_plan(self, key: InstanceKey, error: MyLLMError) -> None:
        self._supervisor.history(key).last_error = error.detail
        _log.warning("engine not started", model=str(key), cause=error.detail)
        self.carry_out(self._scheduler.plan_failed(key, error))

    def _drain(self, run: int, evicted_for: InstanceKey | None) -> None:
        instance = self._supervisor.get(run)
        if instance is None:
            return
        instance.drain()
        if evicted_for is not None:
            self._observers.evicted(instance, evicted_for)

    def _stop(self, run: int, reason: str) -> None:
        """Save the conversations of an engine, and then end it."""
        instance = self._supervisor.get(run)
        if instance is None:
            return
        instance.drain()
        task = in_background("stopping an engine", self._save_and_stop(instance, reason))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _save_and_stop(self, instance: Instance, reason: str) -> None:
        try:
            await self._slot_cache.save_all(instance, SAVE_TIMEOUT_S)
        finally:
            instance.stop(reason=reason)

    def _grant(self, ticket: Ticket) -> None:
        instance, granted = self._supervisor.get(ticket.run), self.grants.get(ticket)
        if granted is None or granted.done():
            self.carry_out(self._scheduler.release(ticket, time.monotonic()))
        elif instance is None:
            granted.set_exception(EngineError(f"the engine of '{ticket.key}' is gone"))
        else:
            granted.set_result(instance)
            self._observers.granted(ticket, instance)

    def _reject(self, ticket: Ticket, error: MyLLMError) -> None:
        granted = self.grants.get(ticket)
        if granted is not None and not granted.done():
            granted.set_exception(error)
            self._observers.rejected(ticket, error)

    def release(self, ticket: Ticket) -> None:
        """Give back the slot of `ticket`, or its place in the queue."""
        granted = self.grants.pop(ticket)
        self.leases.pop(ticket, None)
        ticket.offered_at = None
        if not self.grants:
            self.idle.set()
        try:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().last_used_at = time.time()
                self._slot_cache.release_slot(granted.result(), ticket)
        finally:
            self.carry_out(self._scheduler.release(ticket, time.monotonic()))

    # Calls of the supervisor, as its listener

    def instance_started(self, instance: Instance) -> None:
        self._observers.engine_started(instance)

    def instance_ready(self, instance: Instance) -> None:
        self._observers.engine_ready(instance)
        need = self._planner.measured(instance)
        now = time.monotonic()
        self.carry_out(self._scheduler.ready(instance.run_id, instance.spec.slots, need, now))

    def instance_exited(self, instance: Instance) -> None:
        self._observers.engine_exited(instance)
        try:
            self._planner.ended(instance)
            if instance.ready_at is not None:  # before that it has not taken all of its memory
                self._planner.measured(instance)
                self._planner.save()
            self._slot_cache.forget_run(instance.run_id)
        finally:
            ended = EngineExit(
                instance.error,
                crashed=instance.crashed,
                delivered=instance.delivered,
                no_memory=instance.lacks_memory,
                loading_signal=instance.death.loading_signal if instance.death else None,
                from_outside=instance.death is not None and instance.death.is_from_outside,
            )
            self.carry_out(self._scheduler.exited(instance.run_id, ended, time.monotonic()))


def _as_error(failure: Exception) -> MyLLMError:
    """The error that a client gets for an unforeseen failure; the log has the traceback."""
    if isinstance(failure, OSError):
        return EngineError(f"The engine cannot be started: {failure.strerror or failure}")
    return EngineError("Internal error; the server's log has the details")
