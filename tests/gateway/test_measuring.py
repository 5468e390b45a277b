"""What a model is remembered to take, over lives that ended in one way or another."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from myllm.engine.engine import Engine
from myllm.gateway.gateway import Gateway
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running

KEY = InstanceKey("demo", "generate")


async def held_while_loading(gateway: Gateway) -> Instance:
    """An engine that is suspended before it has read its model."""
    async with asyncio.timeout(20):
        while True:
            for instance in gateway.supervisor:
                if instance.pid is not None:
                    os.kill(instance.pid, signal.SIGSTOP)
                    assert instance.state == "loading"
                    return instance
            await asyncio.sleep(0)


async def test_a_load_that_was_cut_off_says_nothing_about_a_models_size(
    engine: Engine, home: Path
) -> None:
    async with running(engine, home) as gateway:
        predicted = (await gateway.planner.plan(KEY)).need
        loading = asyncio.create_task(gateway.load("demo"))
        instance = await held_while_loading(gateway)
        assert instance.process is not None
        instance.used = instance.process.memory_mb()
        assert instance.used["host"] < predicted["host"]
        instance.stop()
        await instance.ended.wait()
        assert (await gateway.planner.plan(KEY)).need == predicted
        await loading


async def test_an_engine_that_serves_is_charged_with_what_it_has_come_to_take(
    engine: Engine, home: Path
) -> None:
    async with running(engine, home) as gateway:
        predicted = (await gateway.planner.plan(KEY)).need
        await gateway.load("demo")
        [instance] = gateway.supervisor
        memory = gateway.scheduler.fleet.memory
        charged = memory.charge(instance.run_id)
        assert charged.keys() == predicted.keys()
        # Its first prompts were read before it served anybody, so some MiB more may be in use.
        assert all(charged[device] >= predicted[device] for device in predicted)
        grown = predicted["host"] + 1000
        async with asyncio.timeout(10):
            while memory.taken()["host"] != grown:
                instance.used = {"host": grown}
                await asyncio.sleep(0.05)
