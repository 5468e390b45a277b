"""What an engine's end leaves behind, also when something on the way raises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from myllm.engine.engine import Engine
from tests.gateway.generation.cutting import running


def broken(*_: object) -> None:
    raise RuntimeError("cannot be saved")


async def test_an_end_is_accounted_for_whatever_raises(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(engine, home) as gateway:
        for _ in range(2):
            await asyncio.wait_for(gateway.load("demo"), 20)
            with monkeypatch.context() as patched:
                patched.setattr(gateway.planner, "save", broken)
                patched.setattr(gateway.supervisor.speeds, "save", broken)
                patched.setattr(gateway.slot_cache, "forget_run", broken)
                await asyncio.wait_for(gateway.unload("demo"), 20)
                assert list(gateway.supervisor) == []
            assert not gateway.scheduler.is_loaded("demo")


async def test_a_lease_ends_whatever_raises(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(engine, home) as gateway:
        monkeypatch.setattr(gateway.slot_cache, "release_slot", broken)
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(gateway.load("demo"), 20)
        assert gateway.scheduler.totals() == (0, 0)


async def test_time_goes_on_after_a_tick_that_failed(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(engine, home, keep_alive=0.5) as gateway:
        measured, failures = gateway.planner.measured, iter([None])

        def fails_once(*what: object) -> object:
            if next(failures, what) is None:
                raise RuntimeError("cannot be measured")
            return measured(*what)  # type: ignore[arg-type]

        await asyncio.wait_for(gateway.load("demo"), 20)
        monkeypatch.setattr(gateway.planner, "measured", fails_once)
        async with asyncio.timeout(20):
            while list(gateway.supervisor):
                await asyncio.sleep(0.05)
        assert next(failures, "called") == "called"
