"""Which events an observer sees, and that a broken observer harms nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import structlog

from myllm.engine.engine import Engine
from myllm.errors import EngineDied, MyLLMError, QueueFull
from myllm.gateway.observers.observer import Observer, Observers
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import running

KEY = InstanceKey("demo", "generate")
EVENTS = [name for name in vars(Observer) if not name.startswith("_")]


class Recorder(Observer):
    """Keeps the names of the events, with their subjects."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def names(self, subject: object) -> list[str]:
        return [name for name, of in self.seen if of is subject]

    def queued(self, ticket: Ticket) -> None:
        self.seen.append(("queued", ticket))

    def granted(self, ticket: Ticket, instance: Instance) -> None:
        assert ticket.run == instance.run_id
        self.seen.append(("granted", ticket))

    def first_token(self, ticket: Ticket) -> None:
        self.seen.append(("first_token", ticket))

    def rejected(self, ticket: Ticket, error: MyLLMError) -> None:
        self.seen.append((f"rejected: {type(error).__name__}", ticket))

    def engine_started(self, instance: Instance) -> None:
        self.seen.append(("engine_started", instance))

    def engine_ready(self, instance: Instance) -> None:
        self.seen.append(("engine_ready", instance))

    def engine_exited(self, instance: Instance) -> None:
        self.seen.append(("engine_exited", instance))

    def evicted(self, instance: Instance, beneficiary: InstanceKey) -> None:
        self.seen.append((f"evicted for {beneficiary}", instance))


class Broken(Observer):
    """Raises at each event."""


def _raise(self: Broken, *values: Any) -> None:
    raise RuntimeError("cannot observe")


for name in EVENTS:
    setattr(Broken, name, _raise)


def test_there_is_an_event_for_each_step_of_a_request_and_of_an_engine() -> None:
    requests = {"queued", "granted", "first_token", "finished", "rejected", "resumed"}
    requests.add("request_ended")
    engines = {"engine_started", "engine_ready", "engine_exited", "evicted"}
    assert set(EVENTS) == requests | engines
    assert set(EVENTS) <= vars(Observers).keys()


def test_a_broken_observer_is_logged_once_and_the_next_one_is_told() -> None:
    recorder, ticket = Recorder(), RequestInfo().ticket(KEY)
    observers = Observers(Broken(), recorder)
    with structlog.testing.capture_logs() as log:
        for _ in range(3):
            observers.queued(ticket)
            observers.resumed(ticket, EngineDied("gone"))
    assert recorder.names(ticket) == ["queued"] * 3
    assert [each["work"] for each in log] == ["observer Broken"]


async def test_the_life_of_requests_and_of_an_engine(engine: Engine, home: Path) -> None:
    recorder = Recorder()
    async with running(engine, home, slots=1, queue_size=1) as gateway:
        gateway.observers.attach(Broken())
        gateway.observers.attach(recorder)
        first, waiting, refused = (RequestInfo().ticket(KEY) for _ in range(3))
        async with asyncio.timeout(30), gateway.lease(RequestInfo().ticket(KEY)):
            pass
        async with asyncio.timeout(30), gateway.lease(first) as lease:
            instance = lease.instance
            gateway.delivered(lease, first)
            second = asyncio.create_task(gateway.lease(waiting).__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(QueueFull):
                async with gateway.lease(refused):
                    pass
            second.cancel()
            await asyncio.wait({second})
        assert instance.pid is not None
        os.kill(instance.pid, signal.SIGKILL)
        await asyncio.wait_for(instance.ended.wait(), 10)
    loading = recorder.seen[:4]
    assert [name for name, _ in loading] == ["queued", "engine_started", "engine_ready", "granted"]
    assert recorder.names(first) == ["granted", "first_token"]
    assert recorder.names(waiting) == ["queued"]
    assert recorder.names(refused) == ["rejected: QueueFull"]
    assert recorder.names(instance) == ["engine_started", "engine_ready", "engine_exited"]


async def test_an_eviction_names_the_model_that_gets_the_memory(engine: Engine, home: Path) -> None:
    recorder = Recorder()
    async with running(engine, home, max_loaded_models=1) as gateway:
        gateway.observers.attach(recorder)
        demo = gateway.registry.get("demo")
        folder = home / "models" / "other"
        folder.mkdir(parents=True)
        (folder / "other.gguf").write_bytes(demo.gguf.read_bytes())
        await asyncio.wait_for(gateway.load("demo"), 30)
        [instance] = gateway.supervisor
        await asyncio.wait_for(gateway.load("other"), 30)
    assert recorder.names(instance)[2:] == ["evicted for other", "engine_exited"]
