"""The record of each request names its route, without what the client filled in, and its error."""

from __future__ import annotations

import gc
import weakref

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from myllm.api.http.access import Access
from myllm.api.http.middleware import RequestContext
from myllm.app import App
from myllm.errors import Forbidden, InvalidRequest, NotFound
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import RequestRecord, current
from myllm.settings import load_settings
from tests.api.http.test_lazy_routes import ENGINE


class Ended(Observer):
    """Keeps the records of requests that have ended."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def request_ended(self, record: RequestRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize(
    ("method", "path", "handler"),
    [
        ("POST", "/api/generate", "/api/generate"),  # by the fast path
        ("POST", "/api/generate/", "/api/generate"),
        ("GET", "/api/generate", "/api/generate"),  # 405
        ("GET", "/health/live", "/health/live"),
        ("HEAD", "/health/live", "/health/live"),
        ("DELETE", "/api/models/secret", "/api/models/{name}"),
        ("GET", "/api/sessions/secret", "/api/sessions/{session_id}"),
        ("GET", "/v1/models/secret", "/v1/models/{name}"),  # of a dialect that is loaded late
        ("POST", "/ollama/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/ollama/api/chat", "/ollama/api/chat"),
        ("GET", "/swagger/secret", "/swagger/{name}"),
        ("GET", "/docs", "/docs"),
        ("GET", "/openapi.json", "/openapi.json"),
        ("GET", "/secret", ""),
        ("POST", "/v1/secret", ""),
        ("SECRET", "/secret", ""),
    ],
)
async def test_the_handler_is_the_path_of_the_route(method: str, path: str, handler: str) -> None:
    ended, app = Ended(), App(load_settings(), ENGINE, Access())
    app.observers.attach(ended)
    transport = httpx.ASGITransport(app.asgi, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.request(method, path, json={})
    [record] = ended.records
    assert record.handler == handler


async def test_a_request_that_is_refused_before_its_route_has_no_handler() -> None:
    ended, app = Ended(), App(load_settings(), ENGINE, Access(hosts=frozenset()))
    app.observers.attach(ended)
    transport = httpx.ASGITransport(app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://elsewhere") as client:
        assert (await client.get("/health")).status_code == 403
    [record] = ended.records
    assert (record.handler, record.status) == ("", 403)
    assert isinstance(record.error, Forbidden)


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("POST", "/api/generate", {"model": 1}, InvalidRequest),  # by the fast path
        ("DELETE", "/api/sessions/x", {}, AttributeError),  # without services, a fault of ours
        ("GET", "/swagger/x", {}, NotFound),
        ("GET", "/nowhere", {}, type(None)),
        ("GET", "/health/live", {}, type(None)),
    ],
)
async def test_the_error_is_the_one_that_was_answered(
    method: str, path: str, body: object, kind: type
) -> None:
    ended, app = Ended(), App(load_settings(), ENGINE, Access())
    app.observers.attach(ended)
    transport = httpx.ASGITransport(app.asgi, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.request(method, path, json=body)
    [record] = ended.records
    assert type(record.error) is kind
    assert record.has_failed is (path != "/health/live")


async def test_the_error_of_a_request_that_has_ended_holds_no_frames() -> None:
    """They refer to the record, and to all of the request: 16 MiB of text, for example."""

    class Held:
        """Something large that the request had."""

    left: list[weakref.ref[Held]] = []
    errors: list[BaseException | None] = []

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        held = Held()
        left.append(weakref.ref(held))
        record = current()
        assert record is not None
        try:
            try:
                raise InvalidRequest("inner")
            except InvalidRequest:
                raise InvalidRequest("outer") from None
        except InvalidRequest as failure:
            record.error = failure
        await Response(status_code=400)(scope, receive, send)

    asked = RequestContext(failing, lambda record: errors.append(record.error))
    gc.disable()
    try:
        transport = httpx.ASGITransport(asked)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await client.get("/")
        assert [str(error) for error in errors] == ["outer"]
        assert left[0]() is None
    finally:
        gc.enable()
