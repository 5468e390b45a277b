"""The last requests and those under way: what `myllm requests` shows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.native.visibility_schemas import RequestList, ShownRequest
from myllm.api.shared.bounded import Name
from myllm.api.shared.dependencies import AdminDep, ClientDep, ServicesDep
from myllm.api.shared.timestamps import iso
from myllm.errors import MyLLMError, NotFound
from myllm.gateway.observers.captured_bodies import Captured
from myllm.gateway.observers.recent_requests import MOST, Entry, State, Wanted, key_name, state_of
from myllm.limits import WHOLE

router = APIRouter(prefix="/api/requests", tags=["Status"], route_class=CheckedRoute)

_Status = Annotated[int, Field(ge=100, le=599)] | State


@router.get("", response_model=None, responses={200: {"model": RequestList}})
async def list_requests(
    services: ServicesDep,
    client: ClientDep,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 50,
    model: Annotated[Name | None, Query(description="Only requests to this model.")] = None,
    key: Annotated[Name | None, Query(description="Only requests with this key.")] = None,
    status: Annotated[
        _Status | None, Query(description="Only requests in this state, or with this HTTP status.")
    ] = None,
    after: Annotated[
        int, Query(ge=0, le=WHOLE, description="Only those that ended after this number.")
    ] = 0,
) -> Response:
    """The last requests that asked a model or failed, newest first, those under way before all
    others. An admin sees all of them, another key only its own."""
    if model is not None:
        model = await services.gateway.models.name_of(model)
    recent, wanted = services.activity.requests, Wanted(model, key, status, after)
    entries, last = recent.entries(client), recent.last

    def document() -> bytes:
        chosen = islice(filter(wanted.has, entries), limit)
        return orjson.dumps({"requests": list(map(_shown, chosen)), "last": last})

    # In a thread, since a thousand of them take some milliseconds.
    return Response(await asyncio.to_thread(document), media_type="application/json")


@router.delete("/bodies")
async def forget_bodies(services: ServicesDep, _: AdminDep) -> dict[str, str]:
    """Forget all captured bodies."""
    bodies = services.activity.requests.bodies
    count = 0 if bodies is None else bodies.forget_all()
    return {"status": "success", "message": f"Bodies of {count} requests forgotten"}


@router.get("/{request_id}", response_model=None, responses={200: {"model": ShownRequest}})
async def show_request(request_id: str, services: ServicesDep, client: ClientDep) -> dict[str, Any]:
    """One request by the id that its answer has in X-Request-ID; the newest, if clients have sent
    an id twice. An admin gets its bodies, too, if they were captured."""
    entry = _found(services.activity.requests.entries(client), request_id)
    captured = services.activity.requests.captured(entry.record) if client.role == "admin" else None
    return _shown(entry) | ({} if captured is None else _bodies(captured))


def _found(entries: Iterable[Entry], request_id: str) -> Entry:
    for entry in entries:
        if entry.record.id == request_id:
            return entry
    raise NotFound(f"No request '{request_id}' among the last ones")


def _bodies(captured: Captured) -> dict[str, Any]:
    return {
        "request_body": captured.request.text,
        "request_bytes": captured.request.size,
        "response_body": captured.response.text,
        "response_bytes": captured.response.size,
    }


def _shown(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "number": entry.number or None,
        "id": record.id,
        "began_at": iso(record.began),
        "key": key_name(record),
        "address": record.address,
        "model": record.model and record.model.model,
        "role": record.model and record.model.role,
        "dialect": record.dialect,
        "method": record.method,
        "path": record.path,
        "state": state_of(record),
        "status": record.status or None,
        "seconds": round(record.seconds, 4),
        "wait_seconds": round(record.queued_s, 4),
        "load_seconds": round(record.load_s, 4),
        "first_token_seconds": _rounded(record.first_token_s),
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "generated_tokens": record.generated_tokens,
        "tokens_per_second": record.tokens_per_s and round(record.tokens_per_s, 1),
        "resumed": record.deaths,
        "truncated": record.left_out > 0,
        "dropped_messages": record.left_out,
        "finish_reason": record.finish_reason,
        "error": _error(record.error),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _error(error: BaseException | None) -> str | None:
    """Why a request failed; None for one that did not, or whose client left."""
    if error is None or not isinstance(error, Exception):
        return None
    return error.detail if isinstance(error, MyLLMError) else "Internal error"
