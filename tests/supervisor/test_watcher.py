"""Which silence is a hang, and which is not: real engines, and a gateway that reads slowly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from myllm.engine.engine import Engine
from myllm.errors import EngineDied
from myllm.gateway.engine_io import calls
from myllm.gateway.gateway import Gateway
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.launcher.devices import HOST
from myllm.supervisor import memory_limit
from myllm.supervisor.exit_cause import Death
from myllm.supervisor.hang_rules import EngineActivity
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from myllm.supervisor.watcher import Watcher
from tests.gateway.generation.cutting import running
from tests.hostile.endless import ENDLESS
from tests.serving import suspend

KEY = InstanceKey("demo", "generate")
HANG_S = 0.6
# Enough for the engine to be ahead of who reads, and more than one reading of the socket takes.
BODY = {"prompt": "Numbers:", "n_predict": 400, "temperature": 0, "ignore_eos": True}


@pytest_asyncio.fixture
async def gateway(engine: Engine, home: Path) -> AsyncIterator[Gateway]:
    async with running(engine, home, hang_timeout=HANG_S) as gateway:
        yield gateway


async def read(gateway: Gateway, stall_s: float, stalls: asyncio.Event | None = None) -> int:
    """Events of an answer whose reader stops for a while behind the first one."""
    seen = 0
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        async for events in calls.complete(lease.instance, BODY | {"id_slot": lease.slot}):
            if not seen:
                if stalls is not None:
                    stalls.set()
                await asyncio.sleep(stall_s)
            seen += len(events)
    return seen


async def test_what_an_engine_still_has_when_it_ends_is_not_what_it_takes(gateway: Gateway) -> None:
    """Its memory goes before its process does."""
    watcher = Watcher([], HANG_S, lambda spec: 0.1)
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        instance = lease.instance
        instance.used = {HOST: 1}
        watcher.measure(instance)
        assert instance.used[HOST] > 1
        suspend(psutil.Process(instance.pid))  # so that it does not end too soon
        instance.stop()
        instance.used = {HOST: 1}
        watcher.measure(instance)
        assert instance.used == {HOST: 1}
        psutil.Process(instance.pid).resume()


async def test_a_client_that_stalls_is_no_hang_of_the_engine(gateway: Gateway) -> None:
    whole = await read(gateway, 0)
    assert await read(gateway, 4 * HANG_S) == whole
    assert await read(gateway, 0) == whole
    assert gateway.supervisor.history(KEY).starts == 1


async def test_beside_a_client_that_stalls_a_hang_is_found(gateway: Gateway) -> None:
    stalls = asyncio.Event()
    stalling = asyncio.create_task(read(gateway, 60, stalls))
    await stalls.wait()
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        suspend(psutil.Process(lease.instance.pid))
        with pytest.raises(EngineDied, match="hung: no answer"):
            await calls.tokenize(lease.instance, "one", most=1)
    stalling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stalling


async def stand_still(gateway: Gateway, instance: Instance) -> None:
    """Block the event loop while a probe of `instance` is open, and almost overdue."""
    watcher = gateway.supervisor._watcher
    while instance.run_id not in watcher._watched:
        await asyncio.sleep(0.01)
    monitor, clocks = watcher._watched[instance.run_id]
    monitor.probe(HANG_S)
    await asyncio.sleep(0.01)  # until it is sent
    clocks.advance(0.9 * HANG_S, EngineActivity())
    time.sleep(4 * HANG_S)  # noqa: ASYNC251 - the event loop is to stand still


async def test_time_in_which_nobody_looked_is_not_held_against_an_engine(gateway: Gateway) -> None:
    """As when a machine is suspended: neither the engine nor the server runs."""
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        process = psutil.Process(lease.instance.pid)
        suspend(process)
        asked = asyncio.create_task(calls.tokenize(lease.instance, "one", most=1))
        await stand_still(gateway, lease.instance)
        process.resume()
        assert await asked
        await asyncio.sleep(HANG_S)  # several looks later
        assert not lease.instance.is_over()
    assert gateway.supervisor.history(KEY).starts == 1


async def test_an_engine_that_stays_stopped_behind_a_suspension_is_replaced(
    gateway: Gateway,
) -> None:
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        suspend(psutil.Process(lease.instance.pid))
        asked = asyncio.create_task(calls.tokenize(lease.instance, "one", most=1))
        await stand_still(gateway, lease.instance)
        with pytest.raises(EngineDied, match="hung: no answer"):
            await asked


async def test_an_engine_that_hangs_says_so_as_the_cause_of_its_death(gateway: Gateway) -> None:
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        suspend(psutil.Process(lease.instance.pid))
        with pytest.raises(EngineDied):
            await calls.tokenize(lease.instance, "one", most=1)
        assert lease.instance.death == Death("hung", loading=False)


async def test_one_that_is_caught_in_a_request_whose_client_has_left_is_replaced(
    gateway: Gateway,
) -> None:
    """Although nobody waits for it: the next one would."""
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        instance = lease.instance
        body = BODY | {"id_slot": lease.slot} | ENDLESS["pattern"]
        answer = asyncio.create_task(anext(calls.complete(instance, body)))
        await asyncio.sleep(HANG_S / 3)
        answer.cancel()
    await asyncio.wait_for(instance.ended.wait(), 20)
    assert instance.death == Death("hung", loading=False)


async def test_an_engine_is_left_alone_when_it_has_answered(gateway: Gateway) -> None:
    """Without anything to do it may be swapped out, or suspended by a debugger."""
    assert await read(gateway, 0)
    await asyncio.sleep(HANG_S)
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        instance = lease.instance
    suspend(psutil.Process(instance.pid))
    await asyncio.sleep(4 * HANG_S)
    assert not instance.is_ending()
    psutil.Process(instance.pid).resume()


async def test_an_engine_that_grows_far_beyond_what_was_expected_is_ended(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:
        instance = lease.instance
        assert instance.expected_mb is not None
        assert instance.expected_mb > 1
        monkeypatch.setattr(memory_limit, "_MIB", 1)
        instance.expected_mb = 1
        await asyncio.wait_for(instance.ended.wait(), 60)
        assert instance.death == Death("too large", loading=False)
    assert instance.error is not None
    assert "MiB of memory, where 1 MiB were expected" in instance.error.detail
    async with gateway.lease(RequestInfo().ticket(KEY)) as lease:  # with a prediction of its own
        assert lease.instance.expected_mb is not None
        assert lease.instance.expected_mb > 1
        assert gateway.supervisor.history(KEY).last_error == instance.error.detail


@pytest.mark.parametrize(
    ("taken", "expected", "is_over"),
    [
        (1080, 56, False),
        (1081, 56, True),
        (10_000, 8_000, False),
        (10_001, 8_000, True),
        (10_001, None, False),
    ],
)
def test_what_is_beyond_expectation(taken: int, expected: int | None, is_over: bool) -> None:
    assert (memory_limit.excess(taken, expected) is not None) is is_over
