"""One Instance is one process life; a restart is a new object.

    loading ──> ready ──> draining ──> stopped     it was asked to leave
       │          │           │
       └──────────┴───────────┴──────> failed      it could not start, or died by itself

`run` is the only writer of `state` but for `drain`, and always ends in `stopped` or `failed`
with the process reaped.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import httpx
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from myllm.errors import EngineDied, EngineError
from myllm.launcher.base import ChildState, EngineProcess, Launcher, LaunchSpec
from myllm.launcher.devices import HOST
from myllm.supervisor.engine_client import EngineClient
from myllm.supervisor.exit_cause import Cause, Death
from myllm.supervisor.spec import InstanceSpec

State = Literal["loading", "ready", "draining", "stopped", "failed"]
_log = structlog.get_logger(__name__)
_HEALTH_EVERY_S = 0.1
_HEALTH_TIMEOUT_S = 2.0
# llama.cpp's and the C++ library's words for it.
_NO_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cannot allocate|bad_alloc", re.IGNORECASE
)


class _NotYet(Exception):
    """The engine does not answer, or says that it is still loading."""


class Instance:
    """A llama-server from its start to its end; `run_id` names this life of it.

    `before_ready` is awaited when the engine has loaded, before it serves anybody; it must not
    raise and must end soon.
    `on_ready` and `on_exit` are called once at most, in this order, from `run`. `used` is what
    it really takes, in MiB per device; `expected_mb` is what it should take of the machine's own
    memory, as predicted, or None if nobody knows. `death` is why it ended although nobody had
    asked it to; it is there before any of its requests learns that it failed, and stays None of
    an engine that was stopped, could not be run or was not ready in time. `delivered` says that a
    client has had a token of it. `takes_tools` is whether its chat template has a place for
    tools, or None until that was asked. `warnings` say what of its model's folder is no longer
    what it was started with. `stop_reason` is why it was asked to stop; empty until then.
    """

    def __init__(
        self,
        run: int,
        spec: InstanceSpec,
        launch: LaunchSpec,
        launcher: Launcher,
        *,
        load_timeout_s: float,
        stop_grace_s: float,
        expected_mb: int | None = None,
        before_ready: Callable[[Instance], Awaitable[None]],
        on_ready: Callable[[Instance], None],
        on_exit: Callable[[Instance], None],
    ) -> None:
        self.run_id = run
        self.spec = spec
        self.state: State = "loading"
        self.progress = 0.0
        self.started_at = time.time()
        self.ready_at: float | None = None
        self.used: dict[str, int] = {}
        self.expected_mb = expected_mb
        self.last_used_at = self.started_at
        self.error: EngineError | None = None
        self.death: Death | None = None
        self.delivered = False
        self.takes_tools: bool | None = None
        self.warnings: tuple[str, ...] = ()
        self.ended = asyncio.Event()
        self._launch = launch
        self.signs = 0
        self._verdict: EngineDied | None = None
        self._launcher = launcher
        self._load_timeout_s = load_timeout_s
        self._stop_grace_s = stop_grace_s
        self.stop_reason = ""
        self._before_ready = before_ready
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._said_ready = asyncio.Event()
        self._stop_wanted = asyncio.Event()
        self._process: EngineProcess | None = None
        self._client: EngineClient | None = None

    @property
    def name(self) -> str:
        """What its log is called."""
        return self._launch.name

    def __repr__(self) -> str:
        return f"<Instance {self.spec.key} {self.state} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        """The process id that the launcher reports, for people."""
        return self._process.pid if self._process else None

    @property
    def process(self) -> EngineProcess | None:
        """The launched engine; None before it is launched."""
        return self._process

    @property
    def client(self) -> EngineClient:
        """HTTP towards this engine; only while it is ready or draining."""
        if self._client is None:
            raise EngineError(f"the engine of model '{self.spec.key}' is not running")
        return self._client

    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.state in ("stopped", "failed")

    def is_ending(self) -> bool:
        """Whether the process is being stopped, or has ended."""
        return self._stop_wanted.is_set() or self.is_over()

    def drain(self) -> None:
        """Mark that no new request may come; `stop` follows when the running ones are done."""
        if self.state == "ready":
            self.state = "draining"

    def stop(self, grace_s: float = math.inf, *, reason: str = "stopped") -> None:
        """Ask `run` to end the process, whatever it is doing; the log gives the first `reason`.

        SIGKILL follows SIGTERM after the usual grace, or after `grace_s` if that is less.
        """
        self.stop_reason = self.stop_reason or reason
        self._stop_grace_s = min(self._stop_grace_s, grace_s)
        self._stop_wanted.set()

    def declare_dead(self, cause: Cause, what: str) -> None:
        """End the process at once, because it `what`, unless it is being stopped already."""
        if not self._stop_wanted.is_set():
            self.death = Death(cause, loading=self.ready_at is None)
            self._verdict = EngineDied(f"the engine of model '{self.spec.key}' {what}")
            self._stop_wanted.set()

    def has_loaded(self) -> None:
        """What it takes now is what it needs, where that is more than was predicted, which leaves
        out what a projector computes with."""
        if self.expected_mb is not None:
            self.expected_mb = max(self.expected_mb, self.used.get(HOST, 0))

    def has_work(self) -> bool:
        """Whether it loads or has requests to answer."""
        requests = self._client.open_requests if self._client is not None else 0
        return self.state == "loading" or requests > 0

    def sign_of_life(self) -> None:
        """A token has come, or progress; `signs` counts them."""
        self.signs += 1

    @property
    def requests(self) -> int:
        """How many requests it has been sent so far."""
        return self._client.requests if self._client is not None else 0

    def is_expected(self) -> bool:
        """Whether somebody waits for it to do something."""
        return self.state == "loading" or (self._client is not None and self._client.is_busy())

    async def run(self) -> None:
        """Live one life: start, load, serve until asked to stop or dead, stop."""
        stop_wanted = asyncio.create_task(self._stop_wanted.wait())
        exited: asyncio.Task[int] | None = None
        try:
            self._process = await self._launcher.start(self._launch, self._take_report)
            exited = asyncio.create_task(self._process.wait())
            self._client = EngineClient(self._process.connect)
            ready = asyncio.create_task(self._become_ready())
            try:
                await asyncio.wait({ready, exited, stop_wanted}, return_when="FIRST_COMPLETED")
                if not stop_wanted.done():
                    self._serve_or_fail(ready, exited)
                    await asyncio.wait({exited, stop_wanted}, return_when="FIRST_COMPLETED")
                    if not stop_wanted.done():
                        raise self._died(exited.result())
            finally:
                ready.cancel()
            if self._verdict is not None:
                raise self._verdict
            self.state = "stopped"
        except EngineError as failure:
            self.error = failure
            self.state = "failed"
        except Exception:  # noqa: BLE001 - an end without a reason would be followed by a restart
            self.error = EngineError("Internal error; the server's log has the details")
            self.state = "failed"
            _log.exception("engine failed in an unforeseen way", model=str(self.spec.key))
        finally:
            stop_wanted.cancel()
            await self._end(exited)

    def _serve_or_fail(self, ready: asyncio.Task[None], exited: asyncio.Task[int]) -> None:
        """Become ready, or raise why the engine did not."""
        if exited.done():
            raise self._died(exited.result())
        ready.result()
        self.state = "ready"
        self.progress = 1.0
        self.ready_at = time.time()
        self._on_ready(self)

    @property
    def load_seconds(self) -> float:
        """How long the load took; 0 before it is over."""
        return self.ready_at - self.started_at if self.ready_at else 0.0

    async def _end(self, exited: asyncio.Task[int] | None) -> None:
        """Close the upstream connections, then the process: a stream in flight delays TERM."""
        try:
            try:
                if self._client is not None:
                    self._client.close()
            finally:
                if self._process is not None:
                    await self._process.stop(0 if self._verdict else self._stop_grace_s)
        finally:
            if exited is not None:
                exited.cancel()
            if not self.is_over():
                self.state = "stopped"
            self.ended.set()
            self._on_exit(self)

    def _take_report(self, report: ChildState) -> None:
        self.sign_of_life()
        if report.state == "loading" and report.progress is not None:
            self.progress = max(self.progress, report.progress)
        elif report.state == "ready":
            self._said_ready.set()

    async def _become_ready(self) -> None:
        await self._until_ready()
        await self._before_ready(self)

    async def _until_ready(self) -> None:
        """Return when the engine said that it is ready or `/health` did, whichever is first.

        Raises EngineError when neither did within the load timeout.
        """
        said = asyncio.create_task(self._said_ready.wait())
        polled = asyncio.create_task(self._poll_health())
        try:
            done, _ = await asyncio.wait(
                {said, polled}, timeout=self._load_timeout_s, return_when="FIRST_COMPLETED"
            )
        finally:
            said.cancel()
            polled.cancel()
        if not done:
            raise EngineError(
                f"the engine of model '{self.spec.key}' was not ready after "
                f"{self._load_timeout_s:g} s (MYLLM_LOAD_TIMEOUT)" + self._words()
            )

    async def _poll_health(self) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((_NotYet, httpx.TransportError)),
            wait=wait_fixed(_HEALTH_EVERY_S),
            stop=stop_after_delay(self._load_timeout_s * 2),  # _until_ready's bound is first
        ):
            with attempt:
                answer = await self.client.get("/health", _HEALTH_TIMEOUT_S)
                if answer.status != 200:
                    raise _NotYet

    def _died(self, code: int) -> EngineError:
        """Why the process ended by itself, in its own words."""
        self.death = Death.by_itself(code, loading=self.ready_at is None)
        what = f"the engine of model '{self.spec.key}' {self.death.words()}"
        if self.death.loading:
            return EngineError(what + self._words())
        cause = self._process.cause() if self._process else None
        return EngineDied(what + (f": {cause}" if cause else ""))

    @property
    def crashed(self) -> bool:
        """Whether it was killed rather than saying why it leaves."""
        return self.death is not None and self.death.is_crash

    @property
    def lacks_memory(self) -> bool:
        """Whether it ended because it could not have the memory it needed."""
        return self.error is not None and bool(_NO_MEMORY.search(self.error.detail))

    def _words(self) -> str:
        """What the engine said on why it does not start."""
        if self._process is None:
            return ""
        cause = self._process.cause()
        if cause:
            return f": {cause}"
        tail = [line for line in self._process.tail() if line.strip()]
        return f"; it last said: {tail[-1].strip()}" if tail else "; it said nothing"
