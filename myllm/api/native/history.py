"""The last hour in columns, for charts."""

from __future__ import annotations

import asyncio
from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.native.history_schemas import HistoryShown
from myllm.api.shared.dependencies import AdminDep, ServicesDep
from myllm.gateway.activity.history import STEPS, columns_of

router = APIRouter(prefix="/api", tags=["Status"], route_class=CheckedRoute)


@router.get("/history", response_model=None, responses={200: {"model": HistoryShown}})
async def history(
    services: ServicesDep,
    _: AdminDep,
    steps: Annotated[int, Query(ge=1, le=STEPS, description="Only so many last steps.")] = STEPS,
) -> Response:
    """The last hour in steps of five seconds, each column with the oldest step first."""
    chosen = services.activity.history.last(steps)
    # In a thread, since an hour takes some milliseconds.
    document = await asyncio.to_thread(lambda: orjson.dumps(columns_of(chosen)))
    return Response(document, media_type="application/json")
