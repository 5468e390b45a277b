"""A server of what is stored, without engines, for commands that run while no other server does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from myllm.api.errors import handlers
from myllm.api.http.access import Access
from myllm.api.http.middleware import RequestContext
from myllm.api.native import keys, sessions, usage
from myllm.api.native.options import Options
from myllm.api.shared.dependencies import StoreOnly
from myllm.gateway.observers.event_log import EventLog
from myllm.gateway.observers.usage_book import UsageBook
from myllm.models.registry import Registry
from myllm.sessions.kv_files import KvFiles
from myllm.sessions.store import SessionStore
from myllm.sessions.usage import UsageStore
from myllm.settings import Settings
from myllm.tls import Tls


class StoreApp:
    """Serves stored conversations, usage and keys alone, for the length of one command."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tls: Tls | None = None
        app = FastAPI()
        app.include_router(sessions.router)
        app.include_router(usage.router)
        app.include_router(keys.router)
        handlers.install(app, Options.model_fields)
        self._state = app.state
        self.asgi: ASGIApp = RequestContext(Access().guard(app), EventLog().request_ended)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve requests until the context is left.

        Raises StoreFailed or Unavailable when the store cannot be used.
        """
        store = SessionStore(self.settings.database())
        settings = self.settings
        files = KvFiles(settings.kv_dir(), store.kv_records, settings.kv_cache_mb)
        store.before_removal = files.forget
        await store.start()
        book = UsageBook(UsageStore(store.database))
        self._state.services = StoreOnly(settings, store, book, Registry(settings.models_dir))
        yield
        await store.close()

    async def drain_and_stop(self) -> None:
        """Do nothing: no engine runs."""

    def body_bytes(self) -> int:
        """Return 0: one command sends its few requests here."""
        return 0

    def reload(self) -> None:
        """Do nothing: there are no keys and no engines."""

    def abandon(self) -> None:
        """Do nothing: there is nothing to clean up."""
