"""What is left of a large body that was refused: nothing that Python's collector has to free."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from myllm.api.errors import handlers
from myllm.api.http.fast_path import FastPath, fast_path
from myllm.api.http.json_bodies import CheckedRoute, read_json
from myllm.api.native.options import Options
from myllm.api.shared.bounded import Inputs, Messages
from myllm.api.shared.dependencies import ClientDep, ServicesDep
from myllm.errors import InvalidRequest

VALUES = 50_000
FEW = 1_000
LISTS = [[1]] * VALUES
REFUSED = {
    "too many": ({"messages": LISTS}, "messages must have 10000 entries at most, not 50000"),
    "too many of another kind": ({"inputs": LISTS}, "inputs[0] must be a string"),
    "a wrong one": ({"inputs": [LISTS]}, "inputs[0] must be a string"),
    "a wrong type": ({"inputs": {"a": LISTS}}, "inputs must be a list"),
    "none of the fields": (LISTS, "The body must be a JSON object"),
}


class Body(BaseModel):
    """Two kinds of lists."""

    messages: Messages[str] = []
    inputs: Inputs[str] = []


async def quick(request: Body, services: ServicesDep, client: ClientDep) -> Response:
    return Response()


async def plain(request: Body) -> Response:
    return Response()


def with_routes() -> ASGIApp:
    router = APIRouter(route_class=CheckedRoute)
    router.post("/quick")(fast_path(quick))
    router.post("/plain")(plain)
    app = FastAPI()
    app.include_router(router)
    handlers.install(app, Options.model_fields)
    app.state.services = None
    direct = FastPath(app)
    direct.add(router)

    async def with_client(scope: Scope, receive: Receive, send: Send) -> None:
        await direct(scope | {"state": {"client": None}}, receive, send)

    return with_client


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("path", ["/quick", "/plain"])
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("no_collector")
async def test_a_refused_body_leaves_no_garbage(path: str, name: str) -> None:
    body, words = REFUSED[name]
    content = orjson.dumps(body)
    transport = httpx.ASGITransport(with_routes())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.post(path, content=b"1")
        before = lists()
        answer = await client.post(path, content=content)
        assert answer.status_code == 400
        assert words in answer.text
        for _ in range(100):  # a thread may hold its last work for a moment
            if lists() < before + FEW:
                return
            await asyncio.sleep(0.02)
        pytest.fail(f"{lists() - before} lists of the body are left")


async def test_the_values_of_a_refused_body_are_freed_in_steps() -> None:
    """In one piece, 300,000 of them kept Python's lock for 40 ms."""
    parsed: list[Any] = []

    def check(value: Any) -> None:
        parsed.extend((value, value["a"], value["b"]["c"]))
        raise InvalidRequest("no")

    body = {"a": ["x"] * VALUES, "b": {"c": [[1], {}, {"d": "e"}] * 5_000}}
    with pytest.raises(InvalidRequest, match="no"):
        await read_json(orjson.dumps(body), check)
    assert parsed == [{}, [], []]


def lists() -> int:
    return sum(type(each) is list for each in gc.get_objects())
