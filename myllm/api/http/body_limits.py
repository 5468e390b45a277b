"""Limits the size of each request's body, and of all bodies in memory together."""

from __future__ import annotations

from collections import Counter

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from myllm.gateway.client import Client
from myllm.settings import Settings

_MIB = 2**20
# A refused body is still read up to this many times the limit, so that the client, which
# sends before it listens, sees the answer instead of a broken connection.
_DISCARD_FACTOR = 4
# All bodies together, by default: so many bytes, or so many bodies of the largest size if more.
_TOGETHER, _LARGEST = 512 * _MIB, 4
# A guess: how long the requests take whose bodies are in memory is not known.
_RETRY_AFTER_S = 5


class BodyLimits:
    """Limits bodies while they are read, whether or not they declare their size.

    A single body that is too large gets 413. A body counts until its request is answered, although
    its bytes are freed before: the objects made of it are as large. A client (key or address) with
    too much in memory gets 429; when all clients together have too much, any of them gets 503. The
    errors are FastAPI's HTTPExceptions, since it takes others for a body that cannot be parsed.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._most = int(settings.max_body_mb * _MIB)
        self._most_together = max(_TOGETHER, _LARGEST * self._most)
        if settings.max_bodies_mb is not None:
            self._most_together = int(settings.max_bodies_mb * _MIB)
        # One client gets half, but never less than one body of the largest size.
        half = self._most_together // 2
        self._most_of_one = max(half, min(self._most, self._most_together))
        self._held: Counter[str] = Counter()
        self.together = 0
        """Bytes of the bodies of all requests under way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client: Client = scope["state"]["client"]
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request" and (size := len(message.get("body", b""))):
                read += size
                self.together += size
                self._held[client.fair_id] += size
                if refused := self._refused(client, read):
                    await self._discard(message, receive, read)
                    raise refused
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            if read:
                self._forget(client, read)

    def _refused(self, client: Client, read: int) -> HTTPException | None:
        """Return the error when another piece is too much for a body of now `read` bytes."""
        if read > self._most:
            return HTTPException(413, f"The body is larger than {self._most / _MIB:g} MiB")
        later = {"Retry-After": str(_RETRY_AFTER_S)}
        if self._held[client.fair_id] > self._most_of_one:
            mib = f"{self._most_of_one / _MIB:g} MiB"
            detail = f"Your requests that are under way have bodies of more than {mib} together"
            return HTTPException(429, detail, later)
        if self.together > self._most_together:
            detail = "The requests that are under way leave no memory for this one's body"
            return HTTPException(503, detail, later)
        return None

    def _forget(self, client: Client, read: int) -> None:
        self.together -= read
        self._held[client.fair_id] -= read
        if not self._held[client.fair_id]:
            del self._held[client.fair_id]

    async def _discard(self, message: Message, receive: Receive, read: int) -> None:
        while message.get("more_body") and read < _DISCARD_FACTOR * self._most:
            message = await receive()
            read += len(message.get("body", b""))
