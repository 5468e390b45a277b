"""The events of the feed, and how their ids tell which ones a reader has seen.

An id is `START-NUMBER`: START is chosen when the server starts, so that ids of another start, or of
another server, are recognized.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

KEPT: Final = 512
"""How many events a reader that comes back can have missed."""
_ID: Final = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})", re.ASCII)


@dataclass(frozen=True)
class Event:
    """One change of a model with these `names`.

    `frame` is the event as a reader gets it. `for_users` is what keys of the role `user` get,
    without what is for admins alone; None: nothing.
    """

    number: int
    names: tuple[str, ...]
    frame: bytes
    for_users: bytes | None


class NumberedEvents:
    """Numbers events, and keeps the last ones."""

    def __init__(self) -> None:
        self._start = os.urandom(4).hex()
        self._number = 0
        self._kept: deque[Event] = deque(maxlen=KEPT)

    @property
    def last_id(self) -> str:
        """The id of the last event."""
        return f"{self._start}-{self._number}"

    @property
    def last_number(self) -> int:
        """The number of the last event."""
        return self._number

    def add(
        self,
        name: str,
        names: tuple[str, ...],
        data: Mapping[str, Any],
        for_users: Mapping[str, Any] | None,
    ) -> Event:
        """Return the next event."""
        self._number += 1
        own = sse(name, data, self.last_id)
        public = None if for_users is None else sse(name, for_users, self.last_id)
        event = Event(self._number, names, own, public)
        self._kept.append(event)
        return event

    def since(self, last_id: str | None) -> list[Event] | None:
        """The events after the one with this id; None if that cannot be told."""
        match = _ID.fullmatch(last_id or "")
        if match is None or match[1] != self._start:
            return None
        number, oldest = int(match[2]), self._number + 1 - len(self._kept)
        if not oldest - 1 <= number <= self._number:
            return None
        return [event for event in self._kept if event.number > number]

    def interrupt(self) -> None:
        """Changes go unnoticed from now on: a reader that has seen all so far misses some."""
        self._kept.clear()
        self._number += 1


def sse(name: str, data: Mapping[str, Any], event_id: str | None = None) -> bytes:
    """A server-sent event; one without an id is not repeated for readers that come back."""
    head = f"event: {name}\n" if event_id is None else f"id: {event_id}\nevent: {name}\n"
    return head.encode() + b"data: " + orjson.dumps(data) + b"\n\n"
