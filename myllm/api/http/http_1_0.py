"""Answers to clients of HTTP/1.0, such as old proxies and benchmark programs."""

from __future__ import annotations

from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def answering_http_1_0(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """Return `app` without what HTTP/1.0 lacks: chunks and `100 Continue`.

    uvicorn closes the connection after each answer of HTTP/1.0, so that is how a stream ends.
    """
    cycle.waiting_for_100_continue = False

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        has_length = True

        async def unchunked(message: Any) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name == b"content-length" for name, _ in message["headers"])
                if not has_length:
                    cycle.chunked_encoding = False
            elif not has_length:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, unchunked)

    return answer
