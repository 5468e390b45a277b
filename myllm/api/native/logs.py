"""What a model's engines have printed, as `myllm logs` shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import STREAM_HEADERS, Stream
from myllm.api.shared.dependencies import AdminDep, Services, ServicesDep
from myllm.errors import MyLLMError
from myllm.gateway.client import Client
from myllm.limits import LOG_LINES
from myllm.supervisor.spec import log_names

router = APIRouter(prefix="/api", tags=["Operation"], route_class=CheckedRoute)
DEFAULT_LINES: Final = 100
_SSE: Final = "text/event-stream"
# How often a follower looks for new lines.
_LOOK_EVERY_S: Final = 0.25
_FORMS: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/plain": {}, _SSE: {}}}}
_TEXT_HEADERS: Final = {**STREAM_HEADERS, "Content-Type": "text/plain; charset=utf-8"}


@router.get("/logs/{name:path}", response_class=Response, responses=_FORMS)
async def show_logs(
    request: Request,
    name: str,
    services: ServicesDep,
    client: AdminDep,
    lines: Annotated[
        int, Query(ge=0, le=LOG_LINES, description="So many last lines of each log.")
    ] = DEFAULT_LINES,
    follow: Annotated[
        bool, Query(description="Go on with new lines, across restarts of the engine.")
    ] = False,
) -> Response:
    """What the engines of a model have printed in all roles, also those that have ended, as text,
    or as server-sent events if the client accepts those. Control characters are escaped. When the
    model has several logs, a line `==> NAME.ROLE <==` says which one the next lines are from."""
    model = await _logged_model(services, name)
    in_events = _SSE in request.headers.get("accept", "")
    encode = _events if in_events else str.encode
    frames = partial(_frames, services, model, lines, client if follow else None, encode)
    if in_events:
        return Stream(frames, _error_event, phase=lambda: "following")
    return Stream(frames, _error_line, headers=_TEXT_HEADERS)


async def _frames(
    services: Services,
    model: str,
    lines: int,
    follower: Client | None,
    encode: Callable[[str], bytes],
) -> AsyncGenerator[bytes, None]:
    async with services.logs.open(log_names(model), lines) as logs:
        piece = await asyncio.to_thread(logs.read)
        yield encode(piece) if piece else b""  # sends the head, since a line may take long
        while follower is None or services.knows(follower):
            is_over = follower is None or _has_stopped(services, model)
            if piece := await asyncio.to_thread(logs.read):
                yield encode(piece)
            elif is_over:
                return
            else:
                await asyncio.sleep(_LOOK_EVERY_S)


async def _logged_model(services: Services, name: str) -> str:
    """The model's own name; a model that was removed still has its logs. Raises NotFound."""
    model = await services.gateway.models.name_of(name)
    if not await services.logs.exist(log_names(model)):
        await services.gateway.models.find(model)
    return model


def _has_stopped(services: Services, model: str) -> bool:
    """Whether the server stops and the model's engines have ended."""
    gateway = services.gateway
    return gateway.draining and not any(gateway.snapshot().engines(model))


def _events(piece: str) -> bytes:
    """An event for each line."""
    return "".join(f"data: {line}\n\n" for line in piece.removesuffix("\n").split("\n")).encode()


def _error_event(error: MyLLMError) -> bytes:
    return b"event: error\ndata: " + orjson.dumps({"detail": error.detail}) + b"\n\n"


def _error_line(error: MyLLMError) -> bytes:
    return f"error: {error.detail}\n".encode()
