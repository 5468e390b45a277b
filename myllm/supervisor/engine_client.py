"""HTTP requests to one engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

import httpx

from myllm.launcher.base import Connect
from myllm.supervisor.engine_transport import EngineTransport

_GET = httpx.Headers({"Host": "engine", "Connection": "close"})
_POST = httpx.Headers({"Host": "engine", "Content-Type": "application/json"})
_STREAM = httpx.Headers({**_POST, "Connection": "close"})


@cache
def _url(path: str) -> httpx.URL:
    """Parsed once; an engine has few paths."""
    return httpx.URL(f"http://engine{path}")


@dataclass(frozen=True)
class EngineAnswer:
    """A whole answer."""

    status: int
    body: bytes


@dataclass(frozen=True)
class EngineStream:
    """An answer in transfer."""

    status: int
    chunks: AsyncIterator[bytes]


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
        return await self._whole("GET", path, _GET, b"", timeout_s)

    async def post(self, path: str, body: bytes, timeout_s: float) -> EngineAnswer:
        """POST JSON to `path`; raises ReadTimeout when the answer is not whole by then."""
        return await self._whole("POST", path, _POST, body, timeout_s)

    @asynccontextmanager
    async def stream(
        self, path: str, body: bytes, silence_s: float
    ) -> AsyncGenerator[EngineStream, None]:
        """POST JSON and read the answer as it comes; raises ReadTimeout when nothing comes for
        `silence_s` seconds. When the context is left, the engine stops working on it."""
        response = await self._send("POST", path, _STREAM, body, silence_s)
        try:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            yield EngineStream(response.status_code, aiter(response.stream))
        finally:
            await response.aclose()

    async def _whole(
        self, method: str, path: str, headers: httpx.Headers, body: bytes, timeout_s: float
    ) -> EngineAnswer:
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(method, path, headers, body, timeout_s)
                try:
                    assert isinstance(response.stream, httpx.AsyncByteStream)
                    parts = [part async for part in response.stream]
                    return EngineAnswer(response.status_code, b"".join(parts))
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx.ReadTimeout(f"no answer within {timeout_s:g} s") from None

    async def _send(
        self, method: str, path: str, headers: httpx.Headers, body: bytes, silence_s: float
    ) -> httpx.Response:
        request = httpx.Request(
            method,
            _url(path),
            headers=headers,
            # Given as a stream, because httpx would check every header of other content twice.
            stream=httpx.ByteStream(body),
            extensions={"timeout": {"read": silence_s}},
        )
        return await self._transport.handle_async_request(request)
