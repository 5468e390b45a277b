"""Routes that are answered without FastAPI's layers fail as its own do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from myllm.api.errors import handlers
from myllm.api.http.fast_path import DirectRoute, FastPath
from myllm.api.http.middleware import RequestContext
from myllm.api.native.schemas import Options


class Body(BaseModel):
    """Which failure to show."""

    late: bool


class Failing(Response):
    """One that breaks, `late`: when its head has been sent."""

    def __init__(self, late: bool) -> None:
        super().__init__(b"whole", media_type="text/plain")
        self._late = late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._late:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("broken")


router = APIRouter(route_class=DirectRoute)


@router.post("/break")
async def broken(request: Body, services: Any, client: Any) -> Response:
    return Failing(request.late)


async def asked(body: bytes) -> list[Message]:
    app = FastAPI()
    handlers.install(app, Options.model_fields)
    app.state.services = None
    direct = FastPath(app)
    direct.add(router)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/break", "headers": headers}
    scope |= {"state": {"client": None}, "query_string": b"", "server": ("x", 1), "scheme": "http"}
    await RequestContext(direct)(scope, receive, send)
    return sent


async def test_one_that_fails_before_its_head_is_a_500() -> None:
    head, body = await asked(b'{"late": false}')
    assert head["status"] == 500
    assert b"Internal error" in body["body"]


async def test_one_that_fails_behind_its_head_is_cut() -> None:
    """What has been sent cannot be taken back, so nothing follows it."""
    [head] = await asked(b'{"late": true}')
    assert head["status"] == 200


async def test_a_wrong_body_is_told() -> None:
    head, body = await asked(b'{"late": 3}')
    assert head["status"] == 400
    assert b"late must be true or false" in body["body"]
