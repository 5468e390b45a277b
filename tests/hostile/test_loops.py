"""Background work continues after its failures, and no request waits for work that has failed."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from myllm.engine.engine import Engine
from myllm.errors import EngineError, MyLLMError
from myllm.gateway.gateway import Gateway
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running
from tests.hostile.attacks import Others, others_are_served
from tests.serving import Serving, serving, wait_until
from tests.toys import add_toy

KEY = InstanceKey("demo", "generate")


def incidents(api: httpx.Client) -> dict[str, int]:
    found: dict[str, int] = api.get("/health").json()["incidents"]
    return found


@contextmanager
def no_free_file_descriptor(server: Serving, others: Others) -> Iterator[None]:
    """Keep the server from opening files and sockets, once the client of `others` is connected.

    The limit is as low as its standard streams, which it never closes: below any higher limit, a
    descriptor that the server closes would become free, and one is all that its watcher needs.
    """
    wait_until(lambda: bool(others.took_s), 30, "the first /health of the other client")
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_no_free_file_descriptor(engine: Engine, home: Path) -> None:
    """The loops continue, a load fails with the cause, and afterwards everything works again, the
    watcher too: it replaces an engine that hangs."""
    add_toy(home / "models", "other")
    with serving(home, hang_timeout=2) as server, server.client() as api:
        api.post("/api/models/demo/load").raise_for_status()
        with others_are_served(server) as others, no_free_file_descriptor(server, others):
            refused = api.post("/api/models/other/load")
            assert refused.status_code == 500
            assert "Too many open files" in refused.json()["detail"]
            # The watcher fails only at an engine that runs.
            assert api.get("/health").json()["models"].get("demo") == "ready", server.log
            failures, deadline = 0, time.monotonic() + 30
            while failures < 3 and time.monotonic() < deadline:
                failures = incidents(api).get("failed: engine watcher", 0)
                time.sleep(0.1)
        assert failures >= 3, server.log
        assert server.log.count('"work":"engine watcher"') < failures
        api.post("/api/models/other/load").raise_for_status()
        assert set(api.get("/health").json()["models"].values()) == {"ready"}
        stuck = next(each for each in server.engines() if "demo" in each.cmdline())
        stuck.suspend()
        body = {"model": "demo", "prompt": "Hello", "stream": False}
        assert api.post("/api/generate", json=body).status_code == 200
        assert not stuck.is_running()


@pytest_asyncio.fixture
async def gateway(engine: Engine, home: Path) -> AsyncIterator[Gateway]:
    async with running(engine, home) as gateway:
        yield gateway


async def ask(gateway: Gateway) -> None:
    async with asyncio.timeout(30), gateway.lease(RequestInfo().ticket(KEY)):
        pass


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("unforeseen")


@pytest.mark.parametrize(
    "broken", ["supervisor.start", "planner.free", "planner.plan", "scheduler.planned"]
)
async def test_a_request_that_waits_for_failed_work_gets_an_error(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """And the next request is served once the cause is gone."""
    owner, name = broken.split(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(gateway, owner), name, fail)
        with pytest.raises(EngineError, match="Internal error"):
            await ask(gateway)
        state = gateway.scheduler.fleet.model(KEY)
        assert (state.status, state.runs()) == ("absent", [])
        assert "Internal error" in (gateway.supervisor.history(KEY).last_error or "")
    await ask(gateway)


async def test_a_start_that_keeps_failing_backs_off(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.supervisor, "start", fail)
    details = []
    for _ in range(6):
        with pytest.raises(MyLLMError) as failure:
            await ask(gateway)
        details.append(failure.value.detail)
    assert "failed 5 times" in details[-1]


async def test_a_reload_whose_start_fails_keeps_the_old_engine(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(gateway)
    [old] = gateway.supervisor
    with monkeypatch.context() as patch:
        patch.setattr(gateway.supervisor, "start", fail)
        gateway.reload("demo")
        async with asyncio.timeout(30):
            while gateway.scheduler.fleet.model(KEY).planning:
                await asyncio.sleep(0.01)
    await ask(gateway)
    assert [old] == list(gateway.supervisor)


async def test_an_action_that_fails_does_not_stop_the_others(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that frees memory for other models carries out several actions at once."""
    await ask(gateway)
    monkeypatch.setattr(gateway.executor, "_drain", fail)
    async with asyncio.timeout(30):
        await gateway.unload("demo")
    assert not list(gateway.supervisor)


async def test_the_scheduler_keeps_time_while_nothing_can_be_measured(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(engine, home, queue_timeout=1, slots=1) as gateway:
        await ask(gateway)
        monkeypatch.setattr(gateway.planner, "measured", fail)
        async with gateway.lease(RequestInfo().ticket(KEY)):
            with pytest.raises(MyLLMError, match="Waited 1 s"):
                await ask(gateway)


@pytest.mark.more
def test_retention_continues_after_the_database_was_locked(engine: Engine, home: Path) -> None:
    """Retention first runs five seconds after the start."""
    with serving(home, session_max_count=1) as server, server.client() as api:
        for name in ("one", "two"):
            body = {"model": "demo", "session_id": name, "stream": False, "options": {}}
            api.post("/api/chat", json=body | {"messages": [{"role": "user", "content": "Hi"}]})
        with closing(sqlite3.connect(home / "data" / "myllm.db")) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            wait_until(lambda: "failed: retention" in incidents(api), 60, "a failure of retention")
        assert api.get("/health").status_code == 200
