"""The last requests, and those under way, for people who want to see what a server does.

Requests that asked a model are kept apart from those that failed before, so that a flood of refused
requests does not push them out. Nothing of what a client sent is kept but the path.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from myllm.errors import MyLLMError
from myllm.gateway.client import Client
from myllm.gateway.observers.captured_bodies import Captured, CapturedBodies
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import RequestRecord, client_left
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.instance import Instance

MOST: Final = 1000
"""How many requests that asked a model are kept."""
MOST_REFUSED: Final = 200
"""How many are kept of those that failed without asking a model."""
_PATH_CHARS: Final = 200
_ERROR_CHARS: Final = 500

State = Literal["queued", "running", "ok", "failed", "cancelled"]


class Entry(NamedTuple):
    """A request and its `number` in the order of their ends, from 1 on; 0 while it is under way."""

    number: int
    record: RequestRecord


@dataclass(frozen=True)
class Wanted:
    """Which requests to show: those of one model, key, state or status of the answer, and those
    that ended after the one with the number `after`. What is None does not matter."""

    model: str | None = None
    key: str | None = None
    status: State | int | None = None
    after: int = 0

    def has(self, entry: Entry) -> bool:
        """Whether it is one of these requests."""
        record = entry.record
        return (
            (self.model is None or (record.model is not None and self.model == record.model.model))
            and (self.key is None or self.key == key_name(record))
            and (self.status is None or self.status in (record.status, state_of(record)))
            and (not self.after or entry.number > self.after)
        )


class RecentRequests(Observer):
    """Keeps the records of the last requests. With `bodies`, those of requests that asked a model
    are kept there."""

    def __init__(self, bodies: CapturedBodies | None = None) -> None:
        self.bodies = bodies
        self.last = 0
        """The number of the request that ended last."""
        self._under_way: dict[RequestRecord, None] = {}
        self._asked: deque[Entry] = deque()
        self._refused: deque[Entry] = deque(maxlen=MOST_REFUSED)

    def queued(self, ticket: Ticket) -> None:
        if ticket.request.record is not None:
            self._under_way[ticket.request.record] = None

    def granted(self, ticket: Ticket, instance: Instance) -> None:
        if ticket.request.record is not None:
            self._under_way[ticket.request.record] = None

    def request_ended(self, record: RequestRecord) -> None:
        self._under_way.pop(record, None)
        if record.model is not None:
            self._keep(record)
            return
        if self.bodies is not None:
            self.bodies.drop(record)
        if record.has_failed:
            self.last += 1
            self._refused.append(Entry(self.last, _without_objects(record)))

    def entries(self, client: Client) -> list[Entry]:
        """The requests that `client` may see, the newest first: an admin sees all of them, another
        client those of its own key. Those under way come first."""
        ended = sorted((*self._asked, *self._refused), reverse=True, key=lambda entry: entry.number)
        entries = [*(Entry(0, record) for record in reversed(self._under_way)), *ended]
        if client.role == "admin":
            return entries
        return [each for each in entries if key_name(each.record) == client.key_name]

    def captured(self, record: RequestRecord) -> Captured | None:
        """The bodies of a request, if they are kept."""
        return None if self.bodies is None else self.bodies.get(record)

    def _keep(self, record: RequestRecord) -> None:
        kept = _without_objects(record)
        if self.bodies is not None:
            self.bodies.keep(record, kept)
        if len(self._asked) == MOST:
            _, oldest = self._asked.popleft()
            if self.bodies is not None:
                self.bodies.forget(oldest)
        self.last += 1
        self._asked.append(Entry(self.last, kept))


def key_name(record: RequestRecord) -> str | None:
    """The name of the key that sent the request; None without one."""
    return record.client.key_name if record.client else None


def state_of(record: RequestRecord) -> State:
    """Where a request is, or how it ended. It is cancelled if its client left."""
    if record.ended_at is None:
        return "queued" if record.granted_at is None else "running"
    if record.has_failed:
        return "failed"
    return "cancelled" if record.error is not None or not record.status else "ok"


def _without_objects(record: RequestRecord) -> RequestRecord:
    """The record without what can be large: the traceback of its error refers to everything that
    the request had, and clients choose the length of the rest."""
    if record.error is None and record.traceparent is None and len(record.path) <= _PATH_CHARS:
        return record
    error = record.error
    if client_left(error):
        error = CancelledError()
    elif error is not None:
        detail = error.detail if isinstance(error, MyLLMError) else "Internal error"
        error = MyLLMError(detail[:_ERROR_CHARS])
    return replace(record, path=record.path[:_PATH_CHARS], traceparent=None, error=error)
