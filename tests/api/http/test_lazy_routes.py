"""Routes that are loaded by the first request that may be for one of them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from fastapi.dependencies.utils import get_dependant
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from myllm.api.http.access import Access
from myllm.api.http.lazy_routes import LazyRoutes
from myllm.app import App
from myllm.engine.engine import Engine
from myllm.settings import load_settings

ENGINE = Engine(Path("llama-server"), "setting", "", 0, "", ("CPU",))


class Late:
    """An application that gets the route `/v1/late` from `load`, which takes a moment."""

    def __init__(self, failures: int = 0) -> None:
        self.app = Starlette()
        self.app.add_route("/api/early", self.answer)
        self.loads, self.failures = 0, failures
        routes = httpx.ASGITransport(LazyRoutes(self.app, self.load))
        self.client = httpx.AsyncClient(transport=routes, base_url="http://localhost")

    async def answer(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    async def load(self) -> None:
        self.loads += 1
        await asyncio.sleep(0.05)
        if self.loads <= self.failures:
            raise ImportError("no memory")
        self.app.add_route("/v1/late", self.answer)


async def test_requests_at_the_same_time_wait_for_one_load() -> None:
    late = Late()
    assert (await late.client.get("/api/early")).text == "/api/early"
    assert late.loads == 0
    answers = await asyncio.gather(*(late.client.get("/v1/late") for _ in range(5)))
    assert [answer.text for answer in answers] == ["/v1/late"] * 5
    assert (await late.client.get("/nowhere")).status_code == 404
    assert late.loads == 1


async def test_a_load_that_fails_is_tried_again() -> None:
    late = Late(failures=1)
    with pytest.raises(ImportError):
        await late.client.get("/v1/late")
    assert (await late.client.get("/v1/late")).text == "/v1/late"


async def test_a_client_may_leave_while_it_waits_for_the_load() -> None:
    late = Late()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late.client.get("/v1/late"), 0.01)
    assert (await late.client.get("/v1/late")).text == "/v1/late"
    assert late.loads == 1


@pytest.mark.parametrize("path", ["/api/nowhere", "/v1/nowhere"])
async def test_no_request_builds_routes_in_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """FastAPI builds the routes of an included router lazily, which takes tens of milliseconds."""
    builders: list[str] = []

    def build(*args: Any, **fields: Any) -> Any:
        builders.append(threading.current_thread().name)
        return get_dependant(*args, **fields)

    app = App(load_settings(), ENGINE, Access())
    monkeypatch.setattr(fastapi.routing, "get_dependant", build)
    transport = httpx.ASGITransport(app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for _ in range(2):
            assert (await client.get(path)).status_code == 404
    assert threading.current_thread().name not in builders
    assert bool(builders) == path.startswith("/v1")
