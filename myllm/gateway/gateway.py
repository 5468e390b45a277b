"""Carries out what the scheduler decides: leases on slots, engines started and stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from myllm.errors import EngineError, MyLLMError
from myllm.gateway.scheduler import Action, Grant, Reject, Scheduler, Start, Stop, Ticket
from myllm.models.registry import Registry
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, main_role
from myllm.supervisor.supervisor import Supervisor

_log = structlog.get_logger(__name__)
_TICK_S = 1.0


@dataclass(frozen=True)
class Lease:
    """One request's hold on one slot of a running engine."""

    instance: Instance
    slot: int


class Gateway:
    """Admission: every request and every load and unload goes through here."""

    def __init__(self, registry: Registry, supervisor: Supervisor, scheduler: Scheduler) -> None:
        self.registry = registry
        self.supervisor = supervisor
        self.scheduler = scheduler
        self.draining = False
        self._granted: dict[Ticket, asyncio.Future[Instance]] = {}
        self._idle = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None
        supervisor.listener = self

    @asynccontextmanager
    async def lease(self, ticket: Ticket) -> AsyncGenerator[Lease, None]:
        """Hold a slot for `ticket`; waits for a load or in the queue as the scheduler says.

        Raises ModelNotFound, InvalidModel, EngineError when the engine cannot start, and
        Unavailable after too long a wait. The slot is free when the context is left, however.
        """
        self.registry.get(ticket.key.model)
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick(), name="scheduler tick")
        granted: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._granted[ticket] = granted
        self._idle.clear()
        try:
            self._carry_out(self.scheduler.request(ticket))
            instance = await granted
            assert ticket.slot is not None
            yield Lease(instance, ticket.slot)
        finally:
            del self._granted[ticket]
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().last_used_at = time.time()
            self._carry_out(self.scheduler.release(ticket))
            if not self._granted:
                self._idle.set()

    def phase(self, ticket: Ticket) -> str:
        """What a waiting request waits for, in two words: `loading 42%`, `queued 3`."""
        if self.scheduler.state(ticket.key) == "loading":
            instance = self.supervisor.get(ticket.key)
            return f"loading {int(100 * instance.progress) if instance else 0}%"
        return f"queued {self.scheduler.position(ticket)}"

    async def load(self, name: str) -> bool:
        """Load a model as its main role; False when it was loaded already."""
        key = InstanceKey(name, main_role(self.registry.get(name)))
        if self.scheduler.state(key) == "ready":
            return False
        async with self.lease(Ticket(key, time.monotonic())):
            return True

    async def unload(self, name: str, force: bool = False) -> None:
        """Stop all engines of a model; when this returns, they have been reaped.

        Raises InvalidRequest when none runs, Conflict when one is answering (without `force`).
        """
        leaving = [instance for instance in self.supervisor if instance.spec.key.model == name]
        self._carry_out(self.scheduler.unload(name, force))
        await asyncio.gather(*(instance.ended.wait() for instance in leaving))

    async def remove(self, name: str, force: bool = False) -> None:
        """Delete a model from the disk, unloading it first; raises what `unload` raises."""
        if self.scheduler.is_loaded(name):
            await self.unload(name, force)
        await asyncio.to_thread(self.registry.remove, name)

    async def drain(self, grace_s: float) -> None:
        """Let nobody new in and give the running answers `grace_s` seconds to end."""
        self.draining = True
        self._carry_out(self.scheduler.leave())
        if self._granted:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)

    async def close(self) -> None:
        """End every engine, which ends every answer with an error."""
        self.draining = True
        self._carry_out(self.scheduler.leave())
        if self._ticker is not None:
            self._ticker.cancel()
        await self.supervisor.close()

    # What the supervisor tells

    def instance_ready(self, instance: Instance) -> None:
        self._carry_out(self.scheduler.ready(instance.spec.key, instance.spec.slots))

    def instance_exited(self, instance: Instance) -> None:
        self._carry_out(self.scheduler.exited(instance.spec.key, instance.error))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._carry_out(self.scheduler.tick(time.monotonic()))

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(key):
                    self._start(key)
                case Stop(key):
                    self._stop(key)
                case Grant(ticket):
                    self._grant(ticket)
                case Reject(ticket, error):
                    self._reject(ticket, error)

    def _start(self, key: InstanceKey) -> None:
        """A model that has vanished or broken since the request came is a failed start."""
        try:
            self.supervisor.start(key, self.registry.get(key.model))
        except MyLLMError as failure:
            _log.warning("engine not started", model=str(key), cause=failure.detail)
            self._carry_out(self.scheduler.exited(key, failure))

    def _stop(self, key: InstanceKey) -> None:
        instance = self.supervisor.get(key)
        if instance is not None:
            instance.drain()
            instance.stop()

    def _grant(self, ticket: Ticket) -> None:
        instance, granted = self.supervisor.get(ticket.key), self._granted.get(ticket)
        if granted is None or granted.done():
            self._carry_out(self.scheduler.release(ticket))
        elif instance is None:
            granted.set_exception(EngineError(f"the engine of '{ticket.key}' is gone"))
        else:
            granted.set_result(instance)

    def _reject(self, ticket: Ticket, error: MyLLMError) -> None:
        granted = self._granted.get(ticket)
        if granted is not None and not granted.done():
            granted.set_exception(error)
