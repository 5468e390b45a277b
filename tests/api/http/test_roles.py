"""Which routes take a key of the role admin; a new route must be in one of these lists."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from myllm.api.dialects import DIALECTS
from myllm.api.shared.dependencies import AdminDep

ADMINS_ONLY = {
    "GET /api/keys",
    "POST /api/keys",
    "GET /api/keys/{name}",
    "PATCH /api/keys/{name}",
    "DELETE /api/keys/{name}",
    "POST /api/keys/{name}/rotate",
    "POST /api/models/{name:path}/load",
    "POST /api/models/{name:path}/unload",
    "POST /api/models/{name:path}/reload",
    "DELETE /api/models/{name:path}",
    "POST /api/reload",
    "GET /api/history",
    "GET /api/logs/{name:path}",
    "DELETE /api/requests/bodies",
    "GET /upstream/{model:path}/metrics",
    "POST /ollama/api/copy",
    "DELETE /ollama/api/delete",
    "POST /ollama/api/pull",
}
CHANGES_THAT_USERS_MAY_MAKE = {
    "PATCH /api/sessions/{session_id}",
    "DELETE /api/sessions/{session_id}",
    "DELETE /api/sessions/{session_id}/messages/{message}",
    "DELETE /v1/responses/{response_id}",
}
"""Of what belongs to the key itself."""


def routes() -> Iterator[tuple[str, APIRoute]]:
    """Every route of every dialect, by its method and path; one for any method is left out."""
    for dialect in DIALECTS:
        for router in dialect.routers():
            for route in router.routes:
                if isinstance(route, APIRoute) and "OPTIONS" not in route.methods:
                    yield from ((f"{method} {route.path}", route) for method in route.methods)


def dependencies(of: Dependant) -> Iterator[object]:
    yield of.call
    for each in of.dependencies:
        yield from dependencies(each)


def test_what_takes_an_admin() -> None:
    (marker,) = AdminDep.__metadata__
    found = {name for name, route in routes() if marker.dependency in dependencies(route.dependant)}
    assert found == ADMINS_ONLY


def test_users_change_nothing_but_their_own() -> None:
    changes = {name for name, _ in routes() if name.split()[0] in ("PUT", "PATCH", "DELETE")}
    assert changes - ADMINS_ONLY == CHANGES_THAT_USERS_MAY_MAKE
