"""Reads JSON bodies: parses them within bounds, then validates them by their schema.

Large bodies are read in a thread, so that other requests do not wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.responses import Response

from myllm.garbage import drop_frames, free_in_steps
from myllm.json_input import is_json_type, parse_json
from myllm.threads import in_thread_if

T = TypeVar("T")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
# Reading so many bytes takes some milliseconds at worst.
_AT_ONCE = 64 * 1024
_DECLARED: Final = (b"content-type", b"application/json")


async def read_json(body: bytes, check: Callable[[Any], T]) -> T:
    """Parse `body` and return what `check` makes of it.

    Raises InvalidRequest, and what `check` raises, as `checked` does.
    """

    def work() -> T:
        parsed = parse_json(body)
        try:
            return check(parsed)
        except Exception:
            free_in_steps(parsed)
            raise

    return await checked(len(body) > _AT_ONCE, work)


async def checked(is_long: bool, work: Callable[[], T]) -> T:
    """Return what `work` makes of a request's body; in a thread, if that takes long.

    Raises RequestValidationError for pydantic's ValidationError, and other errors as they are. They
    keep nothing of the body, which is freed in the thread. Otherwise its values would stay until
    Python's garbage is collected, and freeing 300,000 of them takes the event loop 40 ms.
    """
    made, failure = await in_thread_if(is_long, _outcome, work)
    if failure is None:
        return cast(T, made)
    try:
        raise failure
    finally:
        del failure  # its traceback has this frame


def _outcome(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except ValidationError as failure:
        found = failure.errors(include_url=False, include_input=False)
        error: Exception = rejected(found, "body")
    except Exception as failure:  # noqa: BLE001 - `checked` raises it
        error = failure
        drop_frames(error)
    return None, error


def rejected(found: Iterable[Any], *before: str) -> RequestValidationError:
    """Return the error for a body in which pydantic has `found` errors, at places that begin with
    `before`. It has neither the wrong values nor the frames of the validators that refused them."""
    return RequestValidationError([_without_values(each, before) for each in found])


def _without_values(error: Mapping[str, Any], before: tuple[str, ...]) -> dict[str, Any]:
    kept = {name: value for name, value in error.items() if name not in ("input", "url")}
    context = kept.get("ctx", {})
    if isinstance(cause := context.get("error"), Exception):
        drop_frames(cause)
        kept["ctx"] = context | {"error": str(cause)}
    return kept | {"loc": (*before, *error["loc"])}


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
                raise rejected(errors)
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
