"""One connection to an engine: a request is written, its answer parsed as it comes.

httptools parses in C, and whoever waits is woken once for all that has come: on the way of
every token nothing else happens here. Of an answer that comes in small pieces, quickly, the
socket collects some before they are read, which `Pulse` does for all of them in one go.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools
import httpx

from myllm.launcher.base import Connect
from myllm.supervisor.shared_reads import Pulse

# The calls of a turn follow each other faster. llama-server (cpp-httplib) waits for 5 s.
_RESTS_S = 0.5
# Beyond this much that nobody has taken yet, the engine is made to wait.
_MOST_UNREAD = 2**20
# The first pieces of an answer (headers, a role, the first tokens) are read as they come, however
# fast; and so are all where fewer than 100 come in a second.
_FIRST_PIECES, _QUICK_S = 4, 0.01
_LITTLE = 2  # pieces between two calls of the pulse
# Larger pieces are no tokens; what sends them is to be read as fast as it comes.
_SMALL = 4096
_MOST_AT_ONCE = 2**16


class Connection(asyncio.Protocol):
    """Errors are httpx's: ConnectError, ReadError when the engine closes it under a request,
    ReadTimeout when nothing comes for too long, RemoteProtocolError."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
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
        self.headers: list[tuple[bytes, bytes]] = []
        self._complete = self._stays_open = False
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._parser: httptools.HttpResponseParser | None = None

    # What its user does

    async def ask(self, connect: Connect, request: bytes, silence_s: float) -> None:
        """Send a request over `connect`; returns when the answer has begun: its headers
        are there, and the first of its body, which follows at once.

        One that rests is asked again without connecting. Raises ConnectError. From the sending on,
        a silence of over `silence_s` seconds while somebody waits is an error. One timer serves
        the whole answer: a timeout around each wait would cost more than the rest.
        """
        unsent = request
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

    async def _open(self, connect: Connect, request: bytes) -> bytes:
        """Connect and send what the socket takes of a request, before anything else is done: the
        engine begins meanwhile. Returns the rest."""
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
        return request[sent:]

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

    def can_rest(self) -> bool:
        """Whether it may be asked again: the answer was read to its end, and none is to come."""
        over = self._complete and not (self._chunks or self._error or self._aborted)
        return over and self._stays_open

    def rest(self) -> None:
        """Forget the answer, and wait a moment for the next request."""
        self._pulse.leave(self)
        self._call_later(_RESTS_S, self.abort)
        self._parser = None
        self._complete, self._pieces, self.status, self.headers = False, 0, 0, []
        self._read_on()

    def rests(self) -> bool:
        """Whether it may be asked, as far as anybody knows."""
        return not self._aborted

    def is_awaited(self) -> bool:
        """Whether only the engine can bring the answer forward."""
        return not (self._complete or self._chunks or self._error)

    def abort(self) -> None:
        """Close it at once, also while it is still being made."""
        self._aborted = True
        self._pulse.leave(self)
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        # They know this object, too: without these it is gone without any search for garbage.
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
            self._last_data = now  # whoever reads is busy elsewhere
        left = self._last_data + self._silence_s - now
        if left <= 0:
            self.fail(httpx.ReadTimeout(f"nothing came for {self._silence_s:g} s"))
        else:
            self._call_later(left, self._look)

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """One thing at a time is waited for: this takes the place of what was before."""
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_later(seconds, call)

    def _read_on(self) -> None:
        if self._transport is not None and not self._aborted:
            self._transport.resume_reading()

    def fileno(self) -> int:
        """Of its socket; -1 until it is connected."""
        return self._fd

    def on_hang_up(self) -> None:
        """Read the last of it."""
        if not self._unread:
            self.on_pulse()
        if not self._complete:
            self._read_on()

    def on_pulse(self) -> bool:
        """Read what has come since the last time. False when that was little, so that the next
        piece is read when it comes, or more than tokens can be."""
        if self._unread:
            return True  # whoever reads has not come round to the last of it
        try:
            data = os.read(self._fd, _MOST_AT_ONCE)
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
        stays = len(self._chunks) > _LITTLE and len(data) < _MOST_AT_ONCE
        if not (stays or self._complete):
            self._read_on()
        return stays and not self._complete

    def _take(self, data: bytes) -> None:
        if self._parser is None:  # it rests, and nobody has asked for this
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
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._fd = transport.get_extra_info("socket").fileno()
        if self._aborted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        is_quick = self._loop.time() - self._last_data < _QUICK_S and len(data) < _SMALL
        self._pieces += 1
        self._take(data)
        stays = not (self._complete or self._aborted or self._unread > _MOST_UNREAD)
        if is_quick and stays and self._pieces > _FIRST_PIECES:
            assert self._transport is not None
            self._transport.pause_reading()
            self._pulse.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(httpx.ReadError(f"it closed the connection{f': {exc}' if exc else ''}"))

    # httptools' calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        self._chunks.append(body)
        self._unread += len(body)
        if self._unread > _MOST_UNREAD and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        assert self._parser is not None
        # A second answer is one that nobody has asked for.
        self._stays_open = not self._complete and self._parser.should_keep_alive()
        self._complete = True
