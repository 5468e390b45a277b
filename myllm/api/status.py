"""Who this is and how it does, and the API's description for browsers."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import RedirectResponse

from myllm import __version__
from myllm.api.services import Services, With

router = APIRouter(tags=["Status"])


@router.get("/")
async def root(services: With) -> dict[str, str]:
    """Name, version and where the documentation is."""
    return {
        "name": "MyLLM",
        "version": __version__,
        "status": _status(services),
        "docs": "/docs",
    }


@router.get("/health")
async def health(services: With) -> dict[str, Any]:
    """Whether the server is well; answers at once whatever it is doing."""
    queued, active = services.gateway.scheduler.totals()
    return {
        "status": _status(services),
        "version": __version__,
        "uptime_seconds": round(time.monotonic() - services.started_at, 1),
        "models": {str(each.spec.key): each.state for each in services.gateway.supervisor},
        "queued": queued,
        "active": active,
    }


def _status(services: Services) -> str:
    return "draining" if services.gateway.draining else "healthy"


def install_docs(app: FastAPI) -> None:
    """Serve Swagger UI from the package, when it is first asked for: no CDN, no start-up cost."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> RedirectResponse:
        if not getattr(app.state, "docs_installed", False):
            from fastapi_swagger import patch_fastapi

            patch_fastapi(app, docs_url="/docs/ui", redirect_from_root_to_docs=False)
            app.state.docs_installed = True
        return RedirectResponse("/docs/ui")
