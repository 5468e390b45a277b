"""Admission: leases on slots for requests; loading, unloading and removing models."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import structlog

from myllm.gateway.disk_watch import DiskWatch
from myllm.gateway.engine_io.template_probes import TemplateProbes
from myllm.gateway.engine_io.token_counts import TokenCounts
from myllm.gateway.executor import SAVE_TIMEOUT_S, Executor
from myllm.gateway.known_models import KnownModels
from myllm.gateway.kv.slot_cache import SlotCache
from myllm.gateway.lease import Lease as Lease
from myllm.gateway.observers.observer import Observers
from myllm.gateway.planner import Planner
from myllm.gateway.request_record import client_left
from myllm.gateway.scheduling.scheduler import Scheduler
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.gateway.snapshot import DeviceSnapshot, Snapshot, take_snapshot
from myllm.loops import in_background, keep_running
from myllm.models.registry import Registry
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, main_role
from myllm.supervisor.supervisor import Supervisor

_log = structlog.get_logger(__name__)
_TICK_S = 0.5


class Gateway:
    """Every request, and every load and unload of a model, goes through here."""

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
        self.templates = TemplateProbes()
        self.draining = False
        self.executor = Executor(scheduler, supervisor, planner, slot_cache, observers)
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self) -> None:
        """Begin to keep time, and load the models that are configured to be preloaded."""
        # Separate loops, so that waits still time out while nothing can be measured.
        loops = {
            "scheduler tick": keep_running("scheduler tick", self._tick, _TICK_S),
            "measuring": keep_running("measuring", self._measure, _TICK_S),
            "preload": self._preload(),
            "disk watch": DiskWatch(self.registry, self.supervisor).run(),
        }
        self._tasks = [in_background(name, loop) for name, loop in loops.items()]

    def lease(self, ticket: Ticket) -> _Admission:
        """Hold a slot for `ticket`; waits for a load or in the queue as the scheduler says.

        Raises InvalidRequest for what would keep an engine busy (`constraints/`), Poison,
        KeyPaused, KeyLimitReached, ModelNotFound, InvalidModel, NoRoom, QueueFull, EngineError
        when the engine cannot start, and Unavailable after too long a wait. The slot is free when
        the context is left, however, and when the lease is paused. A ticket whose engine died, or
        whose lease was paused, may be used again and keeps its place.
        """
        return _Admission(self, ticket)

    def delivered(self, lease: Lease, ticket: Ticket) -> None:
        """Note that the engine has given `ticket` something new; call it once per lease."""
        lease.instance.delivered = True
        if not ticket.has_output:
            ticket.has_output = True
            self.observers.first_token(ticket)
        self.executor.carry_out(self.scheduler.delivered(ticket, time.monotonic()))

    def snapshot(self) -> Snapshot:
        """What runs and what waits at this moment, to be shown to the client of the request that
        the calling task answers; everything outside of requests. Reads no device."""
        kv_problem = self.slot_cache.restore_problem
        return take_snapshot(self.models.states(), self.supervisor, kv_problem, self.draining)

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
        """The owner of each slot of a model's main engine, by number; empty if it does not run."""
        run = self.scheduler.fleet.serving(name)
        if run is not None:  # this may be the engine for its embeddings
            model = run.plan.spec.model
            run = self.scheduler.fleet.serving(model.name, main_role(model))
        return {} if run is None else dict(enumerate(run.owners()))

    async def load(self, name: str, request: RequestInfo | None = None) -> bool:
        """Load a model in its main role for `request` (None: for the server itself); returns False
        if it was loaded already. Raises what `lease` raises."""
        request = request or RequestInfo()
        model = await self.models.find(name)
        key = InstanceKey(model.name, main_role(model))
        if self.scheduler.commands.keep_loaded(key, request.keep_alive_s, time.monotonic()):
            return False
        ticket = request.ticket(key)
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
        self.executor.carry_out(self.scheduler.commands.unload(name, force, time.monotonic()))
        await asyncio.gather(*(instance.ended.wait() for instance in leaving))

    def reload(self, name: str | None = None) -> list[str]:
        """Replace the engines of a model (or of all) without failing a request.

        Returns the models that are being replaced.
        """
        names = [name] if name else sorted({each.spec.key.model for each in self.supervisor})
        names = [each for each in names if self.scheduler.is_loaded(each)]
        for each in names:
            self.executor.carry_out(self.scheduler.commands.reload(each))
        return names

    async def remove(self, name: str, force: bool = False) -> None:
        """Delete a model from the disk, and unload it.

        Its folder is moved away in the same step in which its engines are asked to stop, so that
        no load can begin in between; requests that wait for it get ModelRemoved. Raises Conflict
        when it is in use, unless `force` is set, which gives its answers the drain grace to end;
        and what `Registry.move_to_trash` raises. When it raises, nothing has changed.
        """
        await self.models.require_on_disk(name)
        name = await asyncio.to_thread(self.registry.removable, name)
        if not force:
            self.scheduler.commands.require_idle(name)
        leaving = self.supervisor.of_model(name)
        self.registry.move_to_trash(name)
        self.executor.carry_out(self.scheduler.commands.remove(name, time.monotonic()))
        await asyncio.gather(*(instance.ended.wait() for instance in leaving))
        await asyncio.to_thread(self.registry.empty_trash)

    async def drain(self, grace_s: float) -> None:
        """Admit no new request, and give the running answers `grace_s` seconds to end."""
        self.draining = True
        self.executor.carry_out(self.scheduler.shut_down())
        if not self.executor.grants:
            return
        _log.info("waiting for running answers", answers=len(self.executor.grants), grace_s=grace_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.executor.idle.wait(), grace_s)
        if self.executor.grants:
            _log.warning("running answers are cut off", answers=len(self.executor.grants))

    async def close(self, within_s: float, grace_s: float) -> None:
        """End every engine, which ends every answer with an error.

        Saving the conversations and ending the engines take `within_s` together, of which
        `grace_s` are reserved for the engines to end by themselves.
        """
        ends_at = time.monotonic() + within_s
        self.draining = True
        self.executor.carry_out(self.scheduler.shut_down())
        tasks = [*self.executor.planning, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        saving_s = min(within_s - grace_s, SAVE_TIMEOUT_S)
        leaving = [self.slot_cache.save_all(each, saving_s) for each in self.supervisor]
        if leaving:
            _log.info("saving conversations and stopping engines", engines=len(leaving))
        await asyncio.gather(*leaving)
        await self.supervisor.close(max(0.0, ends_at - time.monotonic()))

    async def _preload(self) -> None:
        for model in await asyncio.to_thread(self.registry.list):
            if model.config.engine.preload and model.problem is None:
                key = InstanceKey(model.name, main_role(model))
                self.executor.carry_out(self.scheduler.commands.load(key, time.monotonic()))

    async def _tick(self) -> None:
        self.executor.carry_out(self.scheduler.tick(time.monotonic()))

    async def _measure(self) -> None:
        for instance in self.supervisor:
            if instance.ready_at is not None:
                self.scheduler.measured(instance.run_id, self.planner.measured(instance))


class _Admission:
    """The context that `Gateway.lease` returns."""

    def __init__(self, gateway: Gateway, ticket: Ticket) -> None:
        self._gateway = gateway
        self._ticket = ticket
        self._lease: Lease | None = None

    async def __aenter__(self) -> Lease:
        ticket, executor = self._ticket, self._gateway.executor
        if ticket.demand is not None:
            await ticket.demand.check(ticket.request.ignored)
            await ticket.reserve_tokens()
        granted: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        executor.grants[ticket] = granted
        executor.idle.clear()
        try:
            executor.carry_out(self._gateway.scheduler.request(ticket, time.monotonic()))
            if not granted.done():
                self._gateway.observers.queued(ticket)
            instance = await granted
            assert ticket.slot is not None
            ticket.granted_at = ticket.granted_at or time.monotonic()
            await self._gateway.slot_cache.prepare_slot(instance, ticket)
        except BaseException as error:
            self._leave(error)
            raise
        self._lease = executor.leases[ticket] = Lease(instance, ticket.slot)
        return self._lease

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        has_slot = self._lease is None or not self._lease.is_paused  # pausing has released it
        if client_left(error):
            self._ticket.gave_up = has_slot
        if has_slot:
            self._gateway.executor.release(self._ticket)
