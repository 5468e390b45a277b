"""The feed of changes: clients that listen get each change of models, engines, queues and pulls.

    no listener ──> looking ──> lingering ──> no listener
                       ▲            │
                       └────────────┘  a listener comes (back)

While a client listens, and for half a minute after that, the feed looks for changes four times a
second, which bounds how often the progress of a load or a pull is reported. Engines that start and
end are reported at once. Without a listener nothing is done and nothing kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any, Final

from myllm.errors import InvalidModel, MyLLMError, NoRoom, Unavailable
from myllm.gateway.activity.changes import Change, Views, about, changes, failed, loading, views_of
from myllm.gateway.activity.events import NumberedEvents, sse
from myllm.gateway.activity.listener import Listener
from myllm.gateway.gateway import Gateway
from myllm.gateway.observers.observer import Observer
from myllm.gateway.pull_progress import Pulls, Step
from myllm.gateway.scheduling.tickets import Ticket
from myllm.loops import in_background, keep_running
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey

MOST_LISTENERS: Final = 100
EVERY_S: Final = 0.25
_NAMES_EVERY_S: Final = 2.0
_MEMORY_EVERY_S: Final = 1.0
_LINGERS_S: Final = 30.0


class EventFeed(Observer):
    """Numbers the changes and hands them to every listener."""

    def __init__(self, gateway: Gateway, pulls: Pulls) -> None:
        self.events = NumberedEvents()
        self._gateway = gateway
        self._pulls = pulls
        pulls.on_end = self._pull_ended
        self._listeners: set[Listener] = set()
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False
        self._views: Views = {}
        self._told: dict[InstanceKey, str] = {}
        self._aliases: Mapping[str, tuple[str, ...]] = {}
        self._steps: dict[str, Step] = {}
        self._named_at = self._measured_at = self._heard_at = 0.0

    @property
    def names(self) -> list[tuple[str, ...]]:
        """The name of each model, followed by its aliases; known while a client listens."""
        return [self._names_of(name) for name in sorted(self._aliases)]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        """Yield a listener that gets each change from now on.

        Raises Unavailable when there are too many, or the server stops.
        """
        if self._is_closed:
            raise Unavailable("The server is stopping")
        if len(self._listeners) >= MOST_LISTENERS:
            raise Unavailable(f"{MOST_LISTENERS} clients listen to the events; end one of them")
        listener = Listener()
        self._listeners.add(listener)
        try:
            if self._looking is None:
                aliases = await self._read_aliases()
                if self._looking is None:  # no other listener was faster
                    self._begin(aliases)
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """End every listener, and accept no other."""
        self._is_closed = True
        for listener in self._listeners:
            listener.close()
        self._stop()

    # What the observers and the pulls report

    def engine_started(self, instance: Instance) -> None:
        self._tell(loading(instance.spec.key, 0))

    def engine_ready(self, instance: Instance) -> None:
        key, seconds = instance.spec.key, round(instance.load_seconds, 3)
        self._tell(Change("ready", key, about(key) | {"load_seconds": seconds}))

    def engine_exited(self, instance: Instance) -> None:
        key, error = instance.spec.key, instance.error
        if error is not None:
            self._tell_failure(key, error.detail)
            return
        # A user is not to learn which other model took its place.
        public = about(key) | {"reason": instance.stop_reason.partition(" for ")[0]}
        self._tell(Change("unloaded", key, public | {"reason": instance.stop_reason}), public)

    def evicted(self, instance: Instance, beneficiary: InstanceKey) -> None:
        key = instance.spec.key
        data = about(key) | {"for": beneficiary.model, "for_role": beneficiary.role}
        self._tell(Change("evicted", key, data), about(key))

    def rejected(self, ticket: Ticket, error: MyLLMError) -> None:
        # Of a model that does not fit no engine is started that could fail.
        if isinstance(error, NoRoom):
            self._tell_failure(ticket.key, error.detail)

    def _pull_ended(self, name: str, error: MyLLMError | None) -> None:
        self._steps.pop(name, None)
        if error is None:
            self._add("pull", name, {"model": name, "status": "success"}, None)
        else:
            self._add(
                "pull", name, {"model": name, "status": "failed", "error": error.detail}, None
            )

    # Looking for changes

    def _begin(self, aliases: Mapping[str, tuple[str, ...]]) -> None:
        self._aliases = aliases
        # In an empty context, since the key of the request that came first may have a scope.
        self._views = Context().run(lambda: views_of(self._gateway.snapshot()))
        self._told.clear()
        self._steps.clear()
        self._heard_at = time.monotonic()
        look = keep_running("event feed", self._look, EVERY_S)
        self._looking = in_background("event feed", look, Context())

    def _stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
            self.events.interrupt()

    async def _look(self) -> None:
        now = time.monotonic()
        if self._listeners:
            self._heard_at = now
        elif now - self._heard_at > _LINGERS_S:
            self._stop()
            return
        if now - self._named_at >= _NAMES_EVERY_S:
            self._compare(await self._read_aliases())
        views = views_of(self._gateway.snapshot())
        for change in changes(self._views, views):
            if change.name == "failed":
                self._tell_failure(change.key, change.data["error"])
            else:
                self._tell(change)
        self._views = views
        self._told.clear()
        self._look_at_pulls()
        if self._listeners and now - self._measured_at >= _MEMORY_EVERY_S:
            self._measured_at = now
            self._send_memory()

    async def _read_aliases(self) -> Mapping[str, tuple[str, ...]]:
        self._named_at = time.monotonic()
        with suppress(InvalidModel):  # the folder cannot be read, which lists of models tell
            return await asyncio.to_thread(self._gateway.registry.aliases)
        return self._aliases

    def _compare(self, aliases: Mapping[str, tuple[str, ...]]) -> None:
        before = self._aliases
        for name in sorted(before.keys() - aliases.keys()):
            self._add("model_removed", name, {"model": name}, {"model": name})
        self._aliases = aliases
        for name in sorted(aliases.keys() - before.keys()):
            self._add("model_found", name, {"model": name}, {"model": name})

    def _names_of(self, model: str) -> tuple[str, ...]:
        return (model, *self._aliases.get(model, ()))

    def _look_at_pulls(self) -> None:
        for name, step in self._pulls.under_way.items():
            if self._steps.get(name) is not step:
                self._steps[name] = step
                self._add("pull", name, shown_pull(name, step), None)

    def _send_memory(self) -> None:
        """For admins alone, and without an id: a reader that comes back gets the next one."""
        frame = sse("memory", self.memory())
        for listener in self._listeners:
            listener.put_memory(frame)

    def memory(self) -> dict[str, Any]:
        """The memory of each device: what engines may take, are charged with and were measured to
        take, and what is free."""
        measured: Counter[str] = Counter()
        for instance in self._gateway.supervisor:
            measured.update(instance.used)
        return {
            name: {
                "budget_mb": device.budget_mb,
                "taken_mb": device.taken_mb,
                "measured_mb": measured[name],
                "free_mb": device.free_mb,
            }
            for name, device in self._gateway.devices().items()
        }

    def _tell_failure(self, key: InstanceKey, error: str) -> None:
        """Tell it unless the same was told since the last look: many requests may wait for it."""
        if self._told.get(key) != error:
            self._told[key] = error
            self._tell(failed(key, error))

    def _tell(self, change: Change, for_users: Mapping[str, Any] | None = None) -> None:
        self._add(change.name, change.key.model, change.data, for_users or change.data)

    def _add(
        self, name: str, model: str, data: Mapping[str, Any], for_users: Mapping[str, Any] | None
    ) -> None:
        if self._looking is None:
            return
        event = self.events.add(name, self._names_of(model), data, for_users)
        for listener in self._listeners:
            listener.put(event)


def shown_pull(name: str, step: Step) -> dict[str, Any]:
    """A step of a pull, as events and snapshots show it."""
    shown: dict[str, Any] = {"model": name, "status": step.status}
    if step.file is not None:
        shown |= {"file": step.file.name, "total": step.file.size, "completed": step.completed}
    return shown
