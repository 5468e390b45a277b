"""The slot cache on a real engine: what is saved, restored and forgotten."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from myllm.api.shared.dependencies import Services
from myllm.engine.engine import Engine
from myllm.errors import EngineDied, InvalidRequest
from myllm.gateway.client import Client
from myllm.gateway.engine_io import calls
from myllm.gateway.generation.answers import ChatAnswer
from myllm.gateway.generation.chat_job import ChatJob, SessionTurn
from myllm.gateway.generation.events import Finished
from myllm.gateway.kv import saving
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.models.gguf_header import Header
from myllm.sessions.history import Message
from myllm.sessions.session import SessionRef
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running_services
from tests.recurrent_and_sliding import write_recurrent, write_sliding

LONG = "MyLLM keeps conversations and their memory. " * 40


@pytest_asyncio.fixture
async def services(engine: Engine, home: Path) -> AsyncIterator[Services]:
    async with running_services(engine, home, slots=1) as services:
        yield services


async def say(
    services: Services,
    session: str,
    text: str,
    model: str = "demo",
    json_schema: Any = None,
    **options: Any,
) -> Finished:
    job = ChatJob(
        await services.gateway.models.find(model),
        SessionTurn([Message("user", text)], session),
        {"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 16} | options,
        json_schema=json_schema,
    )
    answer = ChatAnswer(
        services.gateway,
        services.sessions,
        RequestInfo(Client(owner="local")),
        job,
        streamed=True,
        session_timeout_s=10,
    )
    async for event in answer.events():
        if isinstance(event, Finished):
            return event
    raise AssertionError("no end")


def results(services: Services) -> dict[str, int]:
    """How often a restore had each result, whatever the model."""
    return {result: n for (_, result), n in services.gateway.slot_cache.restores().items()}


def saved(services: Services) -> list[Path]:
    return sorted((services.settings.data_dir / "kv").glob("*.kv"))


async def test_a_session_that_is_removed_while_it_is_saved_leaves_nothing(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, begun, go_on = calls.save_slot, asyncio.Event(), asyncio.Event()

    async def slow(instance: Instance, slot: int, name: str) -> int:
        begun.set()
        await go_on.wait()
        return await save(instance, slot, name)

    monkeypatch.setattr(calls, "save_slot", slow)
    await say(services, "s", LONG)
    other = asyncio.create_task(say(services, "t", "hello"))  # takes the only slot
    await begun.wait()
    removal = asyncio.create_task(services.sessions.remove(SessionRef("local", "s")))
    await asyncio.wait({removal}, timeout=0.1)
    go_on.set()
    await asyncio.gather(removal, other)
    assert saved(services) == []
    records = await services.sessions.kv_records("any folder")
    assert await records.of_session(SessionRef("local", "s")) == []


async def test_a_failed_request_does_not_count_as_an_ignored_restore(services: Services) -> None:
    await say(services, "s", LONG)
    for number in range(2):
        await services.gateway.unload("demo")
        with pytest.raises(InvalidRequest):
            await say(services, "s", "hello", json_schema={"type": "nonsense"})
        await say(services, f"t{number}", "hello")
    [instance] = services.gateway.supervisor
    assert services.gateway.slot_cache.restore_problem(instance.spec) is None


async def test_an_engine_that_dies_during_a_restore_costs_no_file(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(services, "s", LONG)
    await services.gateway.unload("demo")
    restore = calls.restore_slot

    async def dying(instance: Instance, slot: int, name: str) -> int:
        monkeypatch.setattr(calls, "restore_slot", restore)
        raise EngineDied("killed")

    monkeypatch.setattr(calls, "restore_slot", dying)
    await say(services, "s", "hello")
    assert len(saved(services)) == 1
    assert results(services) == {"failed": 1}


async def test_each_restore_is_counted_with_its_result(services: Services) -> None:
    await say(services, "s", LONG)
    assert results(services) == {}  # a session that begins has nothing to restore
    await services.gateway.unload("demo")
    await say(services, "s", "hello")
    assert results(services) == {"restored": 1}
    await say(services, "other", LONG)
    assert results(services) == {"restored": 1, "shared": 1}
    await services.gateway.unload("demo")
    for file in saved(services):
        file.unlink()
    await say(services, "s", "hello again")
    assert results(services) == {"restored": 1, "shared": 1, "missing": 1}


async def test_a_save_after_a_turn_waits_for_other_answers(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine answers no request while it saves a slot."""
    monkeypatch.setattr(saving, "_SAVE_AFTER_S", 0.05)
    async with running_services(engine, home, slots=2) as services:
        async with services.gateway.lease(RequestInfo().ticket(InstanceKey("demo", "generate"))):
            await say(services, "s", LONG)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one_saved(services), 0.3)
        await asyncio.wait_for(one_saved(services), 10)


async def one_saved(services: Services) -> None:
    while not saved(services):
        await asyncio.sleep(0.02)


SHORT = "These are some words. " * 20


@pytest.fixture
def small_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these models have read is saved, although it is read again in no time."""
    monkeypatch.setattr(saving, "_WORTH_S", 0)


async def cached_after_an_unload(services: Services, model: str, session: str) -> int:
    await services.gateway.unload(model)
    return (await say(services, session, "And then?", model)).usage.cached_tokens


@pytest.mark.usefixtures("small_is_worth_it")
async def test_a_recurrent_model_goes_on_from_an_exact_state(engine: Engine, home: Path) -> None:
    write_recurrent(home / "models" / "mamba" / "mamba.gguf")
    async with running_services(engine, home, slots=1) as services:
        first = await say(services, "s", SHORT, "mamba")
        assert first.usage.cached_tokens == 0
        live = await say(services, "s", "And then?", "mamba")
        assert live.usage.cached_tokens > 400
        assert await cached_after_an_unload(services, "mamba", "s") > live.usage.cached_tokens


@pytest.mark.usefixtures("small_is_worth_it")
async def test_a_recurrent_state_beyond_its_answer_is_not_saved(engine: Engine, home: Path) -> None:
    """A stop string: its state cannot go back before it. Nor does that switch anything off."""
    write_recurrent(home / "models" / "mamba" / "mamba.gguf")
    async with running_services(engine, home, slots=1) as services:
        whole = (await say(services, "exact", SHORT, "mamba")).full_text
        stop = re.findall(r"[!-~]{2}", whole)[0]  # of two tokens, the first of which is read
        for number in range(3):
            cut = await say(services, f"s{number}", SHORT, "mamba", stop=[stop])
            assert len(cut.full_text) < len(whole)
            assert await cached_after_an_unload(services, "mamba", f"s{number}") < 400
        await say(services, "t", SHORT, "mamba")
        assert await cached_after_an_unload(services, "mamba", "t") > 400


@pytest.mark.usefixtures("small_is_worth_it")
async def test_a_sliding_window_keeps_its_slot_but_no_file(engine: Engine, home: Path) -> None:
    write_sliding(home / "models" / "gemma" / "gemma.gguf")
    async with running_services(engine, home, slots=1) as services:
        await say(services, "s", SHORT, "gemma")
        assert (await say(services, "s", "And then?", "gemma")).usage.cached_tokens > 400
        assert await cached_after_an_unload(services, "gemma", "s") == 0
        assert saved(services) == []


@pytest.mark.usefixtures("small_is_worth_it")
async def test_restoring_stops_on_an_engine_that_ignores_it(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with a sliding window whose header does not reveal it."""
    monkeypatch.setattr(Header, "state_problem", None)
    write_sliding(home / "models" / "gemma" / "gemma.gguf")
    async with running_services(engine, home, slots=1) as services:
        await say(services, "s", SHORT, "gemma")
        problems = []
        for _ in range(3):
            await cached_after_an_unload(services, "gemma", "s")
            [instance] = services.gateway.supervisor
            problems.append(services.gateway.slot_cache.restore_problem(instance.spec))
        ignored = "the engine did not use the states that were read back"
        assert problems == [None, ignored, ignored]
        assert results(services) == {"restored": 2, "unused": 2}
