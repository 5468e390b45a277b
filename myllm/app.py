"""Composition root: builds every layer and connects them; the only file that knows them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NoReturn

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from myllm import __version__
from myllm.api.dialects import DIALECTS
from myllm.api.errors import handlers, openapi
from myllm.api.http import docs_page
from myllm.api.http.access import OPEN_PATHS, Access
from myllm.api.http.body_capture import BodyCapture
from myllm.api.http.body_limits import BodyLimits
from myllm.api.http.fast_path import FastPath
from myllm.api.http.lazy_routes import LazyRoutes
from myllm.api.http.middleware import (
    HeadAsGet,
    PlainPaths,
    RequestContext,
    StripPrefix,
    Turnstile,
)
from myllm.api.native import health
from myllm.api.native.options import Options
from myllm.api.shared.dependencies import Services
from myllm.api.shared.engine_logs import LogReaders
from myllm.api.shared.readiness import Readiness
from myllm.engine.engine import Engine
from myllm.errors import EngineMissing
from myllm.garbage import keep_for_good
from myllm.gateway.activity.activity import Activity
from myllm.gateway.gateway import Gateway
from myllm.gateway.kv.slot_cache import SlotCache
from myllm.gateway.media.parts import Media, Remote
from myllm.gateway.metrics.exporter import Counts, Exporter
from myllm.gateway.observers.captured_bodies import CapturedBodies
from myllm.gateway.observers.event_log import EventLog
from myllm.gateway.observers.observer import Observers
from myllm.gateway.observers.recent_requests import RecentRequests
from myllm.gateway.observers.record_keeping import RecordKeeping
from myllm.gateway.observers.tracing import configured_spans
from myllm.gateway.observers.usage_book import UsageBook
from myllm.gateway.planner import Planner
from myllm.gateway.scheduling.scheduler import Scheduler
from myllm.launcher.local.launcher import LocalLauncher
from myllm.launcher.local.nvml import open_nvml
from myllm.launcher.local.runtime_dir import RuntimeDir
from myllm.loop_watch import LoopWatch
from myllm.loops import in_background, see_all_failures
from myllm.models.registry import Registry
from myllm.sessions.keys import KeyStore, sqlite_has_keys
from myllm.sessions.kv_files import KvFiles
from myllm.sessions.retention import Limits, Retention
from myllm.sessions.store import SessionStore
from myllm.sessions.usage import UsageStore
from myllm.settings import Settings
from myllm.supervisor.footprints import Footprints
from myllm.supervisor.prompt_speeds import PromptSpeeds
from myllm.supervisor.spec_builder import SpecBuilder
from myllm.supervisor.supervisor import Supervisor
from myllm.tls import Tls

# Threads that read the disk; when all are busy, a request that needs one waits a moment.
_THREADS = 2
DESCRIPTION = "A private model server: one supervised llama-server per model, one API."


class App:
    """The server as an ASGI application, and its orderly shutdown."""

    def __init__(
        self, settings: Settings, engine: Engine, access: Access, tls: Tls | None = None
    ) -> None:
        self.settings = settings
        self.tls = tls
        self._access = access
        self._engine = engine
        self._runtime: RuntimeDir | None = None
        self._services: Services | None = None
        self._recent = RecentRequests(CapturedBodies() if settings.capture_bodies else None)
        self._spans = configured_spans()
        self._counts = counts = Counts()
        log = EventLog(shows_traces=self._spans is not None)
        self.observers = Observers(
            RecordKeeping(), log, self._recent, counts.requests, counts.engines
        )
        if self._spans is not None:
            self.observers.attach(self._spans)
        self.asgi = self._build()

    def _build(self) -> ASGIApp:
        app = FastAPI(
            title="MyLLM",
            version=__version__,
            description=DESCRIPTION,
            openapi_url=None,  # `errors/openapi.py` serves it, completed
            docs_url=None,
            redoc_url=None,
            swagger_ui_oauth2_redirect_url=None,
            redirect_slashes=False,  # `PlainPaths` has taken out those that make no difference
            servers=[{"url": self.settings.root_path}] if self.settings.root_path else None,
        )
        handlers.install(app, Options.model_fields)
        openapi.install(app, OPEN_PATHS)
        self._state = app.state
        fast_path = FastPath(app)

        def include(routers: Iterable[APIRouter]) -> None:
            for router in routers:
                app.include_router(router)
                fast_path.add(router)

        async def include_the_rest() -> None:
            include(await asyncio.to_thread(_routers, at_start=False))
            await asyncio.to_thread(_build_routes, app)
            keep_for_good()

        include(_routers(at_start=True))
        app.include_router(health.router)
        app.include_router(docs_page.router)
        _build_routes(app)
        routes: ASGIApp = HeadAsGet(LazyRoutes(fast_path, include_the_rest))
        if self._recent.bodies is not None:
            routes = BodyCapture(routes, self._recent.bodies)
        self._bodies = BodyLimits(routes, self.settings)
        guarded = self._access.guard(self._bodies)
        served: ASGIApp = Turnstile(RequestContext(guarded, self.observers.request_ended))
        # Ollama has OpenAI's and Anthropic's APIs, too, next to its own.
        served = StripPrefix(served, "/ollama", before="/v1/")
        if self.settings.root_path:
            served = StripPrefix(served, self.settings.root_path)
        return PlainPaths(served)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve requests until the context is left.

        Raises StoreFailed or Unavailable when the store cannot be used, and ServeFailed when there
        must be an API key, and is none.
        """
        async with self.services() as self._state.services:
            yield

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Services]:
        """Start every layer; when the context has been left, every engine has ended."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, "myllm"))
        see_all_failures(loop)
        # Shutdown runs in reverse order, and each step runs even if another one fails.
        async with AsyncExitStack() as ending:
            if self._spans is not None:
                ending.push_async_callback(self._spans.close)
            self._runtime = RuntimeDir(self.settings.runtime_dir)
            ending.callback(self._runtime.remove)
            store = SessionStore(self.settings.database())
            ending.push_async_callback(store.close)
            files = KvFiles(self.settings.kv_dir(), store.kv_records, self.settings.kv_cache_mb)
            book = UsageBook(UsageStore(store.database))
            ending.push_async_callback(book.close)
            ending.callback(in_background("writing usage", book.run()).cancel)
            self.observers.attach(book)
            retention = in_background("retention", Retention(store, _limits(self.settings)).run())
            ending.callback(retention.cancel)
            await store.start()
            for task in await self._follow_keys(KeyStore(store.database)):
                ending.callback(task.cancel)
            tidying = in_background("tidying states of conversations", files.tidy())
            ending.push_async_callback(asyncio.wait, {tidying})
            ending.push_async_callback(self.drain_and_stop)
            self._services = self._build_services(self._runtime, store, files, book)
            self._services.gateway.start()
            self._services.activity.start()
            self._services.metrics.polls.start()
            ending.callback(self._services.metrics.polls.stop)
            watch = LoopWatch()
            watch.start()
            ending.callback(watch.stop)
            yield self._services

    async def _follow_keys(self, store: KeyStore) -> list[asyncio.Task[NoReturn]]:
        """Keep the API keys up to date. Raises ServeFailed if there must be one, and is none."""
        if self._access.keys is None:
            return []
        has_keys = sqlite_has_keys(self.settings.database())
        if has_keys is None:
            has_keys = await store.has_any()
        return self._access.keys.follow(store, has_keys)

    def _build_services(
        self, runtime: RuntimeDir, store: SessionStore, files: KvFiles, book: UsageBook
    ) -> Services:
        settings = self.settings
        gpus = open_nvml() if "CUDA" in self._engine.backends else None
        launcher = LocalLauncher(runtime, settings.state_dir / "logs", gpus)
        speeds = PromptSpeeds(settings.state_dir / "prompt-speeds.json")
        supervisor = Supervisor(settings, self._engine, launcher, speeds)
        specs = SpecBuilder(settings, self._engine, speeds, launcher.devices, supervisor.used)
        registry = Registry(settings.models_dir)
        footprints = Footprints(settings.state_dir / "footprints.json", _fit_tool(self._engine))
        planner = Planner(settings, registry, specs, footprints, launcher.devices)
        scheduler = Scheduler(
            planner.budget(),
            queue_timeout_s=settings.queue_timeout,
            queue_size=settings.queue_size,
            drain_grace_s=settings.drain_grace,
        )
        slot_cache = SlotCache(files, specs.speed)
        store.before_removal = slot_cache.forget_session
        gateway = Gateway(registry, supervisor, scheduler, planner, slot_cache, self.observers)
        media = Media(gateway.models.find, _remote_media(settings))
        readiness = Readiness(self._engine.server, store.check)
        logs, reload_access = LogReaders(launcher.logs), self._reload_access
        gpu_readings = gpus.readings if gpus else dict
        metrics = Exporter(gateway, self._counts, launcher.devices, gpu_readings, self._engine)
        activity = Activity.of(gateway, self._recent, gpu_readings)
        return Services(
            settings, gateway, specs, store, book, media, readiness, logs, activity, metrics,
            reload_access, self._access.knows,
        )  # fmt: skip

    async def drain_and_stop(self) -> None:
        """Let running answers finish within the drain grace, then save and stop what is left.

        Both steps together take at most both graces: the second gets what the first left over.
        """
        if self._services is not None:
            gateway, stop_grace_s = self._services.gateway, self.settings.stop_grace
            ends_at = time.monotonic() + self.settings.drain_grace + stop_grace_s
            await gateway.drain(self.settings.drain_grace)
            await gateway.close(ends_at - time.monotonic(), stop_grace_s / 2)
            self._services.activity.close()

    def body_bytes(self) -> int:
        """Size of the bodies of all requests under way."""
        return self._bodies.together

    def reload(self) -> None:
        """Read changed keys and certificates, and replace engines by ones with their models' new
        configuration."""
        self._reload_access()
        if self._services is not None:
            self._services.gateway.reload()

    def _reload_access(self) -> None:
        self._access.reload()
        if self.tls is not None:
            self.tls.reload()

    def abandon(self) -> None:
        """Give up at once: the engines exit when our end of their pipes closes."""
        if self._runtime is not None:
            self._runtime.remove()


def _routers(at_start: bool) -> list[APIRouter]:
    """Return the routers of the dialects that are loaded at the start, or of the others."""
    return [router for each in DIALECTS if each.at_start is at_start for router in each.routers()]


def _build_routes(app: FastAPI) -> None:
    """Have FastAPI build the included routes. The first request would do it otherwise, which blocks
    the event loop for tens of milliseconds."""
    for route in app.router.routes:
        route.matches({"type": "http", "method": "GET", "path": "", "headers": [], "app": app})


def _limits(settings: Settings) -> Limits:
    return Limits(settings.session_max_age, settings.session_max_count, settings.session_max_mb)


def _remote_media(settings: Settings) -> Remote | None:
    """Import the HTTP client for remote media only if needed: it is slow to import."""
    if not settings.remote_media:
        return None
    from myllm.gateway.media.fetch import RemoteMedia

    return RemoteMedia(int(settings.max_body_mb * 2**20))


def _fit_tool(engine: Engine) -> Path | None:
    """The program that predicts memory; an engine from elsewhere may lack it."""
    try:
        return engine.tool("llama-fit-params")
    except EngineMissing:
        return None
