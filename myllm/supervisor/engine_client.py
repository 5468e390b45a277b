"""HTTP to one engine over its Unix socket.

One connection per request: llama-server closes idle ones by itself, and a request on a
connection that is just being closed would fail; a new one costs little on a Unix socket. It
is closed with the request whatever happens, which is also how a generation is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httptools

CONNECT_S = 10.0
# Beyond this much that nobody has taken yet, the engine is made to wait.
_MOST_UNREAD = 2**20


class EngineConnectionError(ConnectionError):
    """The connection broke, or was closed under a request."""


class EngineSilentError(EngineConnectionError):
    """Nothing came for too long; that alone does not say that the engine is dead."""


@dataclass(frozen=True)
class EngineAnswer:
    """A whole answer."""

    status: int
    body: bytes


class EngineClient:
    """Requests to the engine that listens on `socket`."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._open: set[_Exchange] = set()

    async def get(self, path: str, timeout_s: float) -> EngineAnswer:
        """GET `path`; raises EngineConnectionError."""
        return await self._whole(_head("GET", path, None), timeout_s)

    async def post(self, path: str, body: bytes, timeout_s: float) -> EngineAnswer:
        """POST JSON to `path`; raises EngineConnectionError."""
        return await self._whole(_head("POST", path, body), timeout_s)

    @asynccontextmanager
    async def stream(
        self, path: str, body: bytes, silence_s: float
    ) -> AsyncGenerator[EngineStream, None]:
        """POST JSON and read the answer as it comes; a silence of over `silence_s` seconds ends
        it. Raises EngineConnectionError."""
        async with self._exchange(_head("POST", path, body)) as exchange:
            exchange.watch(silence_s)
            yield EngineStream(exchange)

    def is_busy(self) -> bool:
        """Whether somebody waits for the engine; what has come and was not taken yet is not the
        engine's delay."""
        return any(exchange.is_awaited() for exchange in self._open)

    def close(self) -> None:
        """Close every open connection: each request fails, each generation is cancelled."""
        for exchange in list(self._open):
            exchange.fail(EngineConnectionError("it is being stopped"))

    async def _whole(self, request: bytes, timeout_s: float) -> EngineAnswer:
        try:
            async with asyncio.timeout(timeout_s), self._exchange(request) as exchange:
                body = await EngineStream(exchange).whole()
                return EngineAnswer(exchange.status, body)
        except TimeoutError:
            raise EngineSilentError(f"no answer within {timeout_s:g} s") from None

    @asynccontextmanager
    async def _exchange(self, request: bytes) -> AsyncGenerator[_Exchange, None]:
        exchange = _Exchange()
        self._open.add(exchange)
        try:
            await exchange.connect(self._socket)
            exchange.write(request)
            yield exchange
        finally:
            self._open.discard(exchange)
            exchange.abort()


class EngineStream:
    """An answer that is being read; each call raises EngineConnectionError, and
    EngineSilentError when nothing came for too long."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def status(self) -> int:
        """The status, when the headers are there."""
        while not self._exchange.status:
            await self._exchange.news()
        return self._exchange.status

    async def read(self) -> bytes:
        """What has come of the body since the last call; waits for it. Empty at the end."""
        exchange = self._exchange
        while (data := exchange.read_nowait()) is None:
            if exchange.complete:
                return b""
            await exchange.news()
        return data

    async def whole(self) -> bytes:
        """All of the body."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)


class _Exchange(asyncio.Protocol):
    """One request and its answer on one connection; also httptools' listener."""

    def __init__(self) -> None:
        self.status = 0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self.complete = False
        self._aborted = False
        self._error: EngineConnectionError | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._silence_s = 0.0
        self._last_data = 0.0
        self._watch: asyncio.TimerHandle | None = None

    async def connect(self, socket: str) -> None:
        """Open the connection; raises EngineConnectionError."""
        if self._error is not None:
            raise self._error
        try:
            async with asyncio.timeout(CONNECT_S):
                loop = asyncio.get_running_loop()
                await loop.create_unix_connection(lambda: self, socket)
        except (OSError, TimeoutError) as failure:
            raise EngineConnectionError(f"cannot connect: {failure}") from failure

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Close the connection at once, also one that is still being made."""
        self._aborted = True
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: EngineConnectionError) -> None:
        """End the exchange with an error, unless it is complete."""
        if self._error is None and not self.complete:
            self._error = error
        self._wake()
        self.abort()

    def watch(self, silence_s: float) -> None:
        """From now on, fail when somebody waits and nothing comes for so long.

        One timer for all of the answer: a timeout around each wait would cost more than the rest.
        """
        self._silence_s, self._last_data = silence_s, self._loop.time()
        self._watch = self._loop.call_later(silence_s, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._waiter is None:
            self._last_data = now  # whoever reads is busy elsewhere
        left = self._last_data + self._silence_s - now
        if left <= 0:
            self.fail(EngineSilentError(f"nothing came for {self._silence_s:g} s"))
        else:
            self._watch = self._loop.call_later(left, self._look)

    async def news(self) -> None:
        """Wait until something has come; raises why nothing can come any more."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def is_awaited(self) -> bool:
        return self._waiter is not None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def read_nowait(self) -> bytes | None:
        """What has come since the last call, or None if nothing has."""
        if not self._chunks:
            return None
        data = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        if self._unread > _MOST_UNREAD and self._transport is not None:
            self._transport.resume_reading()
        self._unread = 0
        return data

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if self._aborted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as failure:
            self.fail(EngineConnectionError(f"it does not speak HTTP: {failure}"))
        self._last_data = self._loop.time()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        why = f"it closed the connection{f': {exc}' if exc else ''}"
        self.fail(EngineConnectionError(why))

    # httptools' calls

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._unread += len(body)
        if self._unread > _MOST_UNREAD and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.complete = True


def _head(method: str, path: str, body: bytes | None) -> bytes:
    """A request as bytes; with a body it is JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: engine", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
