"""Captures the bodies of requests and answers, if MYLLM_CAPTURE_BODIES is set."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from myllm.gateway.observers.captured_bodies import CapturedBodies
from myllm.gateway.request_record import current


class BodyCapture:
    """Adds what passes to `bodies`, and changes nothing."""

    def __init__(self, app: ASGIApp, bodies: CapturedBodies) -> None:
        self._app = app
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (record := current()) is None:
            await self._app(scope, receive, send)
            return
        bodies, state = self._bodies, scope["state"]
        send_body: Send = state["send_body"]
        bodies.begin(record)

        async def receiving() -> Message:
            message = await receive()
            bodies.add(record, "request", message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            bodies.add(record, "response", message.get("body", b""))
            await send(message)

        async def sending_body(message: Message) -> None:
            bodies.add(record, "response", message.get("body", b""))
            await send_body(message)

        state["send_body"] = sending_body
        await self._app(scope, receiving, sending)
