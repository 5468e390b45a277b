"""The fast path fails as FastAPI's own routes do, and takes no route that it would change."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Form, Header, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from myllm.api.errors import handlers
from myllm.api.http.fast_path import Endpoint, FastPath, fast_path
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.middleware import RequestContext
from myllm.api.native.options import Options
from myllm.api.shared.dependencies import ClientDep, ServicesDep, SessionsDep
from myllm.gateway.observers.event_log import EventLog


class Body(BaseModel):
    """Which failure to show."""

    late: bool


class Failing(Response):
    """A response that fails; if `late`, after its head was sent."""

    def __init__(self, late: bool) -> None:
        super().__init__(b"whole", media_type="text/plain")
        self._late = late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._late:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("broken")


@fast_path
async def broken(request: Body, services: ServicesDep, client: ClientDep) -> Response:
    return Failing(request.late)


def new_router(**settings: Any) -> APIRouter:
    return APIRouter(route_class=CheckedRoute, **settings)


def fast_paths() -> FastPath:
    app = FastAPI()
    handlers.install(app, Options.model_fields)
    app.state.services = None
    return FastPath(app)


async def asked(body: bytes) -> list[Message]:
    direct, router = fast_paths(), new_router()
    router.post("/break")(broken)
    direct.add(router)
    assert direct.paths == {"/break"}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/break", "headers": headers}
    scope |= {"state": {"client": None}, "query_string": b"", "server": ("x", 1), "scheme": "http"}
    await RequestContext(direct, EventLog().request_ended)(scope, receive, send)
    return sent


async def test_a_response_that_fails_before_its_head_is_a_500() -> None:
    head, body = await asked(b'{"late": false}')
    assert head["status"] == 500
    assert b"Internal error" in body["body"]


async def test_a_response_that_fails_after_its_head_is_cut() -> None:
    """A head that was sent cannot be taken back, so nothing follows it."""
    [head] = await asked(b'{"late": true}')
    assert head["status"] == 200


async def test_a_wrong_body_is_explained() -> None:
    head, body = await asked(b'{"late": 3}')
    assert head["status"] == 400
    assert b"late must be true or false" in body["body"]


async def with_query(
    request: Body, services: ServicesDep, client: ClientDep, verbose: bool = False
) -> Response:
    return Response()


async def with_header(
    request: Body, services: ServicesDep, client: ClientDep, version: Annotated[str, Header()]
) -> Response:
    return Response()


async def with_sessions(request: Body, sessions: SessionsDep, client: ClientDep) -> Response:
    return Response()


async def with_request(
    request: Body, services: ServicesDep, client: ClientDep, raw: Request
) -> Response:
    return Response()


async def in_another_order(services: ServicesDep, request: Body, client: ClientDep) -> Response:
    return Response()


async def without_client(request: Body, services: ServicesDep) -> Response:
    return Response()


async def with_form(
    request: Annotated[Body, Form()], services: ServicesDep, client: ClientDep
) -> Response:
    return Response()


async def with_list(request: list[Body], services: ServicesDep, client: ClientDep) -> Response:
    return Response()


async def without_response(
    request: Body, services: ServicesDep, client: ClientDep
) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(
    ("endpoint", "skipped"),
    [
        (with_query, "the query parameter 'verbose'"),
        (with_header, "the header parameter 'version'"),
        (with_sessions, "the dependency _sessions"),
        (with_request, "its parameters (request, services, client, raw)"),
        (in_another_order, "its parameters (services, request, client)"),
        (without_client, "its parameters (request, services)"),
        (with_form, "a body that is not one pydantic model"),
        (with_list, "a body that is not one pydantic model"),
        (without_response, "the conversion of its result to a Response"),
    ],
)
def test_a_marked_endpoint_that_needs_more_is_refused(endpoint: Endpoint, skipped: str) -> None:
    router = new_router()
    router.post("/chat")(fast_path(endpoint))
    with pytest.raises(TypeError) as refused:
        fast_paths().add(router)
    assert str(refused.value).startswith("/chat is marked with @fast_path, which would skip ")
    assert skipped in str(refused.value)


async def limit() -> None:
    """A dependency that returns nothing: only its effect matters."""


class OtherRoute(CheckedRoute):
    """A route that reads its requests in another way."""


@pytest.mark.parametrize(
    ("router", "settings", "skipped"),
    [
        (new_router(dependencies=[Depends(limit)]), {}, "the dependency limit"),
        (new_router(), {"dependencies": [Depends(limit)]}, "the dependency limit"),
        (new_router(), {"status_code": 201}, "its status 201"),
        (new_router(), {"methods": ["PUT"]}, "its methods ['PUT']"),
        (APIRouter(route_class=OtherRoute), {}, "the handler of its class OtherRoute"),
    ],
)
def test_a_marked_route_that_does_more_is_refused(
    router: APIRouter, settings: dict[str, Any], skipped: str
) -> None:
    router.api_route("/chat", **({"methods": ["POST"]} | settings))(broken)
    with pytest.raises(TypeError, match="marked with @fast_path") as refused:
        fast_paths().add(router)
    assert skipped in str(refused.value)


def test_a_route_without_the_mark_stays_fastapi_s() -> None:
    direct, router = fast_paths(), new_router()

    @router.post("/slow")
    async def slow(request: Body, services: ServicesDep, client: ClientDep) -> Response:
        return Response()

    direct.add(router)
    assert direct.paths == set()
