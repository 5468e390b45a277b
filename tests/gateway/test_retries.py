"""Work under a lease is done again when its engine dies, but not for ever."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from myllm.errors import EngineDied, ModelReplaced, Poison
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.observers.observer import Observer, Observers
from myllm.gateway.retries import require_same_model, with_retries
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey

TICKET_KEY = InstanceKey("demo", "embed")


class World(Observer):
    """A gateway whose first `deaths` engines die; it keeps what its observers see."""

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths
        self.seen: list[object] = []
        self.observers = Observers(self)
        self.ticket = RequestInfo().ticket(TICKET_KEY)

    @asynccontextmanager
    async def lease(self, ticket: Ticket) -> AsyncGenerator[Lease, None]:
        yield Lease(cast(Any, None), 0)

    def delivered(self, lease: Lease, ticket: Ticket) -> None:
        self.seen.append("delivered")

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        self.seen.append(ticket.deaths)

    def finished(self, ticket: Ticket, error: BaseException | None) -> None:
        self.seen.append(error)

    async def work(self, lease: Lease) -> str:
        self.deaths -= 1
        if self.deaths >= 0:
            raise EngineDied("gone")
        return "done"


async def run(world: World) -> str:
    return await with_retries(cast(Gateway, world), world.ticket, world.work)


async def test_two_deaths_are_survived() -> None:
    world = World(2)
    assert await run(world) == "done"
    assert world.seen == [1, 2, "delivered", None]


async def test_the_third_death_is_raised() -> None:
    world = World(3)
    with pytest.raises(EngineDied) as caught:
        await run(world)
    assert world.seen == [1, 2, 3, caught.value]


async def test_the_scheduler_s_verdict_is_raised_instead() -> None:
    world = World(1)
    world.ticket.verdict = Poison("demo")
    with pytest.raises(Poison) as caught:
        await run(world)
    assert world.seen == [caught.value]


def test_an_answer_goes_on_only_with_the_model_that_began_it() -> None:
    model = SimpleNamespace(digest="one")
    instance = cast(Instance, SimpleNamespace(spec=SimpleNamespace(key=TICKET_KEY, model=model)))
    require_same_model(None, instance)
    require_same_model("one", instance)
    with pytest.raises(ModelReplaced):
        require_same_model("two", instance)
