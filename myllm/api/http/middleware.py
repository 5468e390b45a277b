"""Layers around every request: its path and method, its id and record, its turn."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import unquote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from myllm.api.dialects import dialect_of
from myllm.api.errors.handlers import error_response
from myllm.api.http.access import may_name_traces, peer_of
from myllm.api.http.connections import RETRY_AFTER_S
from myllm.api.http.request_state import BEGUN, HEAD_ONLY, HEALTH_PATHS, HOLD_HEAD, SPARE
from myllm.errors import Unavailable
from myllm.garbage import drop_frames
from myllm.gateway.request_record import RequestRecord, begin
from myllm.sessions.keys import without_keys

_log = structlog.get_logger(__name__)
_SLASHES: Final = re.compile(rb"//+")
_SANE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class RequestContext:
    """Gives each request an id, in the log and in the answer, and a record, which `ended` gets."""

    def __init__(self, app: ASGIApp, ended: Callable[[RequestRecord], None]) -> None:
        self._app = app
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id, path = _request_id(headers.get("x-request-id")), scope["path"]
        dialect = dialect_of(path).name
        shown = without_keys(path)  # the log shows it
        record = RequestRecord(request_id, scope["method"], shown, dialect, peer_of(scope))
        record.traceparent = headers.get("traceparent")
        begin(record)
        state = scope.setdefault("state", {})
        state["send_body"] = send
        hold_head = state.pop(HOLD_HEAD, None)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status, state[BEGUN] = message["status"], True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if dialect == "anthropic":
                    headers["request-id"] = request_id  # which Anthropic's clients read
                # After the head of an answer to HEAD nothing follows that would release it.
                if hold_head is not None and scope["method"] != "HEAD":
                    hold_head()
            await send(message)

        # Each request has its own task and so its own context, which ends with it.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as failure:  # noqa: BLE001 - this is the outermost layer
            # The answer 500 has been sent; the traceback belongs in the log alone.
            record.error = record.error or failure
            _log.exception("unexpected error", path=shown)
        finally:
            del state["send_body"]  # breaks the reference cycle with the scope
            if record.traceparent is not None and not may_name_traces(scope, record.client):
                record.traceparent = None
            record.ended_at = time.monotonic()
            self._ended(record)
            if record.error is not None:
                drop_frames(record.error)


def _request_id(given: str | None) -> str:
    return given if given and _SANE_ID.fullmatch(given) else os.urandom(16).hex()


class HeadAsGet:
    """Answers HEAD wherever GET is answered; uvicorn leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
            scope["state"][HEAD_ONLY] = True
        await self._app(scope, receive, send)


class PlainPaths:
    """Takes out of each path what makes no difference: slashes at its end, and all but one of
    several in a row. An encoded slash (`%2F`) is part of a name and stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # No coroutine of its own, since every request would wait for one more.
        if scope["type"] == "http":
            raw: bytes = scope["raw_path"]
            if raw.endswith(b"/") or b"//" in raw:
                raw = _SLASHES.sub(b"/", raw).rstrip(b"/") or b"/"
                scope = {**scope, "raw_path": raw, "path": unquote(raw.decode("ascii"))}
        return self._app(scope, receive, send)


class StripPrefix:
    """Strips `prefix` from each path that has it, where what remains begins with `before`.

    Some proxies have stripped the path that a server is published at already.
    """

    def __init__(self, app: ASGIApp, prefix: str, before: str = "/") -> None:
        self._app = app
        self._prefix = prefix
        self._wanted = prefix + before
        self._whole = prefix if before == "/" else None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(self._wanted) or path == self._whole:
                shorter = path.removeprefix(self._prefix) or "/"
                raw = scope["raw_path"].removeprefix(self._prefix.encode()) or b"/"
                scope = {**scope, "path": shorter, "raw_path": raw}
        return self._app(scope, receive, send)


class Turnstile:
    """Lets in a few requests per round of the event loop, so that a burst does not delay running
    answers, nor `/health`, which never waits. On a connection with a spare place, only requests
    for the server's health are let in."""

    PER_TURN = 4

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._let_in = 0
        self._turning = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in HEALTH_PATHS:
            if SPARE in scope.get("state", ()):
                full = Unavailable("Too many connections; please try again later", RETRY_AFTER_S)
                await error_response(full, scope["path"])(scope, receive, send)
                return
            await self._wait_for_turn()
        await self._app(scope, receive, send)

    async def _wait_for_turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn)
        if self._let_in < self.PER_TURN:
            self._let_in += 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _turn(self) -> None:
        """Runs once per round of the event loop while requests arrive."""
        self._let_in = 0
        while self._waiting and self._let_in < self.PER_TURN:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._let_in += 1
        self._turning = self._let_in > 0
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
