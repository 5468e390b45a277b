"""httpx's seam towards one engine: its transport over the engine's Unix socket.

One connection per request: llama-server closes it after each stream, although it promises to
keep it. It is closed with the answer whatever happens, which is also how a generation is
cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from myllm.supervisor.engine_connection import Connection
from myllm.supervisor.pulse import Pulse


class EngineTransport(httpx.AsyncBaseTransport):
    """Sends requests to the engine that listens on `socket`.

    Measured on two cores, `httpx.AsyncClient` adds 300 µs to a request and 2 µs to a token, for
    redirects, cookies and decoding that no engine needs; so requests are handed to this
    transport directly.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._open: set[Connection] = set()
        self._pulse = Pulse()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx's TransportErrors. The silence bound is the request's read timeout."""
        timeouts: dict[str, Any] = request.extensions["timeout"]
        connection = Connection(self._pulse)
        self._open.add(connection)
        try:
            await connection.ask(self._socket, _head(request), timeouts["read"])
        except BaseException:
            self.done(connection)
            raise
        body = _Body(self, connection)
        return httpx.Response(connection.status, headers=connection.headers, stream=body)

    def done(self, connection: Connection) -> None:
        """A request is over."""
        self._open.discard(connection)
        connection.abort()

    def is_busy(self) -> bool:
        """Whether somebody waits for the engine; what has come and was not taken yet is not the
        engine's delay."""
        return any(connection.is_awaited() for connection in self._open)

    def close(self) -> None:
        """Close every connection: each request fails, each generation is cancelled."""
        for connection in list(self._open):
            connection.fail(httpx.ReadError("it is being stopped"))
        self._pulse.close()

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
