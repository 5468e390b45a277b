"""One connection to an engine: a request is written, its answer parsed as it comes.

httptools parses in C, and whoever waits is woken once for all that has come: on the way of
every token nothing else happens here. Of an answer that comes in small pieces, quickly, the
socket collects some before they are read: each reading costs the same, however much it finds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

import httptools
import httpx

# Beyond this much that nobody has taken yet, the engine is made to wait.
_MOST_UNREAD = 2**20
# Behind its first pieces (headers, a role, the first tokens) an answer is read at most this
# often. A token that comes later than that after the last one does not wait at all, and 40
# times a second is as smooth as 400 times to whoever reads.
_FIRST_PIECES, _BETWEEN_READS_S = 4, 0.025
# Larger pieces are no tokens; what sends them is to be read as fast as it comes.
_SMALL = 4096


class Connection(asyncio.Protocol):
    """Errors are httpx's: ConnectError, ReadError when the engine closes it under a request,
    ReadTimeout when nothing comes for too long, RemoteProtocolError."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._aborted = False
        self._error: httpx.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._silence_s = 0.0
        self._last_data = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._pieces = 0
        self._pause: asyncio.TimerHandle | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._complete = False
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._parser = httptools.HttpResponseParser(self)

    # What its user does

    async def connect(self, socket: str, timeout_s: float) -> None:
        """Open it. Raises ConnectError."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.create_unix_connection(lambda: self, socket)
        except (OSError, TimeoutError) as failure:
            raise httpx.ConnectError(f"cannot connect: {failure}") from failure

    async def ask(self, request: bytes, silence_s: float) -> None:
        """Send a request and return when the headers of its answer are there.

        From now on a silence of over `silence_s` seconds while somebody waits is an error. One
        timer serves the whole answer: a timeout around each wait would cost more than the rest.
        """
        self._silence_s, self._last_data = silence_s, self._loop.time()
        self._watch = self._loop.call_later(silence_s, self._look)
        if self._transport is not None:
            self._transport.write(request)
        while not self.status:
            await self._news()

    async def read(self) -> bytes:
        """What has come of the body since the last call; waits for it. Empty at the end."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._news()
        data = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        was_full, self._unread = self._unread > _MOST_UNREAD, 0
        if was_full:
            self._read_on()
        return data

    def is_awaited(self) -> bool:
        """Whether only the engine can bring the answer forward."""
        return not (self._complete or self._chunks or self._error)

    def abort(self) -> None:
        """Close it at once, also while it is still being made."""
        self._aborted = True
        for timer in (self._watch, self._pause):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: httpx.TransportError) -> None:
        """End the request with an error, unless its answer is complete."""
        if self._error is None and not self._complete:
            self._error = error
        self._wake()
        self.abort()

    # Waiting

    async def _news(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        now = self._loop.time()
        if self._waiter is None:
            self._last_data = now  # whoever reads is busy elsewhere
        left = self._last_data + self._silence_s - now
        if left <= 0:
            self.fail(httpx.ReadTimeout(f"nothing came for {self._silence_s:g} s"))
        else:
            self._watch = self._loop.call_later(left, self._look)

    def _read_later(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()
            self._pause = self._loop.call_later(_BETWEEN_READS_S, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._aborted and self._unread <= _MOST_UNREAD:
            self._transport.resume_reading()

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if self._aborted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as failure:
            self.fail(httpx.RemoteProtocolError(f"it does not speak HTTP: {failure}"))
            return
        self._last_data = self._loop.time()
        self._pieces += 1
        if self._pieces > _FIRST_PIECES and len(data) < _SMALL and not self._complete:
            self._read_later()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(httpx.ReadError(f"it closed the connection{f': {exc}' if exc else ''}"))

    # httptools' calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._unread += len(body)
        if self._unread > _MOST_UNREAD and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self._complete = True
