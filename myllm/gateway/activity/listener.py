"""One reader of the feed, and what waits to be sent to it."""

from __future__ import annotations

import asyncio
from typing import Final

from myllm.gateway.activity.events import Event

MOST_WAITING: Final = 256
"""Events that wait for a reader; when there are more, it gets a snapshot in their place."""


class Listener:
    """Collects events while its reader is busy with earlier ones."""

    def __init__(self) -> None:
        self.has_missed = False
        """Whether events were dropped, because the reader is slow."""
        self.is_closed = False
        self._events: list[Event] = []
        self._memory: bytes | None = None
        self._has_news = asyncio.Event()

    def put(self, event: Event) -> None:
        """Keep an event for the reader."""
        if len(self._events) >= MOST_WAITING:
            self.has_missed = True
        if self.has_missed:
            self._events.clear()
        else:
            self._events.append(event)
        self._has_news.set()

    def put_memory(self, frame: bytes) -> None:
        """Keep the newest report on memory for the reader."""
        self._memory = frame
        self._has_news.set()

    def close(self) -> None:
        """End the reader's stream."""
        self.is_closed = True
        self._has_news.set()

    async def news(self) -> tuple[list[Event], bytes | None]:
        """Wait for events or a report on memory, and take both."""
        await self._has_news.wait()
        self._has_news.clear()
        taken = self._events, self._memory
        self._events, self._memory = [], None
        return taken

    def forget(self) -> None:
        """Forget the events so far: the reader gets a snapshot that contains them."""
        self._events.clear()
        self.has_missed = False
