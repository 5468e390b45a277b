"""Readiness looks rarely, and bounds the wait of its callers and of its looks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from myllm.api.shared import readiness
from myllm.api.shared.readiness import NO_ENGINE, NO_STORE, UNKNOWN, Readiness
from myllm.errors import StoreFailed

ENGINE = Path(sys.executable)


class Store:
    """Counts its readers; `answers` lets them go on."""

    def __init__(self) -> None:
        self.reads = 0
        self.answers = asyncio.Event()

    async def read(self) -> None:
        self.reads += 1
        await self.answers.wait()


async def broken() -> None:
    raise StoreFailed("at /secret/path")


async def test_one_look_serves_all_that_ask() -> None:
    store = Store()
    store.answers.set()
    ready = Readiness(ENGINE, store.read)
    for _ in range(100):
        assert await asyncio.gather(*(ready.missing() for _ in range(10))) == [()] * 10
    assert store.reads == 1


async def test_an_old_look_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH_S", 0.0)
    store = Store()
    store.answers.set()
    ready = Readiness(ENGINE, store.read)
    assert (await ready.missing(), await ready.missing()) == ((), ())
    assert store.reads == 2


async def test_callers_do_not_wait_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_WAIT_S", 0.01)
    store = Store()
    ready = Readiness(ENGINE, store.read)
    for _ in range(3):
        assert await ready.missing() == (UNKNOWN,)
    assert store.reads == 1
    store.answers.set()
    await asyncio.sleep(0.1)
    assert await ready.missing() == ()


async def test_a_store_that_hangs_for_long_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_LOOK_S", 0.01)
    assert await Readiness(ENGINE, Store().read).missing() == (NO_STORE,)


async def test_all_that_is_missing_is_named_and_no_path_is(tmp_path: Path) -> None:
    missing = await Readiness(tmp_path / "llama-server", broken).missing()
    assert missing == (NO_ENGINE, NO_STORE)
