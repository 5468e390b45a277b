"""A slot goes from one session to a request of another, which may leave before it has the slot."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from myllm.api.shared.dependencies import Services
from myllm.gateway.engine_io import calls
from myllm.supervisor.instance import Instance
from tests.gateway.kv.test_slot_cache import LONG, one_saved, saved, say, services

__all__ = ["services"]  # the fixture: one slot
WAIT_S = 30.0


@asynccontextmanager
async def suspended(services: Services) -> AsyncIterator[None]:
    """Suspend the only engine, so that a save lasts as long as the context."""
    [instance] = services.gateway.supervisor
    assert instance.pid is not None
    os.kill(instance.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(instance.pid, signal.SIGCONT)


@pytest.fixture
def begins(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when an engine is asked to save a slot."""
    save, begins = calls.save_slot, asyncio.Event()

    async def told(instance: Instance, slot: int, name: str) -> int:
        begins.set()
        return await save(instance, slot, name)

    monkeypatch.setattr(calls, "save_slot", told)
    return begins


async def leaves_during_the_save(services: Services, begins: asyncio.Event) -> None:
    """A request gets the slot, and leaves while the conversation before it is being saved."""
    other = asyncio.create_task(say(services, "t", "hello"))
    await asyncio.wait_for(begins.wait(), WAIT_S)
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other


async def test_a_save_goes_on_when_the_next_request_leaves(
    services: Services, begins: asyncio.Event
) -> None:
    await say(services, "s", LONG)
    async with suspended(services):
        await leaves_during_the_save(services, begins)
        assert saved(services) == []
    await asyncio.wait_for(one_saved(services), WAIT_S)
    await services.gateway.unload("demo")
    again = await say(services, "s", "And then?")
    assert again.usage.cached_tokens > 300


async def test_the_session_still_has_its_slot(services: Services, begins: asyncio.Event) -> None:
    """Nothing is read back, because nothing has been overwritten."""
    await say(services, "s", LONG)
    async with suspended(services):
        await leaves_during_the_save(services, begins)
    for file in saved(services):
        file.unlink()
    again = await say(services, "s", "And then?")
    assert again.usage.cached_tokens > 300


async def test_a_third_request_waits_for_the_save(
    services: Services, begins: asyncio.Event
) -> None:
    await say(services, "s", LONG)
    async with suspended(services):
        await leaves_during_the_save(services, begins)
        third = asyncio.create_task(say(services, "u", "hello"))
        await asyncio.sleep(0.1)
        assert not third.done()
    assert (await third).usage.cached_tokens < 300
    assert len(saved(services)) == 1
    assert (await say(services, "s", "And then?")).usage.cached_tokens > 300


async def test_an_engine_that_ends_waits_for_the_save(
    services: Services, begins: asyncio.Event
) -> None:
    await say(services, "s", LONG)
    async with suspended(services):
        await leaves_during_the_save(services, begins)
        unloading = asyncio.create_task(services.gateway.unload("demo"))
        await asyncio.sleep(0.1)
    await unloading
    assert len(saved(services)) == 1
    assert (await say(services, "s", "And then?")).usage.cached_tokens > 300


async def test_a_request_that_leaves_early_does_not_change_what_the_scheduler_knows_of_the_slot(
    services: Services, begins: asyncio.Event
) -> None:
    """The scheduler sends the conversation back to where it was."""
    await say(services, "s", LONG)
    [instance] = services.gateway.supervisor
    run = services.gateway.scheduler.fleet.run(instance.run_id)
    assert run is not None
    before = [(slot.session, slot.pieces) for slot in run.slots]
    async with suspended(services):
        await leaves_during_the_save(services, begins)
    assert [(slot.session, slot.pieces) for slot in run.slots] == before
