"""The page `/docs`: Swagger UI, whose files come from the package `fastapi-swagger`.

All addresses on the page are relative, so that it works without a network, below a path of a
proxy, and behind a proxy that ends TLS.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, Response

from myllm.errors import NotFound

router = APIRouter(include_in_schema=False)
ASSETS_PATH = "/swagger/"
_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "application/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_SHOWN = {"tryItOutEnabled": True, "persistAuthorization": True, "filter": True}


@router.get("/docs")
async def page() -> HTMLResponse:
    """Swagger UI for this server."""
    here = ASSETS_PATH.removeprefix("/")
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="MyLLM",
        swagger_js_url=f"{here}swagger-ui-bundle.js",
        swagger_css_url=f"{here}swagger-ui.css",
        swagger_favicon_url=f"{here}favicon-32x32.png",
        swagger_ui_parameters=_SHOWN,
    )


@router.get(ASSETS_PATH + "{name}")
def asset(name: str) -> Response:
    """One of Swagger UI's files."""
    if name not in _MEDIA_TYPES:
        raise NotFound(f"No such file: {ASSETS_PATH}{name}")
    content = files("fastapi_swagger.resources").joinpath(name).read_bytes()
    return Response(content, media_type=_MEDIA_TYPES[name])
