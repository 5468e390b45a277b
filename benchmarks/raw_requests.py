"""Many clients in one thread: requests on plain sockets, at the lowest possible cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson


@dataclass(frozen=True)
class Reply:
    """A whole answer; `began` and `ended` are monotonic times."""

    status: int
    headers: dict[str, str]
    body: bytes
    began: float
    ended: float

    def last_event(self) -> dict[str, Any]:
        """The terminal event of a stream."""
        lines = [line for line in self.body.splitlines() if line.startswith(b"data: ")]
        event: dict[str, Any] = orjson.loads(lines[-1][6:])
        return event


class Request:
    """One POST on a connection of its own."""

    def __init__(self, url: str, path: str, body: dict[str, Any]) -> None:
        self._address = httpx.URL(url)
        content = orjson.dumps(body)
        self._request = (
            f"POST {path} HTTP/1.0\r\nHost: {self._address.host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        self.began = 0.0

    async def send(self) -> None:
        """Connect and send; a busy server may take a while to accept."""
        self.began = time.monotonic()
        self._reader, self._writer = await asyncio.open_connection(
            self._address.host, self._address.port
        )
        self._writer.write(self._request)

    async def answer(self) -> Reply:
        """Read the whole answer; in HTTP/1.0 it ends with the connection."""
        raw = await self._reader.read(-1)
        ended = time.monotonic()
        self.leave()
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Reply(int(first.split()[1]), headers, body, self.began, ended)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of the answer as they arrive, including the head."""
        while part := await self._reader.read(65536):
            yield part

    def leave(self) -> None:
        """Close the connection."""
        self._writer.transport.abort()


async def ask(url: str, path: str, body: dict[str, Any]) -> Reply:
    """Send a request and read its answer."""
    request = Request(url, path, body)
    await request.send()
    return await request.answer()
