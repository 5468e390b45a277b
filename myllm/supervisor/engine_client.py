"""HTTP requests to one engine.

Measured on two cores, `httpx.AsyncClient` adds 300 µs to a request and 2 µs to a token, for
redirects, cookies and decoding that no engine needs; its request and response objects alone add
30 µs. So requests are written here, and only the errors are httpx's.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass
from functools import cache

import httpx

from myllm.launcher.base import Connect
from myllm.supervisor.engine_connection import Connection
from myllm.supervisor.engine_transport import EngineTransport
from myllm.threads import in_thread_if

_JSON = "Content-Type: application/json\r\n"
_CLOSE = "Connection: close\r\n"
_AT_ONCE = 2**20


@dataclass(frozen=True)
class EngineAnswer:
    """A whole answer."""

    status: int
    body: bytes


class EngineStream:
    """An answer in transfer; the caller closes it, which makes the engine stop working on it."""

    def __init__(self, transport: EngineTransport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self.status = connection.status
        self.read = connection.read

    async def rest(self) -> bytes:
        """Return all that has not been read yet; waits for it."""
        parts, size = [], 0
        while part := await self.read():
            parts.append(part)
            size += len(part)
        # In a thread this goes on without Python's lock.
        return await in_thread_if(size > _AT_ONCE, b"".join, parts)

    def close(self) -> None:
        """Close its connection, unless it has been read to the end and may rest."""
        self._transport.done(self._connection)


class EngineClient:
    """Requests to the engine that `connect` reaches; each raises httpx.TransportError."""

    def __init__(self, connect: Connect) -> None:
        self._transport = EngineTransport(connect)
        self.is_busy = self._transport.is_busy
        self.close = self._transport.close

    @property
    def open_requests(self) -> int:
        """How many requests are under way."""
        return self._transport.open_requests

    @property
    def requests(self) -> int:
        """How many requests have been sent so far."""
        return self._transport.requests

    async def get(self, path: str, timeout_s: float) -> EngineAnswer:
        """GET `path`; raises ReadTimeout when the answer is not whole by then."""
        return await self._whole(_request("GET", path, _CLOSE, b""), timeout_s)

    async def post(self, path: str, body: bytes, timeout_s: float) -> EngineAnswer:
        """POST JSON to `path`; raises ReadTimeout when the answer is not whole by then."""
        return await self._whole(_request("POST", path, _JSON, body), timeout_s)

    async def stream(self, path: str, body: bytes, silence_s: float) -> EngineStream:
        """POST JSON to `path`; returns when the answer has begun, to be read as it comes.

        Sending and reading raise ReadTimeout when nothing comes for `silence_s` seconds.
        """
        request = _request("POST", path, _JSON + _CLOSE, body)
        return await self._send(request, silence_s)

    async def _whole(self, request: bytes, timeout_s: float) -> EngineAnswer:
        try:
            async with asyncio.timeout(timeout_s):
                with closing(await self._send(request, timeout_s)) as answer:
                    return EngineAnswer(answer.status, await answer.rest())
        except TimeoutError:
            raise httpx.ReadTimeout(f"no answer within {timeout_s:g} s") from None

    async def _send(self, request: bytes, silence_s: float) -> EngineStream:
        return EngineStream(self._transport, await self._transport.ask(request, silence_s))


def _request(method: str, path: str, headers: str, body: bytes) -> bytes:
    return b"%b%d\r\n\r\n%b" % (_head(method, path, headers), len(body), body)


@cache
def _head(method: str, path: str, headers: str) -> bytes:
    """The head up to the length of the body; an engine has few paths."""
    return f"{method} {path} HTTP/1.1\r\nHost: engine\r\n{headers}Content-Length: ".encode()
