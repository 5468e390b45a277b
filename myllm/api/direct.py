"""Routes for what is asked often: the body is read and checked in one step, by pydantic's parser.

FastAPI's own way (parse, solve the dependencies, check, copy) costs more than all the rest of a
short request. The description of the API is the same, and so are the errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """A route whose endpoint takes `request` (a pydantic model), `services` and `client`.

    Others stay what they are.
    """

    def get_route_handler(self) -> Handler:
        hints = get_type_hints(self.endpoint)
        model = hints.get("request")
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return super().get_route_handler()
        if set(hints) != {"request", "services", "client", "return"}:
            return super().get_route_handler()
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            body = _checked(model, request, await request.body())
            return await endpoint(body, request.app.state.services, request.state.client)

        return handle


def _checked(model: type[BaseModel], request: Request, body: bytes) -> BaseModel:
    """The body, checked; raises RequestValidationError as FastAPI does."""
    content_type = request.headers.get("content-type", "")
    if not body or not content_type.lower().startswith("application/json"):
        missing = {"type": "model_attributes_type", "loc": ("body",), "input": None}
        raise RequestValidationError([missing])
    try:
        return model.model_validate_json(body)
    except ValidationError as failure:
        found = failure.errors(include_url=False)
        if found[0]["type"] == "json_invalid" and not _is_utf8(body):
            raise HTTPException(400, "The body is not valid JSON in UTF-8") from None
        raise RequestValidationError(
            [error | {"loc": ("body", *error["loc"])} for error in found]
        ) from None


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
