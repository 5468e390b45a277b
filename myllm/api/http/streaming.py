"""Answers that take time: server-sent events, or one JSON document at the end.

Both watch the client. When it leaves, in any phase, the work is cancelled, and its cleanup
(upstream closed, slot released) has run before the response returns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
import structlog
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from myllm.api.http.stalls import CLIENT_STALLS_S
from myllm.errors import EngineError, MyLLMError
from myllm.gateway.generation.answers import Answer
from myllm.gateway.generation.events import Finished
from myllm.loops import in_background

_log = structlog.get_logger(__name__)
# Headers wait so long for a first event, so that an error until then still sets the status.
FIRST_COMMENT_S = 4.0
COMMENT_EVERY_S = 4.5
_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "Content-Type": "text/event-stream; charset=utf-8",
}


def described(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Describe, for the OpenAPI document, that an answer may also be a stream of this type."""
    return {200: {"content": {media_type: {}}}}


LateHeaders = Callable[[], Mapping[str, str]]
"""Returns further headers, just before the head is sent."""


def no_headers() -> Mapping[str, str]:
    """Add no header."""
    return {}


Frames = Callable[[], AsyncGenerator[bytes, None]]
"""Makes what a stream sends, in whole events or lines; raises MyLLMErrors."""


class Stream(Response):
    """An answer that is sent while it is made.

    `error` turns an error after the headers into a frame. `phase` says what the stream waits for,
    in SSE comments that keep it open; formats without comments have none.
    """

    def __init__(
        self,
        frames: Frames,
        error: Callable[[MyLLMError], bytes],
        phase: Callable[[], str] | None = None,
        headers: Mapping[str, str] = _HEADERS,
    ) -> None:
        self.frames = frames
        self.error = error
        self.phase = phase
        self.status_code = 200
        self.background: BackgroundTask | None = None
        self.init_headers(headers)
        self.late_headers: LateHeaders = no_headers
        self._begun = False
        self._last_sent = time.monotonic()
        self._is_sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # No layer between here and the socket looks at the body, so it goes there directly.
        self._send_body: Send = scope["state"].get("send_body", send)
        await _work_until(lambda: self._gone(receive), self._run(send))

    async def _gone(self, receive: Receive) -> None:
        """Return when the client has left, or has stopped reading.

        One timer for the whole stream: a timeout around each write would cost more.
        """
        while True:
            try:
                async with asyncio.timeout(CLIENT_STALLS_S / 10):
                    await _disconnected(receive)
                return
            except TimeoutError:
                if self._is_sending and time.monotonic() - self._last_sent > CLIENT_STALLS_S:
                    _log.warning("client stopped reading", seconds=CLIENT_STALLS_S)
                    return

    async def _run(self, send: Send) -> None:
        if self.phase is not None:
            self._look_later(send, self.phase, FIRST_COMMENT_S)
        try:
            async with aclosing(self.frames()) as frames:
                async for frame in frames:
                    await self._send(send, frame)
        except MyLLMError as error:
            if not self._begun:
                raise
            await self._send_error(send, error)
        except Exception:
            if not self._begun:
                raise
            _log.exception("unexpected error in a stream")
            await self._send_error(send, EngineError("Internal error; see the server's log"))
        finally:
            for comments in (self._timer, self._comment):
                if comments is not None:
                    comments.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _look_later(self, send: Send, phase: Callable[[], str], seconds: float) -> None:
        later = asyncio.get_running_loop().call_later
        self._timer = later(seconds, self._look, send, phase)

    def _look(self, send: Send, phase: Callable[[], str]) -> None:
        """Send a comment if the stream has been silent, so that people and proxies keep it open."""
        bound = COMMENT_EVERY_S if self._begun else FIRST_COMMENT_S
        left = bound - (time.monotonic() - self._last_sent)
        if left <= 0:
            self._look_later(send, phase, COMMENT_EVERY_S)
            if not self._is_sending:
                comment = f": {phase()}\n\n".encode()
                self._comment = in_background("keeping a stream open", self._send(send, comment))
        else:
            self._look_later(send, phase, left)

    async def _send_error(self, send: Send, error: MyLLMError) -> None:
        _log.warning("stream failed", error=error.detail)
        await self._send(send, self.error(error))

    async def _send(self, send: Send, body: bytes) -> None:
        self._last_sent, self._is_sending = time.monotonic(), True
        if not self._begun:
            self._begun = True
            self.headers.update(self.late_headers())
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
        await self._send_body({"type": "http.response.body", "body": body, "more_body": True})
        self._is_sending = False


class DeferredResponse(Response):
    """A whole answer that takes time to make; cancelled when the client leaves."""

    def __init__(self, make: Callable[[], Awaitable[Response]]) -> None:
        self.make = make
        self.background: BackgroundTask | None = None
        self.late_headers: LateHeaders = no_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def run() -> None:
            answer = await self.make()
            answer.headers.update(self.late_headers())
            await answer(scope, receive, send)

        await _work_until(lambda: _disconnected(receive), run())


class DeferredJson(DeferredResponse):
    """A DeferredResponse of one JSON document."""

    def __init__(self, make: Callable[[], Awaitable[Any]]) -> None:
        async def document() -> Response:
            return Response(orjson.dumps(await make()), media_type="application/json")

        super().__init__(document)


async def to_the_end(answer: Answer) -> Finished:
    """Run an answer to its end and return its last event."""
    async with aclosing(answer.events()) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event
    raise EngineError("The engine ended the answer without finishing it")


async def _work_until(gone: Callable[[], Awaitable[None]], work: Awaitable[None]) -> None:
    """Run `work`; cancel it when the client is `gone`. Returns when its cleanup has run."""
    working, has_left = asyncio.current_task(), False
    assert working is not None

    async def watch() -> None:
        nonlocal has_left
        await gone()
        has_left = True
        working.cancel()

    watching = asyncio.create_task(watch(), name="watch a client")
    try:
        await work
    except asyncio.CancelledError:
        if not has_left or working.uncancel():
            raise  # the cancellation came from elsewhere
    finally:
        watching.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
