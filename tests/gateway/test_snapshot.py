"""What a snapshot shows of a gateway, and that the layers above read nothing else."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import myllm
from myllm.engine.engine import Engine
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running

KEY = InstanceKey("demo", "generate")
PACKAGE = Path(myllm.__file__).parent


async def test_a_snapshot_shows_an_engine_and_its_requests(engine: Engine, home: Path) -> None:
    async with running(engine, home, slots=1, keep_alive=60) as gateway:
        assert gateway.snapshot().models == ()
        await asyncio.wait_for(gateway.load("demo"), 30)
        idle = gateway.snapshot()
        async with gateway.lease(RequestInfo().ticket(KEY)):
            waiting = asyncio.create_task(gateway.lease(RequestInfo().ticket(KEY)).__aenter__())
            await asyncio.sleep(0)
            busy = gateway.snapshot()
            waiting.cancel()
            await asyncio.wait({waiting})
        [model], [instance] = idle.models, gateway.supervisor
        [shown] = model.engines
        assert (model.key, model.restarts, model.crashes, model.backoff_s) == (KEY, 0, 0, 0)
        assert (shown.run_id, shown.pid, shown.spec) == (
            instance.run_id,
            instance.pid,
            instance.spec,
        )
        assert (shown.state, shown.is_ready, shown.takes_requests) == ("ready", True, True)
        assert (shown.progress, shown.keep_alive_s) == (1.0, 60)
        assert shown.load_s > 0
        assert shown.expires_at is not None
        assert 50 < shown.expires_at - time.time() <= 60
        assert (idle.queued, idle.active) == (0, 0)
        assert (busy.queued, busy.active) == (1, 1)
        [answering] = busy.engines("demo")
        assert (answering.busy_slots, answering.expires_at) == (1, None)
        assert list(busy.engines("other")) == []
        await gateway.unload("demo")
        assert list(gateway.snapshot().engines()) == []


async def test_a_model_is_unloaded_then_loading_then_loaded(engine: Engine, home: Path) -> None:
    async with running(engine, home) as gateway:
        assert gateway.snapshot().status("demo") == "unloaded"
        loading = asyncio.create_task(gateway.load("demo"))
        seen = set()
        while not loading.done():
            seen.add(gateway.snapshot().status("demo"))
            await asyncio.sleep(0)
        assert seen - {"loaded"} == {"unloaded", "loading"}, "unloaded until the file is read"
        assert gateway.snapshot().status("demo") == "loaded"
        await gateway.unload("demo")
        assert gateway.snapshot().status("demo") == "unloaded"


async def test_a_snapshot_does_not_change(engine: Engine, home: Path) -> None:
    async with running(engine, home) as gateway:
        await asyncio.wait_for(gateway.load("demo"), 30)
        snapshot = gateway.snapshot()
        [shown] = snapshot.engines()
        for frozen, name in (
            (snapshot, "draining"),
            (snapshot.models[0], "queued"),
            (shown, "pid"),
        ):
            with pytest.raises(FrozenInstanceError):
                setattr(frozen, name, None)
        [instance] = gateway.supervisor
        used = dict(shown.used_mb)
        instance.used["host"] = 1
        assert shown.used_mb == used


def test_nothing_outside_the_gateway_reads_the_scheduler() -> None:
    reads = re.compile(r"\.scheduler\.|\.fleet\b")
    outside = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "gateway" not in path.parents]
    assert [path for path in outside if reads.search(path.read_text())] == []
