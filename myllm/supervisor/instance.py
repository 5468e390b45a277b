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
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from myllm.errors import EngineDied, EngineError
from myllm.launcher.base import ChildState, EngineProcess, Launcher, LaunchSpec
from myllm.launcher.devices import HOST
from myllm.supervisor.engine_client import EngineClient
from myllm.supervisor.exit_cause import Cause, Death, lacks_memory, last_words
from myllm.supervisor.readiness import until_ready
from myllm.supervisor.spec import InstanceSpec

State = Literal["loading", "ready", "draining", "stopped", "failed"]
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Hooks:
    """What the owner of an instance does at the steps of its life.

    `before_ready` is awaited when the engine has loaded, before it serves requests; it must not
    raise and must end soon. `on_ready` and `on_exit` are called once at most, in this order, from
    `Instance.run`.
    """

    before_ready: Callable[[Instance], Awaitable[None]]
    on_ready: Callable[[Instance], None]
    on_exit: Callable[[Instance], None]


class Instance:
    """A llama-server from its start to its end; `run_id` names this life of it.

    `used` is what it really takes, in MiB per device; `expected_mb` is the prediction of what it
    takes of the machine's own memory, or None if there is none. `death` is why it ended without
    being asked to; it is set before any of its requests learns that it failed, and stays None for
    an engine that was stopped, could not be run or was not ready in time. `delivered`: a client
    has received a token of it. `takes_tools`: its chat template has a place for tools; None until
    that was asked. `warnings` say how its model's folder differs from what it was started with.
    `stop_reason` is why it was asked to stop; empty until then.
    """

    def __init__(
        self,
        run: int,
        spec: InstanceSpec,
        launch: LaunchSpec,
        launcher: Launcher,
        hooks: Hooks,
        *,
        load_timeout_s: float,
        stop_grace_s: float,
        expected_mb: int | None = None,
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
        self._hooks = hooks
        self._reported_ready = asyncio.Event()
        self._stop_wanted = asyncio.Event()
        self._process: EngineProcess | None = None
        self._client: EngineClient | None = None

    @property
    def name(self) -> str:
        """The name of its log."""
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
        """HTTP to this engine; only while there is a process. Raises EngineError otherwise."""
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
        """End the process at once, unless it is being stopped already; `what` completes "the engine
        of model X"."""
        if not self._stop_wanted.is_set():
            self.death = Death(cause, loading=self.ready_at is None)
            self._verdict = EngineDied(f"the engine of model '{self.spec.key}' {what}")
            self._stop_wanted.set()

    def has_loaded(self) -> None:
        """Expect what it takes now, if that is more than was predicted: the prediction leaves out
        the buffers of a projector."""
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
        """Whether a load or a request waits for it."""
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
        self._hooks.on_ready(self)

    @property
    def load_seconds(self) -> float:
        """How long the load took; 0 before it is over."""
        return self.ready_at - self.started_at if self.ready_at else 0.0

    async def _end(self, exited: asyncio.Task[int] | None) -> None:
        """Close the connections, then the process: a stream in flight delays its SIGTERM."""
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
            self._hooks.on_exit(self)

    def _take_report(self, report: ChildState) -> None:
        self.sign_of_life()
        if report.state == "loading" and report.progress is not None:
            self.progress = max(self.progress, report.progress)
        elif report.state == "ready":
            self._reported_ready.set()

    async def _become_ready(self) -> None:
        if not await until_ready(self.client, self._reported_ready, self._load_timeout_s):
            raise EngineError(
                f"the engine of model '{self.spec.key}' was not ready after "
                f"{self._load_timeout_s:g} s (MYLLM_LOAD_TIMEOUT)" + last_words(self._process)
            )
        await self._hooks.before_ready(self)

    def _died(self, code: int) -> EngineError:
        """The error for a process that ended by itself, with what it printed."""
        self.death = Death.by_itself(code, loading=self.ready_at is None)
        what = f"the engine of model '{self.spec.key}' {self.death.words()}"
        if self.death.loading:
            return EngineError(what + last_words(self._process))
        cause = self._process.cause() if self._process else None
        return EngineDied(what + (f": {cause}" if cause else ""))

    @property
    def crashed(self) -> bool:
        """Whether it was killed, rather than exiting with a reason."""
        return self.death is not None and self.death.is_crash

    @property
    def lacks_memory(self) -> bool:
        """Whether it ended because it could not get the memory that it needed."""
        return self.error is not None and lacks_memory(self.error.detail)
