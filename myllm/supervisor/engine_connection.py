"""One connection to an engine: a request is written, its answer parsed as it comes.

    unconnected ──ask──> asked ──whole answer──> answered ──rest──> resting
                           ▲                                           │
                           └───────────────────ask─────────────────────┘

    any state ──abort, or the engine closes──> closed

httptools parses in C, and the reader is woken once for everything that has come: nothing else
happens here per token. When an answer comes quickly, in small pieces, the socket collects some
before a `SharedReadTimer` reads all such sockets in one go.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Literal, cast

import httptools
import httpx

from myllm.launcher.base import Connect
from myllm.supervisor.shared_reads import SharedReadTimer

State = Literal["unconnected", "asked", "answered", "resting", "closed"]
# The calls of a turn follow each other faster. llama-server (cpp-httplib) waits for 5 s.
_RESTS_S = 0.5
# Beyond this much that was not read yet, the engine is made to wait.
_MAX_UNREAD = 2**20
# The first pieces of an answer (headers, a role, the first tokens) are read as they come, however
# fast; and so is an answer of fewer than 100 pieces per second.
_FIRST_PIECES, _QUICK_S = 4, 0.01
_LITTLE = 2  # pieces between two calls of the timer
# Larger pieces are not tokens, and are read as fast as they come.
_SMALL = 4096
_MAX_AT_ONCE = 2**16


class Connection(asyncio.Protocol):
    """Errors are httpx's: ConnectError, ReadError when the engine closes it under a request,
    ReadTimeout when nothing comes for too long, RemoteProtocolError."""

    def __init__(self, timer: SharedReadTimer) -> None:
        self._timer = timer
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._aborted = False
        self._error: httpx.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._silence_s = 0.0
        self._last_data = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._pieces = 0
        self._fd = -1
        self.status = 0
        self._complete = self._stays_open = False
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._parser: httptools.HttpResponseParser | None = None

    @property
    def state(self) -> State:
        """Where it is in the diagram above; derived, so that a token costs nothing more."""
        if self._aborted:
            return "closed"
        if self._complete:
            return "answered"
        if self._parser is not None:
            return "asked"
        return "unconnected" if self._transport is None else "resting"

    # What its user does

    async def ask(self, connect: Connect, request: bytes, silence_s: float) -> None:
        """Send a request over `connect`; returns when the answer has begun: its headers
        are there, and the first of its body, which follows at once.

        A resting connection does not connect again. Raises ConnectError. From the sending on, a
        silence of over `silence_s` seconds while the caller waits is an error. One timer serves
        the whole answer: a timeout around each wait would cost more than the rest.
        """
        unsent: bytes | memoryview = request
        if self._transport is None:
            try:
                unsent = await self._open(connect, request)
            except (OSError, TimeoutError) as failure:
                raise httpx.ConnectError(f"cannot connect: {failure}") from failure
        else:
            self._parser = httptools.HttpResponseParser(self)
        self._silence_s, self._last_data = silence_s, self._loop.time()
        self._call_later(silence_s, self._look)
        if unsent and self._transport is not None:
            self._transport.write(unsent)
        while not (self._chunks or self._complete):
            await self._news()

    async def _open(self, connect: Connect, request: bytes) -> memoryview:
        """Connect, and at once send what the socket takes of the request, so that the engine begins
        meanwhile. Returns the rest."""
        opened = await connect()
        try:
            sent = opened.send(request)
            self._parser = httptools.HttpResponseParser(self)
            if opened.family == socket.AF_UNIX:
                await self._loop.create_unix_connection(lambda: self, sock=opened)
            else:
                await self._loop.create_connection(lambda: self, sock=opened)
        except BaseException:
            opened.close()
            raise
        return memoryview(request)[sent:]

    async def read(self) -> bytes:
        """Return what has come of the body since the last call; waits for it. Empty at the end."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._news()
        data = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        was_full, self._unread = self._unread > _MAX_UNREAD, 0
        if was_full:
            self._read_on()
        return data

    def can_rest(self) -> bool:
        """Whether its answer was read to the end and the engine keeps it open."""
        over = self._complete and not (self._chunks or self._error or self._aborted)
        return over and self._stays_open

    def rest(self) -> None:
        """Forget the answer, and wait a moment for the next request."""
        self._timer.leave(self)
        self._call_later(_RESTS_S, self.abort)
        self._parser = None
        self._complete, self._pieces, self.status = False, 0, 0
        self._read_on()

    def rests(self) -> bool:
        """Whether it may be asked, as far as this side knows."""
        return not self._aborted

    def is_awaited(self) -> bool:
        """Whether only the engine can bring the answer forward."""
        return not (self._complete or self._chunks or self._error)

    def abort(self) -> None:
        """Close it at once, also while it is still being made."""
        self._aborted = True
        self._timer.leave(self)
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        # Break reference cycles so that refcounting frees the connection.
        self._watch = self._transport = self._parser = None

    def fail(self, error: httpx.TransportError) -> None:
        """End the request with an error, unless its answer is complete."""
        if self._error is None and not self._complete:
            self._error = error
        self._wake()
        self.abort()

    # Waiting

    async def _news(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # its traceback has this frame
        if self._aborted:
            raise httpx.ReadError("it is closed")
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
            self._last_data = now  # the reader is busy elsewhere
        left = self._last_data + self._silence_s - now
        if left <= 0:
            self.fail(httpx.ReadTimeout(f"nothing came for {self._silence_s:g} s"))
        else:
            self._call_later(left, self._look)

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` later, instead of what was to be called before."""
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_later(seconds, call)

    def _read_on(self) -> None:
        if self._transport is not None and not self._aborted:
            self._transport.resume_reading()

    def fileno(self) -> int:
        """The file descriptor of its socket; -1 until it is connected."""
        return self._fd

    def on_disconnect(self) -> None:
        """Read the last bytes."""
        if not self._unread:
            self.on_read_due()
        if not self._complete:
            self._read_on()

    def on_read_due(self) -> bool:
        """Read what has come since the last time. Returns False, to read the next piece when it
        comes, when that was little, or more than tokens can be."""
        if self._unread:
            return True  # the reader has not taken the last bytes yet
        try:
            data = os.read(self._fd, _MAX_AT_ONCE)
        except BlockingIOError:
            self._read_on()
            return False
        except OSError as failure:
            self.connection_lost(failure)
            return False
        if data:
            self._take(data)
        else:
            self.connection_lost(None)
        stays = len(self._chunks) > _LITTLE and len(data) < _MAX_AT_ONCE
        if not (stays or self._complete):
            self._read_on()
        return stays and not self._complete

    def _take(self, data: bytes) -> None:
        if self._parser is None:  # it rests, and no request asks for this
            self.abort()
            return
        self._last_data = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as failure:
            self.fail(httpx.RemoteProtocolError(f"it does not speak HTTP: {failure}"))
        else:
            if self._chunks or self._complete:
                self._wake()

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._fd = transport.get_extra_info("socket").fileno()
        if self._aborted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        is_quick = self._loop.time() - self._last_data < _QUICK_S and len(data) < _SMALL
        self._pieces += 1
        self._take(data)
        stays = not (self._complete or self._aborted or self._unread > _MAX_UNREAD)
        if is_quick and stays and self._pieces > _FIRST_PIECES:
            assert self._transport is not None
            self._transport.pause_reading()
            self._timer.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._complete:
            self.abort()
        else:
            self.fail(httpx.ReadError(f"it closed the connection{f': {exc}' if exc else ''}"))

    # httptools' calls

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        self._chunks.append(body)
        self._unread += len(body)
        if self._unread > _MAX_UNREAD and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        assert self._parser is not None
        # A second answer belongs to no request.
        self._stays_open = not self._complete and self._parser.should_keep_alive()
        self._complete = True
