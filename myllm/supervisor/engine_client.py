"""HTTP to one engine over its Unix socket.

One connection per request: llama-server closes idle ones by itself, and a request on a
connection that is just being closed would fail; a new one costs little on a Unix socket. It
is closed with the request whatever happens, which is also how a generation is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import httptools

CONNECT_S = 10.0
_T = TypeVar("_T")
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
    async def stream(self, path: str, body: bytes) -> AsyncGenerator[EngineStream, None]:
        """POST JSON and read the answer as it comes; raises EngineConnectionError."""
        async with self._exchange(_head("POST", path, body)) as exchange:
            yield EngineStream(exchange)

    def is_busy(self) -> bool:
        """Whether a request is open."""
        return bool(self._open)

    def close(self) -> None:
        """Close every open connection: each request fails, each generation is cancelled."""
        for exchange in list(self._open):
            exchange.fail("it is being stopped")

    async def _whole(self, request: bytes, timeout_s: float) -> EngineAnswer:
        try:
            async with asyncio.timeout(timeout_s), self._exchange(request) as exchange:
                parts = []
                while part := await exchange.read():
                    parts.append(part)
                return EngineAnswer(exchange.status, b"".join(parts))
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
    """An answer that is being read."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def status(self, timeout_s: float) -> int:
        """The status, when the headers are there."""
        await _within(timeout_s, self._exchange.headers())
        return self._exchange.status

    async def chunks(self, silence_s: float) -> AsyncIterator[bytes]:
        """The body as it comes. A silence of over `silence_s` seconds is an error."""
        while True:
            chunk = self._exchange.read_nowait()
            if chunk is None:
                chunk = await _within(silence_s, self._exchange.read())
            if not chunk:
                return
            yield chunk


async def _within(timeout_s: float, wait: Coroutine[Any, Any, _T]) -> _T:
    try:
        async with asyncio.timeout(timeout_s):
            return await wait
    except TimeoutError:
        raise EngineSilentError(f"nothing came for {timeout_s:g} s") from None


class _Exchange(asyncio.Protocol):
    """One request and its answer on one connection; also httptools' listener."""

    def __init__(self) -> None:
        self.status = 0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._complete = False
        self._aborted = False
        self._error: EngineConnectionError | None = None
        self._news = asyncio.Event()

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
        if self._transport is not None:
            self._transport.abort()

    def fail(self, why: str) -> None:
        """End the exchange with an error, unless it is complete."""
        if self._error is None and not self._complete:
            self._error = EngineConnectionError(why)
        self._news.set()
        self.abort()

    async def headers(self) -> None:
        """Return when the status is known."""
        while not self.status:
            await self._wait()

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

    async def read(self) -> bytes:
        """What has come; waits for it. Empty at the end."""
        while (data := self.read_nowait()) is None:
            if self._complete:
                return b""
            await self._wait()
        return data

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._news.clear()
        await self._news.wait()

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if self._aborted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as failure:
            self.fail(f"it does not speak HTTP: {failure}")
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"it closed the connection{f': {exc}' if exc else ''}")

    # httptools' calls

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._unread += len(body)
        if self._unread > _MOST_UNREAD and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self._complete = True


def _head(method: str, path: str, body: bytes | None) -> bytes:
    """A request as bytes; with a body it is JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: engine", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
