"""HTTP on a client's connection: uvicorn's protocol, with bounds on unauthenticated clients.

What is read:

    idle ──> head ──> body ──> idle ──> …        any of them ──> nothing (refused, and closing)

A head, a body and the pause between requests each have a time limit. One sweep over all connections
checks the limits, once a second: a timer for each request would cost more. An answer may take any
time, provided that its client keeps reading it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal, cast

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from myllm.api.http.coalescing_transport import CoalescingTransport
from myllm.api.http.connections import RETRY_AFTER_S, Connections, Group
from myllm.api.http.http_1_0 import answering_http_1_0
from myllm.api.http.refusals import Refused, head_too_large, refusal
from myllm.api.http.request_state import DEPARTURE, HOLD_HEAD, SPARE, Departure
from myllm.api.http.stalls import CLIENT_STALLS_S, StallWatch
from myllm.api.http.upgrade_offers import head_without_offer, new_parser
from myllm.disconnects import Disconnects

_log = structlog.get_logger(__name__)
MAX_HEAD = 2**16
"""Most bytes of a request line, of all headers together, and of chunk framing and trailers."""
MAX_HEADERS = 256
BODY_STEP = 2**16
"""So many bytes of a body must arrive within each body timeout."""
# Some clients send one byte per chunk, with five bytes of framing.
_FRAMING = 8
# Pipelined requests; few clients send even a second one before the first is answered.
_MAX_AHEAD = 32
# How long a refused client may go on sending before it must read the answer; also how long the rest
# of a body is read after an early answer.
_LINGER_S = 5.0

Reading = Literal["idle", "head", "body", "nothing"]


class ClientProtocol(HttpToolsProtocol):
    """The protocol of every connection; `server.py` gives it to uvicorn."""

    def __init__(
        self, connections: Connections, disconnects: Disconnects, **of_uvicorn: Any
    ) -> None:
        super().__init__(**of_uvicorn)
        self._crowd = connections
        self._disconnects = disconnects
        self._group: Group | None = None
        self._is_spare = False
        self._running: RequestResponseCycle | None = None
        self._reads: Reading = "head"
        self.since = 0.0
        self._received = self._body = self._due = 0
        self._stall = StallWatch()
        self._refused: Refused | None = None
        self._plain_head = b""  # of a request that offers another protocol, without the offer

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports are not subclasses of asyncio's.
        self._coalescing = CoalescingTransport(cast(asyncio.Transport, transport))
        super().connection_made(self._coalescing)
        self.since = self.loop.time()
        self._fd: int = transport.get_extra_info("socket").fileno()
        self._address = self.client[0] if self.client else "local"
        place, group = self._crowd.join(self, self._address, self._fd, self.since)
        self._is_spare = place == "spare"
        if place == "none":
            self._reads = "nothing"
            full = Refused(503, "Too many connections; please try again later")
            self._coalescing.write(refusal(full, retry_after_s=RETRY_AFTER_S))
            self._coalescing.close()
        else:
            self._group = group

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnects.forget(self._fd)
        if self._group is not None:
            self._crowd.leave(self, self._address, self._fd, self._group)
            self._group = None
        # uvicorn notifies only the last request, which may be queued behind others.
        self.pipeline.clear()
        self._tell_gone()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._reads == "nothing":
            self._coalescing.abort()
        else:
            super().shutdown()

    def make_room(self) -> None:
        self._coalescing.abort()

    def is_sending(self) -> bool:
        return self._coalescing.get_write_buffer_size() > 0

    def _answers(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _tell_gone(self) -> None:
        """Notify the request that is being answered that its client has left."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
            self._running.scope["state"][DEPARTURE].happened()

    # What comes

    def data_received(self, data: bytes) -> None:
        if self._reads == "nothing":
            return
        self._received += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(self._refused or Refused(400, "The request is not valid HTTP"))
            return
        if self._reads == "body":
            self._look_at_body()
        elif self._reads == "head" and self._received > MAX_HEAD:
            self._refuse(head_too_large(MAX_HEAD))

    def _parse(self, data: bytes) -> None:
        """Feed the parser; where it stops at an upgrade, feed the request again without that."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data = data[stop.args[0] :]
                if self._plain_head:
                    # After the last request of a connection, the old parser reads nothing more.
                    self.parser = new_parser(self)
                    data, self._plain_head = self._plain_head + data, b""
            else:
                return

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MAX_AHEAD:
            self._stop(Refused(400, f"More than {_MAX_AHEAD} requests at once"))
        super().on_message_begin()
        self._reads, self.since = "head", self.loop.time()
        self._body, self._due = 0, BODY_STEP
        state = self.scope["state"]
        state[HOLD_HEAD] = self._coalescing.hold
        state[DEPARTURE] = Departure()
        if self._is_spare:
            state[SPARE] = True

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_HEAD:
            self._stop(Refused(414, f"The request line is longer than {MAX_HEAD // 2**10} KiB"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reads != "head":
            return  # a trailer, which must not become a header of the request
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers = self.headers
        if len(headers) == MAX_HEADERS:
            self._stop(Refused(431, f"The request has more than {MAX_HEADERS} headers"))
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._received > MAX_HEAD:  # part of it may be body
            size = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
            if size > MAX_HEAD:
                self._stop(head_too_large(MAX_HEAD))
        if self.parser.should_upgrade():
            self._plain_head = head_without_offer(self.parser, self.url, self.headers)
            if self._plain_head:
                return
        super().on_headers_complete()
        if self._is_spare:
            self.cycle.keep_alive = False
        self._reads, self.since = "body", self.loop.time()
        if self._group is not None:
            self._group.silent.pop(self, None)
            self._group.idle.pop(self, None)
        if self.flow.read_paused:  # the request is queued behind another one
            self._disconnects.watch(self._fd, self._coalescing.abort)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._plain_head:
            return
        super().on_message_complete()
        self._received = 0
        self._reads = "idle"
        if self._running is self.cycle:
            self.flow.resume_reading()  # or the event loop would not see that the client leaves
        if not self._answers():
            self._rest()

    def _look_at_body(self) -> None:
        if self._body >= self._due:
            self._due, self.since = self._body + BODY_STEP, self.loop.time()
        if self._received - self._body > 2 * MAX_HEAD + _FRAMING * self._body:
            self._refuse(Refused(431, "The trailers or chunk extensions of the body are too large"))

    # What is answered

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        if cycle.scope["http_version"] == "1.0":
            app = answering_http_1_0(app, cycle)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._disconnects.forget(self._fd)
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._reads == "idle":
            self._rest()
        else:
            self.since = self.loop.time()

    def _rest(self) -> None:
        self.since = self.loop.time()
        if self._group is not None:
            self._group.idle[self] = None

    # What takes too long, or is too much

    def look(self, now: float) -> None:
        """Close the connection if its client is too slow; called about once a second."""
        # While the write buffer gets more, its size does not show whether the client reads.
        is_growing = self._answers() and not self.flow.write_paused
        if self._stall.has_stalled(self._coalescing.get_write_buffer_size(), is_growing, now):
            _log.warning("client stopped reading", seconds=CLIENT_STALLS_S)
            self._coalescing.abort()
            return
        waited = now - self.since
        match self._reads:
            case "nothing":
                if waited > _LINGER_S:
                    self._coalescing.abort()
            case "head":
                if waited > self._crowd.head_s:
                    self._head_overdue()
            case "body":
                self._look_at_waiting_body(now, waited)
            case "idle":
                if waited > self._crowd.idle_s and not (self._answers() or self.is_sending()):
                    self._coalescing.close()

    def _look_at_waiting_body(self, now: float, waited: float) -> None:
        if self.flow.read_paused:
            self.since = now  # the server is not reading, so the client is not late
        elif self._running is not None and self._running is self.cycle and not self._answers():
            if waited > _LINGER_S:  # the answer was sent before the whole body came
                self._coalescing.abort()
        elif waited > self._crowd.body_s:
            step = f"{BODY_STEP // 2**10} KiB of the body in {self._crowd.body_s:g} s"
            self._refuse(Refused(408, f"The client sent less than {step}"))

    def _head_overdue(self) -> None:
        if self._received:
            self._refuse(Refused(408, f"No whole request came within {self._crowd.head_s:g} s"))
        else:
            self._coalescing.close()

    def _stop(self, refused: Refused) -> None:
        """Stop the parser from within a callback; it reports only that it was stopped."""
        self._refused = refused
        raise refused

    def _refuse(self, refused: Refused) -> None:
        """Answer with `refused` if it is the request's turn, and close; discard further input."""
        _log.warning("request refused", status=refused.status, cause=refused.detail)
        self._reads, self.since = "nothing", self.loop.time()
        running = self._running if self._answers() else None
        is_behind = running is not None and (running is not self.cycle or not running.more_body)
        if is_behind or (running is not None and running.response_started):
            self._coalescing.abort()
            return
        self._tell_gone()
        path = self.url.partition(b"?")[0].decode("latin-1") if self.scope else ""
        self._coalescing.write(refusal(refused, path))
        self._coalescing.write_eof()
