"""What slots remember, saved and forgotten, on a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from myllm.api.services import Services
from myllm.engine.types import Engine
from myllm.errors import EngineDied, InvalidRequest
from myllm.gateway import upstream
from myllm.gateway.answer import ChatAnswer
from myllm.gateway.events import Finished
from myllm.gateway.tickets import Asking
from myllm.sessions.history import Message
from myllm.supervisor.instance import Instance
from tests.gateway.cutting import running_services

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
    answer = ChatAnswer(
        services.gateway,
        Asking(),
        services.sessions,
        "local",
        model,
        [Message("user", text)],
        session,
        {"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 16} | options,
        json_schema,
        streamed=True,
        session_timeout_s=10,
    )
    async for event in answer.events():
        if isinstance(event, Finished):
            return event
    raise AssertionError("no end")


def saved(services: Services) -> list[Path]:
    return sorted((services.settings.data_dir / "kv").glob("*.kv"))


async def test_a_session_that_is_removed_while_it_is_saved_leaves_nothing(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, begun, go_on = upstream.save_slot, asyncio.Event(), asyncio.Event()

    async def slow(instance: Instance, slot: int, name: str) -> int:
        begun.set()
        await go_on.wait()
        return await save(instance, slot, name)

    monkeypatch.setattr(upstream, "save_slot", slow)
    await say(services, "s", LONG)
    other = asyncio.create_task(say(services, "t", "hello"))  # takes the only slot
    await begun.wait()
    removal = asyncio.create_task(services.sessions.remove("local", "s"))
    await asyncio.wait({removal}, timeout=0.1)
    go_on.set()
    await asyncio.gather(removal, other)
    assert saved(services) == []
    records = await services.sessions.kv_records("any folder")
    assert await records.of_session("local", "s") == []


async def test_a_request_that_failed_proves_nothing_about_restoring(services: Services) -> None:
    await say(services, "s", LONG)
    for number in range(2):
        await services.gateway.unload("demo")
        with pytest.raises(InvalidRequest):
            await say(services, "s", "hello", json_schema={"type": "nonsense"})
        await say(services, f"t{number}", "hello")
    [instance] = services.gateway.supervisor
    assert services.gateway.conversations.problem(instance.spec) is None


async def test_an_engine_that_dies_while_it_reads_a_state_costs_no_file(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(services, "s", LONG)
    await services.gateway.unload("demo")
    restore = upstream.restore_slot

    async def dying(instance: Instance, slot: int, name: str) -> int:
        monkeypatch.setattr(upstream, "restore_slot", restore)
        raise EngineDied("killed")

    monkeypatch.setattr(upstream, "restore_slot", dying)
    await say(services, "s", "hello")
    assert len(saved(services)) == 1
