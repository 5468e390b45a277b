"""The states of an answer that survives its engines, on engines that follow a script."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from myllm.errors import EngineDied, ModelReplaced, PromptTooLong
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.generation.replay import Diverged
from myllm.gateway.generation.survival import (
    NEXT,
    Resumable,
    State,
    SurvivingAnswer,
    can_be_continued,
)
from myllm.gateway.observers.observer import Observer, Observers
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.gateway.usage import Usage
from myllm.supervisor.spec import InstanceKey

TEXT = "abcdefgh"
KEY = InstanceKey("demo", "generate")
DIE, PAUSE, DIVERGE, FULL, STOP = "die", "pause", "diverge", "full", "stop"
# Whether a state is legal when nothing has been sent (False) and when something has (True).
HAS_SENT: dict[State, set[bool]] = {
    "waiting": {False, True},
    "preparing": {False, True},
    "reading": {False},
    "replaying": {True},
    "continuing": {True},
    "writing": {True},
    "complete": {False, True},
}

Step = tuple[int, str | None]
"""After how many letters an engine does what; None: it completes the answer."""


class World(Observer):
    """A gateway whose engines follow `steps`, one engine after another."""

    def __init__(self, *steps: Step, may_continue: bool = True) -> None:
        self.steps = [*steps, (len(TEXT), None)]
        self.may_continue = may_continue
        self.digests: list[str] = []
        self.observers = Observers(self)
        self.supervisor = SimpleNamespace(speeds=SimpleNamespace(learns=lambda _: False))
        self.lease_now: Lease | None = None
        self.deaths = 0
        self.ends: list[BaseException | None] = []
        self.cut_short = self.completed = 0

    @asynccontextmanager
    async def lease(self, ticket: Ticket) -> AsyncGenerator[Lease, None]:
        model = SimpleNamespace(digest=self.digests.pop(0) if self.digests else "one")
        spec = SimpleNamespace(key=KEY, model=model, speed_key="")
        self.lease_now = Lease(cast(Any, SimpleNamespace(spec=spec, process=None)), 0)
        yield self.lease_now

    def delivered(self, lease: Lease, ticket: Ticket) -> None:
        ticket.deaths = 0

    def phase(self, ticket: Ticket) -> str:
        return "queued 1"

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        self.deaths += 1

    def finished(self, ticket: Ticket, error: BaseException | None) -> None:
        self.ends.append(error)


class Letters(Resumable[str]):
    """An answer of one letter per block."""

    def __init__(self, world: World, replays: bool = True) -> None:
        self.world = world
        self.replays = replays
        self.sent = ""
        self.at = 0
        self.step: Step = (0, None)

    async def open(self, lease: Lease, decode_s: float) -> AsyncGenerator[str, None] | None:
        if self.sent == TEXT:
            return None
        self.at = 0
        self.step = self.world.steps.pop(0)
        if self.sent:
            replays = self.replays or not self.world.may_continue
            self.attempt = "replaying" if replays else "continuing"
            self.at = 0 if replays else len(self.sent)
        return self.engine(TEXT[self.at :])

    async def engine(self, letters: str) -> AsyncGenerator[str, None]:
        count, action = self.step
        for letter in letters[:count]:
            yield letter
        if action == DIE:
            raise EngineDied("gone")
        if action == FULL:
            raise PromptTooLong(9, 8)

    def take(self, block: str) -> Sequence[str]:
        self.at += 1
        if self.at <= len(self.sent):
            if self.step[1] == DIVERGE:
                raise Diverged
            return ()
        self.sent += block
        return (block,)

    def is_complete(self) -> bool:
        return self.sent == TEXT or self.sent.endswith("!")

    def after_cut(self) -> Letters:
        return self

    def continue_instead(self) -> bool:
        self.replays = False
        return self.world.may_continue

    def ends_at_context_limit(self) -> bool:
        if self.sent:
            self.sent += "!"
        return bool(self.sent)

    async def completed(self, instance: object) -> None:
        self.world.completed += 1

    def cut_short(self, instance: object) -> None:
        self.world.cut_short += 1

    def counts(self) -> tuple[Usage, str | None]:
        return Usage(0, len(self.sent)), "stop" if self.sent == TEXT else None

    def last_parts(self) -> Sequence[str]:
        return (".",)


class Watched(SurvivingAnswer[str]):
    """Checks each state that it enters, and keeps them."""

    def __init__(self, world: World, replays: bool = True) -> None:
        self.seen: list[State] = []
        gateway, ticket = cast(Gateway, world), RequestInfo().ticket(KEY)
        self.letters = Letters(world, replays)
        super().__init__(gateway, ticket, self.letters)

    def _enter(self, state: State) -> None:
        assert state in NEXT[self.state]
        assert bool(self.letters.sent) in HAS_SENT[state]
        self.seen.append(state)
        super()._enter(state)


async def run(world: World, answer: Watched) -> str:
    """What the client gets; it pauses where a step says so."""
    text = ""
    async with aclosing(answer.parts()) as parts:
        async for part in parts:
            text += part
            count, action = answer.letters.step
            if action == PAUSE and answer.letters.at >= count and part != ".":
                assert world.lease_now is not None
                world.lease_now.pause(lambda: None)
                await asyncio.sleep(0)
    return text


async def states(world: World, replays: bool = True) -> tuple[str, list[State]]:
    answer = Watched(world, replays)
    text = await run(world, answer)
    return text, answer.seen


async def test_an_undisturbed_answer() -> None:
    world = World()
    assert await states(world) == (TEXT + ".", ["preparing", "reading", "writing", "complete"])
    assert (world.deaths, world.completed, world.cut_short, world.ends) == (0, 1, 0, [None])


@pytest.mark.parametrize(("replays", "attempt"), [(True, "replaying"), (False, "continuing")])
@pytest.mark.parametrize("action", [DIE, PAUSE, STOP])
async def test_an_answer_goes_on_after_a_cut(action: str, replays: bool, attempt: State) -> None:
    """STOP: the engine ends the stream too early, which counts as a death."""
    world = World((3, action))
    text, seen = await states(world, replays)
    assert text == TEXT + "."
    first: list[State] = ["preparing", "reading", "writing", "waiting"]
    assert seen == [*first, "preparing", attempt, "writing", "complete"]
    assert (world.deaths, world.cut_short) == ((0, 1) if action == PAUSE else (1, 0))
    assert (world.completed, world.ends) == (1, [None])


async def test_a_replay_that_diverges_is_continued_and_no_death() -> None:
    world = World((3, DIE), (8, DIVERGE), (2, DIE))
    text, seen = await states(world)
    assert text == TEXT + "."
    assert [state for state in seen if state not in ("preparing", "waiting")] == [
        "reading", "writing", "replaying", "continuing", "writing", "continuing", "writing",
        "complete",
    ]  # fmt: skip
    assert world.deaths == 2


async def test_a_replay_that_diverges_fails_where_the_answer_cannot_be_continued() -> None:
    world = World((3, DIE), (8, DIVERGE), may_continue=False)
    with pytest.raises(EngineDied, match="in other words") as caught:
        await states(world)
    assert world.ends == [caught.value]


async def test_the_third_death_without_new_text_ends_it() -> None:
    with pytest.raises(EngineDied, match="gone"):
        await states(World((3, DIE), (3, DIE), (1, DIE)))
    text, _ = await states(World((3, DIE), (3, DIE), (4, DIE), (0, DIE)))
    assert text == TEXT + "."


async def test_a_death_behind_the_last_letter_is_none() -> None:
    world = World((8, DIE))
    text, seen = await states(world)
    assert (text, seen[-3:]) == (TEXT + ".", ["writing", "waiting", "complete"])
    assert (world.deaths, world.ends) == (0, [None])


async def test_a_full_context_ends_an_answer_but_not_one_that_has_not_begun() -> None:
    world = World((3, DIE), (0, FULL))
    assert (await states(world, replays=False))[0] == "abc."
    with pytest.raises(PromptTooLong):
        await states(World((0, FULL)))


async def test_another_model_does_not_go_on_with_an_answer() -> None:
    world = World((3, DIE))
    world.digests = ["one", "two"]
    with pytest.raises(ModelReplaced):
        await states(world)
    world = World((0, DIE))
    world.digests = ["one", "two"]
    assert (await states(world))[0] == TEXT + "."


async def test_a_client_that_leaves_is_noted_while_the_slot_is_held() -> None:
    world = World()
    async with aclosing(Watched(world).parts()) as parts:
        await anext(parts)
    assert world.cut_short == 1
    [end] = world.ends
    assert isinstance(end, GeneratorExit)


async def test_every_letter_is_sent_once_whatever_happens() -> None:
    for seed in range(500):
        chance = random.Random(seed)
        actions = [DIE, PAUSE, DIVERGE, STOP]
        steps = [(chance.randrange(9), chance.choice(actions)) for _ in range(4)]
        world = World(*steps, may_continue=chance.random() < 0.7)
        answer = Watched(world, replays=chance.random() < 0.5)
        text = ""
        with suppress(EngineDied):
            text = await run(world, answer)
        [end] = world.ends
        assert text == (TEXT + "." if end is None else ""), steps
        assert TEXT.startswith(answer.letters.sent)


@pytest.mark.parametrize(
    ("fields", "continues"),
    [
        ({"tools": [], "grammar": "", "logprobs": False, "n_probs": 0}, True),
        ({"temperature": 1.0, "stop": ["x"], "response_format": None}, True),
        ({"json_schema": {}}, False),
        ({"grammar": 'root ::= "x"'}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"tools": [{}]}, False),
        ({"logprobs": True}, False),
        ({"n_probs": 2}, False),
    ],
)
def test_what_tokens_do_not_carry_over(fields: dict[str, Any], continues: bool) -> None:
    assert can_be_continued(fields) == continues
