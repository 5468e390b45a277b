"""Routes for what is asked often: straight from the path to the endpoint.

FastAPI's own way (its layers, its search for the route; then parse, solve the dependencies, check,
copy) costs more than all the rest of a short request. The description of the API is the same, and
so are the errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import get_type_hints

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from myllm.api.http.json_bodies import CheckedRoute, Handler, is_json, read_json
from myllm.api.http.request_state import BEGUN

_FAILURE = "myllm.failure"


class DirectRoute(CheckedRoute):
    """A route that `FastPath` may answer: its endpoint takes `request` (a pydantic model),
    `services` and `client`. Others stay what they are.
    """

    def direct_handler(self) -> Handler | None:
        """The endpoint as a function of the request; None for one of another form."""
        hints = get_type_hints(self.endpoint)
        model = hints.get("request")
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        if set(hints) != {"request", "services", "client", "return"}:
            return None
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            body = await _checked(model, request, await _body(request.receive))
            return await endpoint(body, request.app.state.services, request.state.client)

        return handle


class FastPath:
    """Answers POSTs to the paths of direct routes; everything else goes to `app`."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._handlers: dict[str, Handler] = {}
        handlers = {**app.exception_handlers}
        unexpected = handlers.pop(Exception)
        inner = ExceptionMiddleware(_raise, handlers)
        self._tell = ServerErrorMiddleware(inner, handler=unexpected)

    def add(self, router: APIRouter) -> None:
        """Take over the direct routes of `router`."""
        for route in router.routes:
            if isinstance(route, DirectRoute) and (handler := route.direct_handler()):
                self._handlers[route.path] = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = None
        if scope["type"] == "http" and scope["method"] == "POST":
            handler = self._handlers.get(scope["path"])
        if handler is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app  # which has what the endpoints work with
        try:
            response = await handler(Request(scope, receive, send))
            await response(scope, receive, send)
        except Exception as failure:
            if BEGUN in scope["state"]:
                raise
            await self._tell({**scope, _FAILURE: failure}, receive, send)


async def _raise(scope: Scope, receive: Receive, send: Send) -> None:
    failure: Exception = scope[_FAILURE]
    raise failure


async def _body(receive: Receive) -> bytes:
    """All of it; most are one message. Raises ClientDisconnect."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts) if len(parts) > 1 else parts[0]


async def _checked(model: type[BaseModel], request: Request, body: bytes) -> BaseModel:
    """The body, checked; raises RequestValidationError as FastAPI does."""
    if not body or not is_json(request.headers.get("content-type", "")):
        missing = {"type": "model_attributes_type", "loc": ("body",), "input": None}
        raise RequestValidationError([missing])
    try:
        return await read_json(body, model.model_validate)
    except ValidationError as failure:
        found = failure.errors(include_url=False, include_input=False)
        raise RequestValidationError(
            [error | {"loc": ("body", *error["loc"])} for error in found]
        ) from None
