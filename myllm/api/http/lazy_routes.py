"""Loads the dialects that few servers need before the first request that may be for one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from myllm.api.dialects import dialect_of
from myllm.api.errors import openapi


class LazyRoutes:
    """Calls `load` once, before the first request of a path that is not served from the start.

    Requests that come meanwhile wait for the same load; after one that failed, the next request
    tries again.
    """

    def __init__(self, app: ASGIApp, load: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._load = load
        self._loading: asyncio.Task[None] | None = None
        self._is_loaded = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_loaded and scope["type"] == "http" and _is_lazy(scope["path"]):
            await self._loaded()
        await self._app(scope, receive, send)

    async def _loaded(self) -> None:
        if self._loading is None:
            self._loading = asyncio.create_task(self._run(), name="load the other dialects")
        await asyncio.shield(self._loading)

    async def _run(self) -> None:
        try:
            await self._load()
            self._is_loaded = True
        finally:
            self._loading = None


def _is_lazy(path: str) -> bool:
    """Whether `path` needs the dialects that are not loaded at the start; the API's description
    needs all of them."""
    return path == openapi.PATH or not dialect_of(path).at_start
