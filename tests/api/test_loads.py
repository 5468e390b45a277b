"""A load is the caller's in the queue, in each dialect that has one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from myllm.api.http.streaming import DeferredJson
from myllm.api.native.models import load_model
from myllm.api.native.schemas import LoadRequest
from myllm.api.ollama.routes import chat, generate
from myllm.api.ollama.schemas import OllamaChatRequest, OllamaGenerateRequest
from myllm.engine.engine import Engine
from myllm.gateway.client import Client
from myllm.gateway.observers.observer import Observer
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from tests.gateway.generation.cutting import running

LOADS: dict[str, Callable[[Any, Client], Awaitable[Any]]] = {
    "native": lambda services, client: load_model(
        "demo", services, client, LoadRequest(keep_alive=60)
    ),
    "ollama generate": lambda services, client: generate(
        OllamaGenerateRequest(model="demo", keep_alive=60), services, client
    ),
    "ollama chat": lambda services, client: chat(
        OllamaChatRequest(model="demo", messages=[], keep_alive=60), services, client
    ),
}


class Queue(Observer):
    """Keeps what requests wait."""

    def __init__(self) -> None:
        self.requests: list[RequestInfo] = []

    def queued(self, ticket: Ticket) -> None:
        self.requests.append(ticket.request)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
async def test_a_load_waits_as_its_caller(
    engine: Engine, home: Path, load: Callable[[Any, Client], Awaitable[Any]]
) -> None:
    queue, ann = Queue(), Client("key:ann", "ann", "ann", max_priority=-5)
    async with running(engine, home) as gateway:
        gateway.observers.attach(queue)
        answer = await load(SimpleNamespace(gateway=gateway), ann)
        assert isinstance(answer, DeferredJson)
        assert (await asyncio.wait_for(answer.make(), 60)).status_code == 200
    assert queue.requests == [RequestInfo(ann, keep_alive_s=60)]
