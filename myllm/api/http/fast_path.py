"""The fast path: frequent requests go straight from their path to the endpoint.

FastAPI's own way (its layers, its search for the route; then parse, solve the dependencies, check,
copy) costs more than all the rest of a short request. The description of the API is the same, and
so are the errors. What else FastAPI does for a route is skipped, so a route that needs more than
its body, the services and the client must not be marked with `@fast_path`: adding it fails, and
with it the server's start, or the first request of a dialect that is loaded later.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar, get_type_hints

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.params import Body, Form
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from myllm.api.http.json_bodies import CheckedRoute, read_json
from myllm.api.http.request_state import BEGUN, client_of, services_of
from myllm.gateway.request_record import current
from myllm.json_input import is_json_type

Endpoint = Callable[..., Awaitable[Response]]
Handler = Callable[[Scope, Receive], Awaitable[Response]]
E = TypeVar("E", bound=Endpoint)
_MARK: Final = "_uses_fast_path"
# The dependencies that an endpoint gets here, in the order of its parameters.
_PROVIDED: Final = (services_of, client_of)
_FAILURE: Final = "myllm.failure"


def fast_path(endpoint: E) -> E:
    """Mark the endpoint of a POST for the fast path.

    It takes the body (a pydantic model), ServicesDep and ClientDep, in this order, and returns a
    Response. `FastPath.add` refuses routes that need anything else.
    """
    setattr(endpoint, _MARK, True)
    return endpoint


class FastPath:
    """Answers POSTs to the marked routes; everything else goes to `app`.

    Either way the record of the request gets the path of its route.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._handlers: dict[str, Handler] = {}
        handlers = {**app.exception_handlers}
        unexpected = handlers.pop(Exception)
        inner = ExceptionMiddleware(_raise, handlers)
        self._answer_failure = ServerErrorMiddleware(inner, handler=unexpected)

    @property
    def paths(self) -> frozenset[str]:
        """The paths that it answers."""
        return frozenset(self._handlers)

    def add(self, router: APIRouter) -> None:
        """Take over the marked routes of `router`.

        Raises TypeError for a marked route that has what the fast path would skip.
        """
        for route in router.routes:
            if isinstance(route, APIRoute) and getattr(route.endpoint, _MARK, False):
                self._handlers[route.path] = _handler(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = None
        if scope["type"] == "http" and scope["method"] == "POST":
            handler = self._handlers.get(scope["path"])
        if handler is None:
            try:
                await self._app(scope, receive, send)
            finally:
                _note_handler(getattr(scope.get("route"), "path_format", ""))
            return
        _note_handler(scope["path"])
        scope["app"] = self._app  # which has what the endpoints work with
        try:
            response = await handler(scope, receive)
            await response(scope, receive, send)
        except Exception as failure:
            if BEGUN in scope["state"]:
                raise
            await self._answer_failure({**scope, _FAILURE: failure}, receive, send)


def _handler(route: APIRoute) -> Handler:
    """The endpoint as a function of the request. Raises TypeError as `FastPath.add` does.

    It reads the request's scope: an object around it costs more than what is read here.
    """
    if skipped := list(_skipped(route)):
        raise TypeError(
            f"{route.path} is marked with @fast_path, which would skip {', '.join(skipped)}: "
            "remove the mark, or let the endpoint take a body, ServicesDep and ClientDep alone"
        )
    endpoint: Endpoint = route.endpoint
    model = get_type_hints(endpoint)[route.dependant.body_params[0].name]

    async def handle(scope: Scope, receive: Receive) -> Response:
        body = await _checked(model, scope, await _body(receive))
        return await endpoint(body, scope["app"].state.services, scope["state"]["client"])

    return handle


def _skipped(route: APIRoute) -> Iterator[str]:
    """In words, what FastAPI does for `route` and the fast path does not."""
    wanted = route.dependant
    if route.methods != {"POST"}:
        yield f"its methods {sorted(route.methods or ())}"
    if type(route) is not CheckedRoute:
        yield f"the handler of its class {type(route).__name__}"
    if route.status_code not in (None, 200):
        yield f"its status {route.status_code}"
    for kind in ("path", "query", "header", "cookie"):
        for parameter in getattr(wanted, f"{kind}_params"):
            yield f"the {kind} parameter '{parameter.name}'"
    for dependency in wanted.dependencies:
        if dependency.call not in _PROVIDED:
            yield f"the dependency {getattr(dependency.call, '__name__', dependency.call)}"
    yield from _other_forms(route)


def _other_forms(route: APIRoute) -> Iterator[str]:
    """In words, why the endpoint cannot be called with a body, the services and the client."""
    bodies, hints = route.dependant.body_params, get_type_hints(route.endpoint)
    if len(bodies) != 1 or not _is_model(bodies[0].field_info, hints[bodies[0].name]):
        yield "a body that is not one pydantic model"
    if not issubclass(hints.get("return", object), Response):
        yield "the conversion of its result to a Response"
    names = {each.call: each.name for each in route.dependant.dependencies}
    known = [each.name for each in bodies] + [names.get(each) for each in _PROVIDED]
    taken = list(inspect.signature(route.endpoint).parameters)
    if taken != known:
        yield f"its parameters ({', '.join(taken)})"


def _is_model(field: FieldInfo, kind: object) -> bool:
    """Whether a JSON body is the model itself, and not one of several fields."""
    is_json = isinstance(field, Body) and not isinstance(field, Form) and not field.embed
    return is_json and isinstance(kind, type) and issubclass(kind, BaseModel)


def _note_handler(path: str) -> None:
    record = current()
    if record is not None:
        record.handler = path


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


async def _checked(model: type[BaseModel], scope: Scope, body: bytes) -> BaseModel:
    """The body, checked; raises RequestValidationError as FastAPI does."""
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if not body or not is_json_type(content_type.decode("latin-1")):
        missing = {"type": "model_attributes_type", "loc": ("body",), "input": None}
        raise RequestValidationError([missing])
    return await read_json(body, model.model_validate)
