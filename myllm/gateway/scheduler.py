"""Who gets a slot, and which engines run: decided here, carried out by the gateway.

Pure and synchronous: events go in as method calls, actions come out as a list, nothing waits
and nothing does I/O. On one event loop code without `await` is atomic, so there are no locks,
and a slot is reserved in the moment it is granted.

What becomes of a request, in this order:
  1. the server is leaving                         -> Reject
  2. its engine is absent                          -> Start, and it queues
  3. its engine is loading, draining, or all slots
     are busy, or somebody is before it            -> it queues
  4. otherwise                                     -> Grant
A queued request is granted when its turn comes, or rejected when it has waited too long or
its engine could not start.

Which slot, among the free ones: the one that held this session; else one that held no session,
the last used first (it may share a prefix); else the one least recently used.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from myllm.errors import Conflict, InvalidRequest, MyLLMError, Unavailable
from myllm.supervisor.spec import InstanceKey


@dataclass(eq=False)
class Ticket:
    """One request's place: queued, then holding a slot, then done."""

    key: InstanceKey
    enqueued_at: float
    session: str | None = None
    slot: int | None = None


@dataclass(frozen=True)
class Start:
    """Start an engine for `key`."""

    key: InstanceKey


@dataclass(frozen=True)
class Stop:
    """End the engine of `key`; nobody uses it."""

    key: InstanceKey


@dataclass(frozen=True)
class Grant:
    """`ticket` holds the slot it names from now on, until `release`."""

    ticket: Ticket


@dataclass(frozen=True)
class Reject:
    """`ticket` will not be served."""

    ticket: Ticket
    error: MyLLMError


Action = Start | Stop | Grant | Reject


@dataclass
class _Slot:
    number: int
    ticket: Ticket | None = None
    session: str | None = None
    last_use: int = 0


@dataclass
class _Entry:
    """What is known of one key."""

    state: Literal["absent", "loading", "ready", "draining"] = "absent"
    slots: list[_Slot] = field(default_factory=list)
    queue: deque[Ticket] = field(default_factory=deque)

    def busy(self) -> int:
        return sum(slot.ticket is not None for slot in self.slots)


class Scheduler:
    """The policy. `queue_timeout_s` bounds the wait for a slot of an engine that is ready."""

    def __init__(self, queue_timeout_s: float) -> None:
        self._queue_timeout_s = queue_timeout_s
        self._entries: dict[InstanceKey, _Entry] = {}
        self._leaving = False
        self._uses = itertools.count(1)

    # What can be asked

    def state(self, key: InstanceKey) -> str:
        """`absent`, `loading`, `ready` or `draining`."""
        return self._entry(key).state

    def busy(self, key: InstanceKey) -> int:
        """Slots in use."""
        return self._entry(key).busy()

    def queued(self, key: InstanceKey) -> int:
        """Requests waiting."""
        return len(self._entry(key).queue)

    def position(self, ticket: Ticket) -> int:
        """How many requests go before `ticket`, and itself: 1 is next."""
        queue = self._entry(ticket.key).queue
        return queue.index(ticket) + 1 if ticket in queue else 0

    def is_loaded(self, model: str) -> bool:
        """Whether any engine of `model` is loading, ready or draining."""
        return any(k.model == model and e.state != "absent" for k, e in self._entries.items())

    def totals(self) -> tuple[int, int]:
        """Requests (queued, active) over all models."""
        entries = self._entries.values()
        return sum(len(e.queue) for e in entries), sum(e.busy() for e in entries)

    # Events

    def request(self, ticket: Ticket) -> list[Action]:
        """A request has arrived."""
        if self._leaving:
            return [Reject(ticket, Unavailable("The server is shutting down", retry_after_s=5))]
        entry = self._entry(ticket.key)
        entry.queue.append(ticket)
        return self._start_if_absent(ticket.key) + self._grant(entry)

    def release(self, ticket: Ticket) -> list[Action]:
        """The request is over, or was given up while it waited; its slot is free at once."""
        entry = self._entry(ticket.key)
        if ticket in entry.queue:
            entry.queue.remove(ticket)
        for slot in entry.slots:
            if slot.ticket is ticket:
                slot.ticket = None
                slot.last_use = next(self._uses)
        if entry.state == "draining" and not entry.busy():
            return [Stop(ticket.key)]
        return self._grant(entry)

    def ready(self, key: InstanceKey, slots: int) -> list[Action]:
        """An engine can serve `slots` requests at a time."""
        entry = self._entry(key)
        if entry.state != "loading":  # it was asked to leave in the meantime
            return []
        entry.state = "ready"
        entry.slots = [_Slot(number) for number in range(slots)]
        return self._grant(entry)

    def exited(self, key: InstanceKey, error: MyLLMError | None) -> list[Action]:
        """An engine has ended, by itself (`error`) or because it was stopped (None).

        One that could not even start fails those who wait for it; after any other end they
        are served by a new one.
        """
        entry = self._entry(key)
        failed_to_start = entry.state == "loading" and error is not None
        entry.state, entry.slots = "absent", []
        if self._leaving or (failed_to_start and error is not None):
            reason = error or Unavailable("The server is shutting down", retry_after_s=5)
            rejected = [Reject(ticket, reason) for ticket in entry.queue]
            entry.queue.clear()
            return list(rejected)
        return self._start_if_absent(key) if entry.queue else []

    def unload(self, model: str, force: bool = False) -> list[Action]:
        """Somebody wants every engine of `model` gone.

        Raises InvalidRequest when none is loaded and Conflict when one is answering;
        `force` lets the running answers end first, instead.
        """
        running = {
            key: entry
            for key, entry in self._entries.items()
            if key.model == model and entry.state != "absent"
        }
        if not running:
            raise InvalidRequest(f"Model '{model}' is not loaded")
        requests = sum(entry.busy() + len(entry.queue) for entry in running.values())
        if requests and not force:
            raise Conflict(
                f"Model '{model}' is answering {requests} request(s); "
                "try again when it is idle, or force it"
            )
        actions: list[Action] = []
        for key, entry in running.items():
            if entry.state != "draining":
                entry.state = "draining"
                actions += [] if entry.busy() else [Stop(key)]
        return actions

    def tick(self, now: float) -> list[Action]:
        """Time has passed: reject who has waited too long for a slot.

        The wait for a load is bounded by the load's own timeout.
        """
        actions: list[Action] = []
        for entry in self._entries.values():
            while (
                entry.state == "ready"
                and entry.queue
                and now - entry.queue[0].enqueued_at > self._queue_timeout_s
            ):
                late = entry.queue.popleft()
                detail = (
                    f"Waited {self._queue_timeout_s:g} s for a free slot of model "
                    f"'{late.key.model}' (MYLLM_QUEUE_TIMEOUT)"
                )
                actions.append(Reject(late, Unavailable(detail, retry_after_s=10)))
        return actions

    def leave(self) -> list[Action]:
        """The server is shutting down: nobody new comes in, those who wait go."""
        self._leaving = True
        error = Unavailable("The server is shutting down", retry_after_s=5)
        actions: list[Action] = []
        for entry in self._entries.values():
            actions += [Reject(ticket, error) for ticket in entry.queue]
            entry.queue.clear()
        return actions

    # Decisions

    def _entry(self, key: InstanceKey) -> _Entry:
        return self._entries.setdefault(key, _Entry())

    def _start_if_absent(self, key: InstanceKey) -> list[Action]:
        entry = self._entry(key)
        if entry.state != "absent":
            return []
        entry.state = "loading"
        return [Start(key)]

    def _grant(self, entry: _Entry) -> list[Action]:
        actions: list[Action] = []
        while entry.state == "ready" and entry.queue:
            free = [slot for slot in entry.slots if slot.ticket is None]
            if not free:
                break
            ticket = entry.queue.popleft()
            slot = _best_slot(free, ticket.session)
            slot.ticket, slot.session = ticket, ticket.session
            ticket.slot = slot.number
            actions.append(Grant(ticket))
        return actions


def _best_slot(free: list[_Slot], session: str | None) -> _Slot:
    own = [slot for slot in free if session is not None and slot.session == session]
    if own:
        return own[0]
    unowned = [slot for slot in free if slot.session is None]
    if unowned:
        return max(unowned, key=lambda slot: slot.last_use)
    return min(free, key=lambda slot: slot.last_use)
