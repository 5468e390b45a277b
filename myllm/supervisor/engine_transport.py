"""httpx's seam towards one engine: a transport over the connections that its launcher opens.

One connection per stream: llama-server closes it behind each, although it promises to keep it.
It is closed with the answer whatever happens, which is also how a generation is cancelled. A
request before a stream (to render a prompt, to read it as tokens) leaves its connection to the
next one, if it was answered to the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx

from myllm.launcher.base import Connect
from myllm.supervisor.engine_connection import Connection
from myllm.supervisor.shared_reads import SharedReadTimer

# Each keeps a thread of the engine busy with waiting.
_MAX_RESTING = 3


class EngineTransport(httpx.AsyncBaseTransport):
    """Sends requests to the engine that `connect` reaches.

    Measured on two cores, `httpx.AsyncClient` adds 300 µs to a request and 2 µs to a token, for
    redirects, cookies and decoding that no engine needs; so requests are handed to this
    transport directly.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._open: set[Connection] = set()
        self._resting: list[Connection] = []
        self._read_timer = SharedReadTimer()
        self._closed = False
        self.requests = 0
        """How many requests have been sent so far."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx's TransportErrors. The silence bound is the request's read timeout."""
        timeouts: dict[str, Any] = request.extensions["timeout"]
        head, silence_s = _head(request), timeouts["read"]
        while self._resting:
            resting = self._resting.pop()
            if not resting.rests():
                continue
            # The engine may have closed it just now, without notice.
            with suppress(httpx.ReadError):
                return await self._ask(resting, head, silence_s)
        if self._closed:
            raise httpx.ConnectError("it is being stopped")
        return await self._ask(Connection(self._read_timer), head, silence_s)

    async def _ask(self, connection: Connection, head: bytes, silence_s: float) -> httpx.Response:
        self._open.add(connection)
        self.requests += 1
        try:
            await connection.ask(self._connect, head, silence_s)
        except BaseException:
            self.done(connection)
            raise
        body = _Body(self, connection)
        return httpx.Response(connection.status, headers=connection.headers, stream=body)

    def done(self, connection: Connection) -> None:
        """A request is over. Its connection may serve the next one, as it does within a turn."""
        self._open.discard(connection)
        self._resting = [each for each in self._resting if each.rests()]
        if len(self._resting) < _MAX_RESTING and not self._closed and connection.can_rest():
            connection.rest()
            self._resting.append(connection)
        else:
            connection.abort()

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

    async def aclose(self) -> None:
        self.close()


class _Body(httpx.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, transport: EngineTransport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = self._connection.read
        while data := await read():
            yield data

    async def aclose(self) -> None:
        self._transport.done(self._connection)


def _head(request: httpx.Request) -> bytes:
    """A request as bytes."""
    assert isinstance(request.stream, httpx.ByteStream)
    content = b"".join(request.stream)
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % pair for pair in request.headers.raw]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(content), b"", content])
