"""The server's name and version, and its health."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from myllm import __version__
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.shared.dependencies import Services, ServicesDep
from myllm.incidents import counted

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


def _status(services: Services) -> str:
    return "draining" if services.gateway.draining else "healthy"
