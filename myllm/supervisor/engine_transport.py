"""The connections to one engine, which its launcher opens.

One connection per stream: llama-server closes it behind each, although it promises to keep it.
It is closed with the answer whatever happens, which is also how a generation is cancelled. A
request before a stream (to render a prompt, to read it as tokens) leaves its connection to the
next one, if it was answered to the end.
"""

from __future__ import annotations

from contextlib import suppress

import httpx

from myllm.launcher.base import Connect
from myllm.supervisor.engine_connection import Connection
from myllm.supervisor.shared_reads import SharedReadTimer

# Each keeps a thread of the engine busy with waiting.
_MAX_RESTING = 3


class EngineTransport:
    """Sends requests to the engine that `connect` reaches."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._open: set[Connection] = set()
        self._resting: list[Connection] = []
        self._read_timer = SharedReadTimer()
        self._closed = False
        self.requests = 0
        """How many requests have been sent so far."""

    async def ask(self, request: bytes, silence_s: float) -> Connection:
        """Send a request; returns the connection on which its answer has begun.

        The caller passes it to `done`. Raises httpx's TransportErrors, ReadTimeout when nothing
        comes for `silence_s` seconds.
        """
        while self._resting:
            resting = self._resting.pop()
            if not resting.rests():
                continue
            # The engine may have closed it just now, without notice.
            with suppress(httpx.ReadError):
                return await self._ask(resting, request, silence_s)
        if self._closed:
            raise httpx.ConnectError("it is being stopped")
        return await self._ask(Connection(self._read_timer), request, silence_s)

    async def _ask(self, connection: Connection, request: bytes, silence_s: float) -> Connection:
        self._open.add(connection)
        self.requests += 1
        try:
            await connection.ask(self._connect, request, silence_s)
        except BaseException:
            self.done(connection)
            raise
        return connection

    def done(self, connection: Connection) -> None:
        """A request is over. Its connection may serve the next one, as it does within a turn."""
        self._open.discard(connection)
        if connection.can_rest() and not self._closed and self._has_place():
            connection.rest()
            self._resting.append(connection)
        else:
            connection.abort()

    def _has_place(self) -> bool:
        self._resting = [each for each in self._resting if each.rests()]
        return len(self._resting) < _MAX_RESTING

    @property
    def open_requests(self) -> int:
        """How many requests are under way."""
        return len(self._open)

    def is_busy(self) -> bool:
        """Whether a request waits for the engine; data that was not read yet is not its delay."""
        return any(connection.is_awaited() for connection in self._open)

    def close(self) -> None:
        """Close every connection: each request fails, each generation is cancelled."""
        self._closed = True
        for connection in self._resting:
            connection.abort()
        self._resting.clear()
        for connection in list(self._open):
            connection.fail(httpx.ReadError("it is being stopped"))
        self._read_timer.close()
