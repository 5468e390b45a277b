"""Routes that are there when the first request that may mean one of them comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

_EARLY = ("/api/", "/health")


class LazyRoutes:
    """Calls `load` once, before the first request of a path that is not there from the start.

    Those that come meanwhile wait for the same load; one that fails is tried again.
    """

    def __init__(self, app: ASGIApp, load: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._load = load
        self._loading: asyncio.Task[None] | None = None
        self._is_loaded = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_loaded and scope["type"] == "http" and not _is_early(scope["path"]):
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


def _is_early(path: str) -> bool:
    return path == "/" or path.startswith(_EARLY)
