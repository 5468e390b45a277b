"""The bounds on requests' bodies: on each, and on those in memory at once."""

from __future__ import annotations

from collections import Counter

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from myllm.gateway.scheduling.tickets import Client
from myllm.settings import Settings

_MIB = 2**20
# A refused body is still read up to this many times the limit, so that the client, which
# sends before it listens, sees the answer instead of a broken connection.
_DISCARD_FACTOR = 4
# What bodies may take together by default: this many bytes, or largest bodies if that is more.
_TOGETHER, _LARGEST = 512 * _MIB, 4
# There is no telling how long the requests take whose bodies are in memory.
_RETRY_AFTER_S = 5


class BodyLimits:
    """Bounds bodies while they are read, whether or not they say their size.

    A single one is refused with 413. What a request has sent counts until it is answered, for
    longer than its bytes are there: what was made of them is as large. A client (key or address)
    that has too much in memory gets 429, and everybody 503 when all together have. These errors
    are FastAPI's, which takes all others for a body that cannot be parsed.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._most = int(settings.max_body_mb * _MIB)
        self._most_together = max(_TOGETHER, _LARGEST * self._most)
        if settings.max_bodies_mb is not None:
            self._most_together = int(settings.max_bodies_mb * _MIB)
        # Half, but never less than the one body that it may send.
        half = self._most_together // 2
        self._most_of_one = max(half, min(self._most, self._most_together))
        self._held: Counter[str] = Counter()
        self._together = 0

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
                self._together += size
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
        """What is wrong with one more piece of a body, of which `read` bytes have come."""
        if read > self._most:
            return HTTPException(413, f"The body is larger than {self._most / _MIB:g} MiB")
        later = {"Retry-After": str(_RETRY_AFTER_S)}
        if self._held[client.fair_id] > self._most_of_one:
            mib = f"{self._most_of_one / _MIB:g} MiB"
            detail = f"Your requests that are under way have bodies of more than {mib} together"
            return HTTPException(429, detail, later)
        if self._together > self._most_together:
            detail = "The requests that are under way leave no memory for this one's body"
            return HTTPException(503, detail, later)
        return None

    def _forget(self, client: Client, read: int) -> None:
        self._together -= read
        self._held[client.fair_id] -= read
        if not self._held[client.fair_id]:
            del self._held[client.fair_id]

    async def _discard(self, message: Message, receive: Receive, read: int) -> None:
        while message.get("more_body") and read < _DISCARD_FACTOR * self._most:
            message = await receive()
            read += len(message.get("body", b""))
