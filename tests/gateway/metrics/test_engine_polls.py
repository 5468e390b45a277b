"""Engines are asked for their own metrics without any effect on their lives or on requests."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from myllm.engine.engine import Engine
from myllm.gateway.gateway import Gateway
from myllm.gateway.metrics.engine_polls import EnginePolls
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running

KEY = InstanceKey("demo", "generate")


async def answered(polls: EnginePolls) -> None:
    await polls.ask()
    async with asyncio.timeout(20):
        while KEY not in polls.answers():
            await asyncio.sleep(0.01)


async def loaded(gateway: Gateway, keep_alive_s: float | None = None) -> Instance:
    await asyncio.wait_for(gateway.load("demo", RequestInfo(keep_alive_s=keep_alive_s)), 60)
    [instance] = gateway.supervisor
    return instance


async def test_questions_count_neither_as_requests_nor_as_signs_of_life(
    engine: Engine, home: Path
) -> None:
    async with running(engine, home) as gateway:
        instance = await loaded(gateway)
        polls = EnginePolls(gateway.supervisor)
        before = instance.requests, instance.signs, instance.last_used_at
        await answered(polls)
        assert (instance.requests, instance.signs, instance.last_used_at) == before
        assert not instance.has_work()
        assert not instance.is_expected()
        found = polls.answers()[KEY]
        assert b"llamacpp:prompt_tokens_total" in found.metrics
        assert found.slots.startswith(b"[{")
        polls.stop()


async def test_an_idle_engine_is_unloaded_although_it_is_asked(engine: Engine, home: Path) -> None:
    async with running(engine, home) as gateway:
        instance = await loaded(gateway, keep_alive_s=0.5)
        polls = EnginePolls(gateway.supervisor)
        async with asyncio.timeout(20):
            while not instance.is_over():
                await polls.ask()
                await asyncio.sleep(0.05)
        assert instance.stop_reason == "idle"
        await polls.ask()
        assert not polls.answers()


async def test_an_engine_without_requests_since_is_not_asked_again(
    engine: Engine, home: Path
) -> None:
    async with running(engine, home) as gateway:
        instance = await loaded(gateway)
        polls = EnginePolls(gateway.supervisor)
        await answered(polls)
        first = polls.answers()[KEY]
        await polls.ask()
        await asyncio.sleep(0.2)
        assert polls.answers()[KEY] is first
        await instance.client.get("/health", 5)
        await polls.ask()
        async with asyncio.timeout(20):
            while polls.answers()[KEY] is first:
                await asyncio.sleep(0.01)
        polls.stop()


async def test_a_hanging_engine_holds_up_neither_the_questions_nor_a_stop(
    engine: Engine, home: Path
) -> None:
    async with running(engine, home) as gateway:
        instance = await loaded(gateway)
        polls = EnginePolls(gateway.supervisor)
        assert instance.pid is not None
        os.kill(instance.pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                await asyncio.wait_for(polls.ask(), 1)
            assert not polls.answers()
            polls.stop()
        finally:
            os.kill(instance.pid, signal.SIGCONT)
        async with asyncio.timeout(20), gateway.lease(RequestInfo().ticket(KEY)):
            pass


async def test_a_dead_engine_has_no_answers(engine: Engine, home: Path) -> None:
    async with running(engine, home) as gateway:
        instance = await loaded(gateway)
        polls = EnginePolls(gateway.supervisor)
        await answered(polls)
        assert instance.pid is not None
        os.kill(instance.pid, signal.SIGKILL)
        await polls.ask()
        await asyncio.wait_for(instance.ended.wait(), 20)
        assert not polls.answers()  # at once, not only when the engines are asked the next time
