"""The list of dialects knows each route of the API, and which errors belong to it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from myllm.api.dialects import DIALECTS, Dialect, dialect_of
from myllm.api.errors import handlers
from myllm.api.http.fast_path import FastPath
from myllm.api.native.options import Options

FAST = {
    *("/api/generate", "/api/chat", "/api/embeddings"),
    *("/v1/chat/completions", "/v1/completions"),
}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_each_route_belongs_to_the_dialect_that_has_it(dialect: Dialect) -> None:
    routes = [
        route
        for router in dialect.routers()
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
    assert routes
    for route in routes:
        assert dialect_of(route.path) is dialect, route.path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "native"),
        ("/nowhere", "native"),
        ("*", "native"),
        ("/v1/nowhere", "openai"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/completion", "llamacpp"),
        ("/upstream/demo/anything", "llamacpp"),
        ("/ollama", "ollama"),
    ],
)
def test_each_path_has_one_dialect(path: str, name: str) -> None:
    assert dialect_of(path).name == name


def test_only_the_native_dialect_is_imported_at_the_start() -> None:
    code = "import sys, myllm.app; print(*(m for m in sys.modules if m.startswith('myllm.api.')))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    for dialect in DIALECTS:
        assert (f"myllm.api.{dialect.name}" in loaded) is dialect.at_start


def test_the_fast_path_takes_what_is_marked_in_any_dialect() -> None:
    """A dialect that is loaded later cannot stop the start, so its marks are checked here."""
    app = FastAPI()
    handlers.install(app, Options.model_fields)
    fast_path = FastPath(app)
    for dialect in DIALECTS:
        for router in dialect.routers():
            fast_path.add(router)
    assert fast_path.paths == FAST
