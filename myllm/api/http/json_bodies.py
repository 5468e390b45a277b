"""Reads JSON bodies: parses them within bounds, then validates them by their schema.

Large bodies are read in a thread, so that other requests do not wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.responses import Response

from myllm.json_input import is_json_type, parse_json

T = TypeVar("T")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
# Reading so many bytes takes some milliseconds at worst.
_AT_ONCE = 64 * 1024


_DECLARED: Final = (b"content-type", b"application/json")


async def read_json(body: bytes, check: Callable[[Any], T]) -> T:
    """Parse `body` and return what `check` makes of it.

    Raises InvalidRequest, and what `check` raises.
    """
    if len(body) <= _AT_ONCE:
        return check(parse_json(body))
    return await asyncio.to_thread(lambda: check(parse_json(body)))


class CheckedRoute(APIRoute):
    """A FastAPI route whose JSON body is read here; FastAPI gets the validated object."""

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()
        field = self.body_field
        if field is None or isinstance(field.field_info, Form):
            return handler

        def check(parsed: Any) -> Any:
            made, errors = field.validate(parsed, {}, loc=("body",))
            if errors:
                raise RequestValidationError(errors)
            return made

        async def handle(request: Request) -> Response:
            body = await request.body()
            if body and is_json_type(request.headers.get("content-type", "")):
                made = await read_json(body, check)
                request = _Read(request, body, made)
            return await handler(request)

        return handle


class _Read(Request):
    """A request whose body has been read and validated."""

    def __init__(self, request: Request, body: bytes, made: Any) -> None:
        kept = [pair for pair in request.scope["headers"] if pair[0] != _DECLARED[0]]
        # FastAPI asks for `json` only when it knows the type.
        super().__init__({**request.scope, "headers": [*kept, _DECLARED]}, request.receive)
        self._read, self._made = body, made

    async def body(self) -> bytes:
        return self._read

    async def json(self) -> Any:
        return self._made
