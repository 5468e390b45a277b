"""Answers that take time: server-sent events, or one JSON document at the end.

Both watch the client. When it leaves, in any phase, the work is cancelled, and its cleanup
(upstream closed, slot released) has run before the response returns.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Self

import structlog
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from myllm.api.http.request_state import DEPARTURE, HEAD_ONLY, Departure
from myllm.api.http.stalls import CLIENT_STALLS_S
from myllm.errors import EngineError, MyLLMError
from myllm.gateway.generation.answers import Answer
from myllm.gateway.generation.events import CallPart, Finished, Thinking, Token
from myllm.json_output import dumped
from myllm.loops import in_background

_log = structlog.get_logger(__name__)
# Headers wait so long for a first event, so that an error until then still sets the status.
FIRST_COMMENT_S = 4.0
COMMENT_EVERY_S = 4.5
_EARLIEST = 0.75
STREAM_HEADERS = {
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
        headers: Mapping[str, str] = STREAM_HEADERS,
    ) -> None:
        self.frames = frames
        self.error = error
        self.phase = phase
        self.status_code = 200
        self.background: BackgroundTask | None = None
        self.init_headers(headers)
        self.late_headers: LateHeaders = no_headers
        self._begun = False
        # Comments come a little earlier, by chance: streams that began together would otherwise
        # all send theirs in the same round of the event loop.
        self._part = random.uniform(_EARLIEST, 1)
        self._last_sent = time.monotonic()
        self._is_sending = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # No layer between here and the socket looks at the body, so it goes there directly.
        self._send_body: Send = scope["state"].get("send_body", send)
        self._is_head_only = HEAD_ONLY in scope["state"]
        with _UntilGone(scope) as until_gone:
            self._stop_if_stalled(until_gone)
            await self._run(send)

    def _stop_if_stalled(self, until_gone: _UntilGone) -> None:
        """Cancel the stream if its client has stopped reading; called again and again.

        One timer for the whole stream: a timeout around each write would cost more.
        """
        if self._is_sending and time.monotonic() - self._last_sent > CLIENT_STALLS_S:
            _log.warning("client stopped reading", seconds=CLIENT_STALLS_S)
            until_gone.cancel()
            return
        later = asyncio.get_running_loop().call_later
        self._stall_timer = later(CLIENT_STALLS_S / 10, self._stop_if_stalled, until_gone)

    async def _run(self, send: Send) -> None:
        if self.phase is not None:
            self._look_later(send, self.phase, FIRST_COMMENT_S * self._part)
        try:
            async with aclosing(self.frames()) as frames:
                async for frame in frames:
                    await self._send(send, frame)
                    if self._is_head_only:
                        break
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
            for each in (self._stall_timer, self._timer, self._comment):
                if each is not None:
                    each.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _look_later(self, send: Send, phase: Callable[[], str], seconds: float) -> None:
        later = asyncio.get_running_loop().call_later
        self._timer = later(seconds, self._look, send, phase)

    def _look(self, send: Send, phase: Callable[[], str]) -> None:
        """Send a comment if the stream has been silent, so that people and proxies keep it open."""
        bound = self._part * (COMMENT_EVERY_S if self._begun else FIRST_COMMENT_S)
        left = bound - (time.monotonic() - self._last_sent)
        if left <= 0:
            self._look_later(send, phase, bound)
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
        with _UntilGone(scope):
            answer = await self.make()
            if late := self.late_headers():
                answer.headers.update(late)
            await answer(scope, receive, send)


class DeferredJson(DeferredResponse):
    """A DeferredResponse of one JSON document."""

    def __init__(self, make: Callable[[], Awaitable[Any]]) -> None:
        async def document() -> Response:
            return Response(await dumped(await make()), media_type="application/json")

        super().__init__(document)


async def to_the_end(
    answer: Answer, note: Callable[[Token | Thinking | CallPart], None] | None = None
) -> Finished:
    """Run an answer to its end and return its last event; `note` gets the others."""
    async with aclosing(answer.events()) as events:
        async for event in events:
            if isinstance(event, Finished):
                return event
            if note is not None:
                note(event)
    raise EngineError("The engine ended the answer without finishing it")


class _UntilGone:
    """The context in which an answer is made: cancelled when its client leaves."""

    def __init__(self, scope: Scope) -> None:
        self._departure: Departure = scope["state"][DEPARTURE]
        self._has_left = False

    def cancel(self) -> None:
        """Cancel the work in this context, which ends the context without an error.

        Further calls do nothing: a stalled client leaves, too, and must not interrupt the cleanup.
        """
        if self._has_left:
            return
        self._has_left = True
        self._working.cancel()

    def __enter__(self) -> Self:
        working = asyncio.current_task()
        assert working is not None
        self._working = working
        self._departure.calls(self.cancel)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self._departure.calls(None)
        if not (self._has_left and isinstance(error, asyncio.CancelledError)):
            return False
        return not self._working.uncancel()  # otherwise the cancellation came from elsewhere, too
