"""The server's name and version, its health, and whether it is alive and ready."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from myllm import __version__
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.shared.dependencies import Services, ServicesDep
from myllm.incidents import counted

_STOPS = "server: it is stopping"
_UNREADY: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready; `missing` says why"}}
router = APIRouter(tags=["Status"], route_class=CheckedRoute)


@router.get("/")
async def root(services: ServicesDep) -> dict[str, str]:
    """Name, version and where the documentation is."""
    return {
        "name": "MyLLM",
        "version": __version__,
        "status": _status(services),
        "docs": f"{services.settings.root_path}/docs",
    }


@router.get("/health")
async def health(services: ServicesDep) -> dict[str, Any]:
    """Whether the server is well; answers at once whatever it is doing."""
    snapshot = services.gateway.snapshot()
    # Of two engines of one model, the younger one is shown.
    engines = sorted(snapshot.engines(), key=lambda engine: engine.run_id)
    return {
        "status": _status(services),
        "version": __version__,
        "uptime_seconds": round(time.monotonic() - services.started_at, 1),
        "models": {str(each.spec.key): each.state for each in engines},
        "queued": snapshot.queued,
        "active": snapshot.active,
        "incidents": counted(),
    }


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Whether the server answers at all; a server that does not should be started anew."""
    return {"status": "alive"}


@router.get("/health/ready", response_model=None, responses=_UNREADY)
async def ready(services: ServicesDep) -> JSONResponse:
    """Whether requests should be sent to this server: 503 says in `missing` why not. A model that
    is not loaded does not count, since the first request loads it."""
    stops = services.gateway.draining
    missing = (_STOPS,) if stops else await services.readiness.missing()
    if missing:
        return JSONResponse({"status": "not ready", "missing": missing}, 503)
    return JSONResponse({"status": "ready"})


def _status(services: Services) -> str:
    return "draining" if services.gateway.draining else "healthy"
