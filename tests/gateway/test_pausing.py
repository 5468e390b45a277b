"""An answer whose client does not read gives its slot to a waiting request, and goes on later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from myllm.engine.engine import Engine
from myllm.gateway.client import Client
from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.completion import Generation
from myllm.gateway.generation.deltas import StreamedAnswer, delta_of
from myllm.gateway.generation.events import Token
from myllm.gateway.generation.multi_choice import FanOut
from myllm.gateway.generation.relay import Relay
from myllm.gateway.scheduling import rejections
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.instance import Instance
from tests.gateway.generation.cutting import running
from tests.gateway.generation.test_completion import COUNT, GREEDY, KEY, chat_prompt

ANN, BOB = (RequestInfo(Client(owner=name, fair_id=name)) for name in ("ann", "bob"))
MESSAGES = [{"role": "user", "content": COUNT}]
OPENAI = {name: value for name, value in GREEDY.items() if name != "n_predict"}
SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "minLength": 80}}}
WAIT_S = 60.0

Pieces = AsyncGenerator[str, None]


@pytest_asyncio.fixture
async def gateway(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """One slot, and little patience with clients that do not read."""
    monkeypatch.setattr(rejections, "UNREAD_S", 0.1)
    async with running(engine, home, slots=1) as gateway:
        yield gateway


async def generated(gateway: Gateway) -> Pieces:
    async def build_prompt(instance: Instance) -> list[int]:
        return await chat_prompt(instance, COUNT)

    generation = Generation(gateway, ANN.ticket(KEY), dict(GREEDY), build_prompt)
    async with aclosing(generation.events()) as events:
        async for event in events:
            if isinstance(event, Token):
                yield event.text


async def relayed(gateway: Gateway, path: str, **body: Any) -> Pieces:
    relay = Relay(gateway, ANN.ticket(KEY), path, OPENAI | body)
    async with aclosing(relay.blocks()) as blocks:
        async for block in blocks:
            yield "".join(delta_of(relay.form, event).text for event in events_in(block))


def chat(gateway: Gateway) -> Pieces:
    return relayed(gateway, "/v1/chat/completions", messages=MESSAGES)


def constrained(gateway: Gateway) -> Pieces:
    body = {"messages": MESSAGES, "response_format": SCHEMA, "max_tokens": 60}
    return relayed(gateway, "/v1/chat/completions", **body)


def plain(gateway: Gateway) -> Pieces:
    return relayed(gateway, "/completion", prompt="Once upon a time", n_predict=200)


async def several(gateway: Gateway) -> Pieces:
    body = OPENAI | {"messages": MESSAGES, "stream_options": {"include_usage": True}}
    relays = [Relay(gateway, ANN.ticket(KEY), "/v1/chat/completions", body) for _ in range(2)]
    saids = [StreamedAnswer("chat"), StreamedAnswer("chat")]
    async with aclosing(FanOut(relays, 2, tells_usage=False).blocks()) as blocks:
        async for block in blocks:
            for event in events_in(block):
                for choice in event["choices"]:
                    saids[choice["index"]].add(delta_of("chat", event))
            yield ""
    for said in saids:
        yield said.text


KINDS: list[Callable[[Gateway], Pieces]] = [generated, chat, constrained, plain, several]


async def short(gateway: Gateway, info: RequestInfo = BOB) -> str:
    async def build_prompt(instance: Instance) -> str:
        return "Once"

    generation = Generation(gateway, info.ticket(KEY), GREEDY | {"n_predict": 2}, build_prompt)
    events = [event async for event in generation.events()]
    return "".join(event.text for event in events if isinstance(event, Token))


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_paused_for_another_one_and_goes_on(
    gateway: Gateway, kind: Callable[[Gateway], Pieces]
) -> None:
    whole = "".join([piece async for piece in kind(gateway)])
    assert whole
    async with aclosing(kind(gateway)) as pieces:
        text = await anext(pieces)
        assert await asyncio.wait_for(short(gateway), WAIT_S)
        assert text + "".join([piece async for piece in pieces]) == whole
    assert gateway.scheduler.totals() == (0, 0)


async def test_it_keeps_its_slot_while_no_request_waits(gateway: Gateway) -> None:
    async with aclosing(chat(gateway)) as pieces:
        await anext(pieces)
        await asyncio.sleep(1.5)
        assert gateway.scheduler.totals() == (0, 1)


async def test_its_client_may_leave_while_it_is_paused(gateway: Gateway) -> None:
    async with aclosing(generated(gateway)) as pieces:
        await anext(pieces)
        await asyncio.wait_for(short(gateway), WAIT_S)
        assert gateway.scheduler.totals() == (0, 0)
    assert await asyncio.wait_for(short(gateway), WAIT_S)
    assert gateway.scheduler.totals() == (0, 0)


@pytest.mark.parametrize("kind", [generated, chat])
async def test_its_client_may_read_at_the_moment_in_which_it_is_paused(
    gateway: Gateway, kind: Callable[[Gateway], Pieces]
) -> None:
    """Before and after each step of the pause."""
    whole = "".join([piece async for piece in kind(gateway)])
    for steps in range(6):
        async with aclosing(kind(gateway)) as pieces:
            text = await anext(pieces)
            waiting = asyncio.create_task(short(gateway))
            while not any(lease.is_paused for lease in gateway.executor.leases.values()):
                await asyncio.sleep(0)
            for _ in range(steps):
                await asyncio.sleep(0)
            assert text + "".join([piece async for piece in pieces]) == whole
            await asyncio.wait_for(waiting, WAIT_S)
    assert gateway.scheduler.totals() == (0, 0)
