"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.shared.dependencies import MetricsDep, ServicesDep

router = APIRouter(tags=["Status"], route_class=CheckedRoute)
_Accept = Annotated[str, Header(description="The formats that the client reads.")]
_FORMATS: Final[dict[str, Any]] = {
    "content": {"text/plain": {}, "application/openmetrics-text": {}}
}


@router.get("/metrics", response_class=Response, responses={200: _FORMATS})
async def metrics(services: ServicesDep, _: MetricsDep, accept: _Accept = "") -> Response:
    """Counters, gauges and histograms in the text format of Prometheus, or in that of OpenMetrics
    if the Accept header asks for it."""
    content, media_type = await services.metrics.render(accept)
    return Response(content, headers={"Content-Type": media_type})
