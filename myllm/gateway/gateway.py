"""Carries out what the scheduler decides: leases on slots, engines started and stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import structlog

from myllm.errors import EngineError, MyLLMError
from myllm.gateway.disk_watch import DiskWatch
from myllm.gateway.engine_io.token_counts import TokenCounts
from myllm.gateway.known_models import KnownModels
from myllm.gateway.kv.slot_cache import SlotCache
from myllm.gateway.lease import Lease as Lease
from myllm.gateway.observer import Observers
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
    RequestInfo,
    Start,
    Stop,
    Ticket,
)
from myllm.gateway.snapshot import DeviceSnapshot, Snapshot, take_snapshot
from myllm.launcher.devices import HOST
from myllm.loops import in_background, keep_running, note_failure
from myllm.models.registry import Registry
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, main_role
from myllm.supervisor.supervisor import Supervisor

_log = structlog.get_logger(__name__)
_TICK_S = 0.5
# What conversations get to be saved in before their engine ends.
_LEAVE_S = 10.0


class Gateway:
    """Admission: every request and every load and unload goes through here."""

    def __init__(
        self,
        registry: Registry,
        supervisor: Supervisor,
        scheduler: Scheduler,
        planner: Planner,
        slot_cache: SlotCache,
        observers: Observers,
    ) -> None:
        self.registry = registry
        self.supervisor = supervisor
        self.scheduler = scheduler
        self.planner = planner
        self.slot_cache = slot_cache
        self.observers = observers
        self.models = KnownModels(registry, scheduler.fleet)
        self.counts = TokenCounts()
        self.draining = False
        self._granted: dict[Ticket, asyncio.Future[Instance]] = {}
        self._leases: dict[Ticket, Lease] = {}
        self._planning: set[asyncio.Task[None]] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []
        supervisor.listener = self

    def start(self) -> None:
        """Begin to keep time, and load the models that are to be there from the start."""
        # Who cannot measure can still end a wait that has been too long, so each has a loop.
        loops = {
            "scheduler tick": keep_running("scheduler tick", self._tick, _TICK_S),
            "measuring": keep_running("measuring", self._measure, _TICK_S),
            "preload": self._preload(),
            "disk watch": DiskWatch(self.registry, self.supervisor).run(),
        }
        self._tasks = [in_background(name, loop) for name, loop in loops.items()]

    @asynccontextmanager
    async def lease(self, ticket: Ticket) -> AsyncGenerator[Lease, None]:
        """Hold a slot for `ticket`; waits for a load or in the queue as the scheduler says.

        Raises InvalidRequest for what would keep an engine busy (`constraints.py`), Poison,
        KeyPaused, ModelNotFound, InvalidModel, NoRoom, QueueFull, EngineError when the engine
        cannot start, and Unavailable after too long a wait. The slot is free when the context
        is left, however, and when the lease is paused. A ticket whose engine died, or whose lease
        was paused, may be used again and keeps its place.
        """
        if ticket.demand is not None:
            await ticket.demand.check()
        lease: Lease | None = None
        granted: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._granted[ticket] = granted
        self._idle.clear()
        try:
            self._carry_out(self.scheduler.request(ticket, time.monotonic()))
            if not granted.done():
                self.observers.queued(ticket)
            instance = await granted
            assert ticket.slot is not None
            ticket.granted_at = ticket.granted_at or time.monotonic()
            await self.slot_cache.prepare_slot(instance, ticket)
            lease = self._leases[ticket] = Lease(instance, ticket.slot)
            yield lease
        except (GeneratorExit, asyncio.CancelledError):
            ticket.gave_up = lease is None or not lease.is_paused
            raise
        finally:
            if lease is None or not lease.is_paused:  # or else it is given back already
                self._give_back(ticket)

    def _give_back(self, ticket: Ticket) -> None:
        """The slot of `ticket` is free, or its place in the queue."""
        granted = self._granted.pop(ticket)
        self._leases.pop(ticket, None)
        ticket.offered_at = None
        if not self._granted:
            self._idle.set()
        try:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().last_used_at = time.time()
                self.slot_cache.release_slot(granted.result(), ticket)
        finally:
            self._carry_out(self.scheduler.release(ticket, time.monotonic()))

    def delivered(self, lease: Lease, ticket: Ticket) -> None:
        """The engine has given `ticket` something that it did not have before; to be told once
        per lease."""
        lease.instance.delivered = True
        if not ticket.has_output:
            ticket.has_output = True
            self.observers.first_token(ticket)
        self._carry_out(self.scheduler.delivered(ticket, time.monotonic()))

    def snapshot(self) -> Snapshot:
        """What runs and what waits at this moment, to be shown. Reads no device."""
        kv_problem = self.slot_cache.restore_problem
        return take_snapshot(self.scheduler.fleet, self.supervisor, kv_problem, self.draining)

    def devices(self) -> dict[str, DeviceSnapshot]:
        """The memory of each device, as it is now."""
        budget = self.scheduler.fleet.memory
        taken = budget.taken()
        return {
            name: DeviceSnapshot(budget.limits.get(name), int(taken.get(name, 0)), free_mb)
            for name, free_mb in self.planner.free({}).items()
        }

    def phase(self, ticket: Ticket) -> str:
        """What a waiting request waits for, in two words: `loading 42%`, `queued 3`."""
        model = self.scheduler.fleet.model(ticket.key)
        position = self.scheduler.position(ticket, time.monotonic())
        if model.status == "loading":
            instance = self.supervisor.get(model.run.id if model.run else None)
            return f"loading {int(100 * instance.progress) if instance else 0}%"
        if model.status == "waiting":
            return f"waiting for memory, queued {position}"
        return f"queued {position}"

    def slot_owners(self, name: str) -> dict[int, str | None]:
        """Whose the slots of a model's main engine are, by number; none when it does not run."""
        run = self.scheduler.fleet.serving(name)
        if run is not None:  # there may be another engine for its embeddings
            model = run.plan.spec.model
            run = self.scheduler.fleet.serving(model.name, main_role(model))
        return {} if run is None else dict(enumerate(run.owners()))

    async def load(self, name: str, keep_alive_s: float | None = None) -> bool:
        """Load a model as its main role; False when it was loaded already."""
        model = await self.models.find(name)
        key = InstanceKey(model.name, main_role(model))
        if self.scheduler.commands.keep_loaded(key, keep_alive_s, time.monotonic()):
            return False
        ticket = RequestInfo(keep_alive_s=keep_alive_s).ticket(key)
        ticket.only_asks = True
        async with self.lease(ticket):
            return True

    async def unload(self, name: str, force: bool = False) -> None:
        """Stop all engines of a model; when this returns, they have been reaped.

        Raises InvalidRequest when none runs, Conflict when one is answering; with `force` the
        answers get the drain grace to end.
        """
        name = await self.models.name_of(name)
        leaving = self.supervisor.of_model(name)
        self._carry_out(self.scheduler.commands.unload(name, force, time.monotonic()))
        await asyncio.gather(*(instance.ended.wait() for instance in leaving))

    def reload(self, name: str | None = None) -> list[str]:
        """Replace the engines of a model (or of all) without failing a request.

        Returns the models that are being replaced.
        """
        names = [name] if name else sorted({each.spec.key.model for each in self.supervisor})
        names = [each for each in names if self.scheduler.is_loaded(each)]
        for each in names:
            self._carry_out(self.scheduler.commands.reload(each))
        return names

    async def remove(self, name: str, force: bool = False) -> None:
        """Delete a model from the disk, and unload it.

        Its folder is taken away in the same step in which its engines are told to leave, so that
        no load can begin in between; requests that wait for it get ModelRemoved. Raises Conflict
        when it is in use and `force` does not say that its answers get but the drain grace, and
        what `Registry.move_to_trash` raises; then nothing has changed.
        """
        name = await asyncio.to_thread(self.registry.removable, name)
        if not force:
            self.scheduler.commands.require_idle(name)
        leaving = self.supervisor.of_model(name)
        self.registry.move_to_trash(name)
        self._carry_out(self.scheduler.commands.remove(name, time.monotonic()))
        await asyncio.gather(*(instance.ended.wait() for instance in leaving))
        await asyncio.to_thread(self.registry.empty_trash)

    async def drain(self, grace_s: float) -> None:
        """Let nobody new in and give the running answers `grace_s` seconds to end."""
        self.draining = True
        self._carry_out(self.scheduler.shut_down())
        if not self._granted:
            return
        _log.info("waiting for running answers", answers=len(self._granted), grace_s=grace_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_s)
        if self._granted:
            _log.warning("running answers are cut off", answers=len(self._granted))

    async def close(self, within_s: float, grace_s: float) -> None:
        """End every engine, which ends every answer with an error.

        Saving the conversations and ending the engines take `within_s` together, of which
        `grace_s` are kept for the engines to end by themselves.
        """
        ends_at = time.monotonic() + within_s
        self.draining = True
        self._carry_out(self.scheduler.shut_down())
        tasks = [*self._planning, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        saving_s = min(within_s - grace_s, _LEAVE_S)
        leaving = [self.slot_cache.save_all(each, saving_s) for each in self.supervisor]
        if leaving:
            _log.info("saving conversations and stopping engines", engines=len(leaving))
        await asyncio.gather(*leaving)
        await self.supervisor.close(max(0.0, ends_at - time.monotonic()))

    # What the supervisor tells

    def instance_started(self, instance: Instance) -> None:
        self.observers.engine_started(instance)

    def instance_ready(self, instance: Instance) -> None:
        self.observers.engine_ready(instance)
        need = self.planner.measured(instance)
        now = time.monotonic()
        self._carry_out(self.scheduler.ready(instance.run_id, instance.spec.slots, need, now))

    def instance_exited(self, instance: Instance) -> None:
        self.observers.engine_exited(instance)
        try:
            self.planner.ended(instance)
            if instance.ready_at is not None:  # before that it has not taken all yet
                self.planner.measured(instance)
                self.planner.save()
            self.slot_cache.forget_run(instance.run_id)
        finally:
            ended = EngineExit(
                instance.error,
                crashed=instance.crashed,
                delivered=instance.delivered,
                no_memory=instance.lacks_memory,
                loading_signal=instance.death.loading_signal if instance.death else None,
                from_outside=instance.death is not None and instance.death.is_from_outside,
            )
            self._carry_out(self.scheduler.exited(instance.run_id, ended, time.monotonic()))

    async def _preload(self) -> None:
        for model in await asyncio.to_thread(self.registry.list):
            if model.config.engine.preload and model.problem is None:
                key = InstanceKey(model.name, main_role(model))
                self._carry_out(self.scheduler.commands.load(key, time.monotonic()))

    async def _tick(self) -> None:
        self._carry_out(self.scheduler.tick(time.monotonic()))

    async def _measure(self) -> None:
        for instance in self.supervisor:
            if instance.ready_at is not None:
                self.scheduler.measured(instance.run_id, self.planner.measured(instance))

    def _carry_out(self, actions: Sequence[Action]) -> None:
        """Each of `actions`, also when one before it fails."""
        for action in actions:
            try:
                self._do(action)
            except Exception as failure:  # noqa: BLE001 - or somebody would wait for it for ever
                note_failure(f"to {type(action).__name__.lower()}", failure)
                self._give_up(action, _in_words(failure))

    def _do(self, action: Action) -> None:
        match action:
            case MakePlan():
                self._plan(action)
            case Start(run, plan):
                self.supervisor.start(run, plan.spec, plan.need.get(HOST))
            case Drain(run, evicted_for):
                self._drain(run, evicted_for)
            case Stop(run, reason):
                self._stop(run, reason)
            case Grant(ticket):
                self._grant(ticket)
            case Reject(ticket, error):
                self._reject(ticket, error)
            case Pause(ticket):
                if (lease := self._leases.get(ticket)) is not None:
                    lease.pause(partial(self._give_back, ticket))
            case KeepEngine(key, error):
                self.supervisor.history(key).last_error = error.detail
                _log.warning("engine not replaced", model=str(key), cause=error.detail)

    def _give_up(self, action: Action, error: MyLLMError) -> None:
        """What could not be done will not be: whoever waits for it gets `error`."""
        match action:
            case MakePlan(key):
                self._no_plan(key, error)
            case Start(run, plan):
                self.supervisor.history(plan.spec.key).last_error = error.detail
                self._carry_out(self.scheduler.exited(run, EngineExit(error), time.monotonic()))
            case Stop(run, reason):
                if (instance := self.supervisor.get(run)) is not None:
                    instance.stop(reason=reason)
            case Grant(ticket):
                self._reject(ticket, error)

    def _plan(self, wish: MakePlan) -> None:
        task = in_background("planning", self._make_plan(wish))
        self._planning.add(task)
        task.add_done_callback(self._planning.discard)

    async def _make_plan(self, wish: MakePlan) -> None:
        """A model that has vanished or broken since the request came cannot be planned."""
        try:
            plan = await self.planner.plan(wish.key, wish.smaller)
            free = self.planner.free(self.supervisor.used(state="loading"))
            actions = self.scheduler.planned(plan, free, time.monotonic())
        except MyLLMError as failure:
            self._no_plan(wish.key, failure)
        except Exception as failure:  # noqa: BLE001 - or else those who wait would never hear of it
            note_failure("planning", failure)
            self._no_plan(wish.key, _in_words(failure))
        else:
            self._carry_out(actions)

    def _no_plan(self, key: InstanceKey, error: MyLLMError) -> None:
        self.supervisor.history(key).last_error = error.detail
        _log.warning("engine not started", model=str(key), cause=error.detail)
        self._carry_out(self.scheduler.plan_failed(key, error))

    def _drain(self, run: int, evicted_for: InstanceKey | None) -> None:
        instance = self.supervisor.get(run)
        if instance is None:
            return
        instance.drain()
        if evicted_for is not None:
            self.observers.evicted(instance, evicted_for)

    def _stop(self, run: int, reason: str) -> None:
        """End an engine, after its conversations have been saved."""
        instance = self.supervisor.get(run)
        if instance is None:
            return
        instance.drain()
        task = in_background("stopping an engine", self._save_and_stop(instance, reason))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _save_and_stop(self, instance: Instance, reason: str) -> None:
        try:
            await self.slot_cache.save_all(instance, _LEAVE_S)
        finally:
            instance.stop(reason=reason)

    def _grant(self, ticket: Ticket) -> None:
        instance, granted = self.supervisor.get(ticket.run), self._granted.get(ticket)
        if granted is None or granted.done():
            self._carry_out(self.scheduler.release(ticket, time.monotonic()))
        elif instance is None:
            granted.set_exception(EngineError(f"the engine of '{ticket.key}' is gone"))
        else:
            granted.set_result(instance)
            self.observers.granted(ticket, instance)

    def _reject(self, ticket: Ticket, error: MyLLMError) -> None:
        granted = self._granted.get(ticket)
        if granted is not None and not granted.done():
            granted.set_exception(error)
            self.observers.rejected(ticket, error)


def _in_words(failure: Exception) -> MyLLMError:
    """What a client is told of a failure that nobody foresaw; the log has its traceback."""
    if isinstance(failure, OSError):
        return EngineError(f"The engine cannot be started: {failure.strerror or failure}")
    return EngineError("Internal error; the server's log has the details")
