"""An answer that was cut and continued is the same as one that was not."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from myllm.engine.engine import Engine
from myllm.errors import EngineDied, Unavailable
from myllm.gateway.embedding import embed
from myllm.gateway.engine_io import calls
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.chat_route import EngineChat, chat_body
from myllm.gateway.generation.completion import Generation
from myllm.gateway.generation.events import Finished, Token
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey
from tests.gateway.generation.cutting import WHILE_READING, Cutter, running

KEY = InstanceKey("demo", "generate")
COUNT, STORY, EMOJI = "Count to one hundred.", "Tell me a long story.", "Show me some emoji."
GREEDY = {"temperature": 0, "repeat_penalty": 1.0, "seed": 5, "n_predict": 512}
MANY_SCRIPTS = "日本語🙂 x🚀é안녕 ok"


@pytest_asyncio.fixture
async def gateway(engine: Engine, home: Path) -> AsyncIterator[Gateway]:
    async with running(engine, home) as gateway:
        yield gateway


@pytest.fixture
def cutter(monkeypatch: pytest.MonkeyPatch) -> Cutter:
    return Cutter(monkeypatch)


def ask(gateway: Gateway, build_prompt: Any, **fields: Any) -> Generation:
    return Generation(gateway, RequestInfo().ticket(KEY), GREEDY | fields, build_prompt)


async def chat_prompt(instance: Instance, question: str) -> list[int]:
    text = await calls.apply_template(
        instance, {"messages": [{"role": "user", "content": question}]}
    )
    return (await calls.tokenize(instance, text, most=1000)).ids


async def as_it_is(instance: Instance) -> str:
    return COUNT


async def answer(
    gateway: Gateway, question: str, raw: bool = False, **fields: Any
) -> tuple[list[str], Finished]:
    """The texts of an answer, which must make up the whole, and its end."""

    async def build_prompt(instance: Instance) -> str | list[int]:
        return question if raw else await chat_prompt(instance, question)

    *tokens, end = [event async for event in ask(gateway, build_prompt, **fields).events()]
    assert isinstance(end, Finished)
    texts = [token.text for token in tokens if isinstance(token, Token)]
    assert "".join(texts) == end.full_text
    return texts, end


async def same_when_cut(
    gateway: Gateway, cutter: Cutter, cuts: list[list[int]], question: str, **fields: Any
) -> Finished:
    """Ask undisturbed, then with each of `cuts`; the answers must be the same."""
    _, whole = await answer(gateway, question, **fields)
    for each in cuts:
        cutter.cuts = list(each)
        _, end = await answer(gateway, question, **fields)
        assert not cutter.cuts
        assert (end.full_text, end.finish_reason) == (whole.full_text, whole.finish_reason), each
        for name in ("prompt_tokens", "completion_tokens"):
            assert getattr(end.usage, name) == getattr(whole.usage, name), each
    return whole


def every(first: int, last: int, step: int = 1) -> list[list[int]]:
    return [[cut] for cut in range(first, last + 1, step)]


async def test_cuts_at_every_event_of_an_answer_with_emoji(
    gateway: Gateway, cutter: Cutter
) -> None:
    texts, whole = await answer(gateway, EMOJI)
    assert whole.usage.completion_tokens > len(texts) + 1, "characters of several tokens"
    await same_when_cut(gateway, cutter, every(1, len(texts) + 1), EMOJI)


@pytest.mark.parametrize("penalty", [1.0, 1.1])
@pytest.mark.parametrize("question", [COUNT, STORY])
@pytest.mark.more
async def test_cuts_at_many_events_of_long_answers(
    gateway: Gateway, cutter: Cutter, question: str, penalty: float
) -> None:
    texts, _ = await answer(gateway, question, repeat_penalty=penalty)
    last = len(texts)
    cuts = [*every(1, last, 37), [last - 1], [last], [last + 1], [3, 50, 1, 70]]
    await same_when_cut(gateway, cutter, cuts, question, repeat_penalty=penalty)


async def test_a_cut_after_tokens_that_came_together(gateway: Gateway) -> None:
    """The reader takes its time, until the next tokens come in one block."""
    _, whole = await answer(gateway, COUNT)
    tokens: list[Token] = []
    together = False
    async for event in ask(gateway, lambda instance: chat_prompt(instance, COUNT)).events():
        if isinstance(event, Token):
            tokens.append(event)
            if not (together or event.more):
                await asyncio.sleep(0.02)
            elif not together:
                together = True
                [instance] = gateway.supervisor
                os.kill(instance.pid or 0, signal.SIGKILL)
    assert together
    assert isinstance(event, Finished)
    assert event == whole
    assert "".join(token.text for token in tokens) == whole.full_text
    assert not tokens[-1].more


async def test_a_prompt_that_is_text(gateway: Gateway, cutter: Cutter) -> None:
    prompt = f"<|user|>{COUNT}<|end|><|assistant|>"
    whole = await same_when_cut(gateway, cutter, [[1], [40], [7, 7]], prompt, raw=True)
    assert whole.full_text.startswith("1, 2, 3")


async def test_a_stop_string_split_by_the_cut(gateway: Gateway, cutter: Cutter) -> None:
    whole = await same_when_cut(gateway, cutter, every(1, 20), COUNT, stop=["6, 7"])
    assert (whole.full_text, whole.finish_reason) == ("1, 2, 3, 4, 5, ", "stop")
    # One that begins, but is never completed.
    whole = await same_when_cut(
        gateway, cutter, every(1, 22, 3), COUNT, stop=["6, 8"], n_predict=20
    )
    assert whole.finish_reason == "length"
    # The last token of all is held back as the beginning of one.
    for limit in (13, 14):
        await same_when_cut(
            gateway, cutter, every(limit - 2, limit), COUNT, stop=["6, 8"], n_predict=limit
        )


async def test_cuts_in_text_of_many_scripts(gateway: Gateway, cutter: Cutter) -> None:
    cutter.forced = MANY_SCRIPTS
    texts, _ = await answer(gateway, COUNT)
    whole = await same_when_cut(
        gateway, cutter, [*every(1, len(texts) + 1), [9, 4, 2], [2, 2, 2]], COUNT
    )
    assert whole.full_text == MANY_SCRIPTS


async def test_text_held_back_until_the_very_end(gateway: Gateway, cutter: Cutter) -> None:
    """The token that ends the answer then has an event with text that is not its own."""
    texts, whole = await answer(gateway, COUNT, stop=["0.\n"])
    assert whole.full_text.endswith("100.")
    assert texts[-1].endswith("0.")
    last = whole.usage.completion_tokens
    await same_when_cut(gateway, cutter, every(last - 3, last), COUNT, stop=["0.\n"])


async def test_a_cut_after_the_last_token_needs_no_other_engine(
    gateway: Gateway, cutter: Cutter
) -> None:
    cutter.cuts = [20]
    texts, end = await answer(gateway, COUNT, n_predict=20)
    assert (end.finish_reason, end.usage.completion_tokens) == ("length", 20)
    assert len(texts) == 20
    assert gateway.supervisor.history(KEY).starts == 1
    await same_when_cut(gateway, cutter, [[19], [18, 1]], COUNT, n_predict=20)


async def test_a_context_that_is_full(engine: Engine, home: Path, cutter: Cutter) -> None:
    async with running(engine, home, context_size=128, slots=2) as gateway:
        whole = await same_when_cut(gateway, cutter, [[100]], COUNT)
        assert whole.finish_reason == "length"
        produced = whole.usage.completion_tokens
        assert produced + whole.usage.prompt_tokens >= 128
        await same_when_cut(gateway, cutter, every(produced - 2, produced), COUNT)


@pytest.mark.parametrize(
    "constraint",
    [
        {"grammar": f'root ::= "{MANY_SCRIPTS}"'},
        {"json_schema": {"enum": [{"seven": [7, "seven"], "true": True}]}},
    ],
    ids=["grammar", "schema"],
)
async def test_an_answer_that_cannot_be_continued_is_replayed(
    gateway: Gateway, cutter: Cutter, constraint: dict[str, Any]
) -> None:
    texts, _ = await answer(gateway, COUNT, **constraint)
    cuts = [*every(1, len(texts) + 1), [9, 4, 12]]
    whole = await same_when_cut(gateway, cutter, cuts, COUNT, **constraint)
    assert MANY_SCRIPTS in whole.full_text or "seven" in whole.full_text


async def test_a_replay_that_diverges(gateway: Gateway, cutter: Cutter) -> None:
    cutter.cuts = [6]
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 30}
    random = {"temperature": 2.0, "min_p": 0, "top_k": 0, "top_p": 1, "json_schema": numbers}
    said = []

    async def collect() -> None:
        async for event in ask(gateway, as_it_is, **random).events():
            said.append(event)
            cutter.seed = 77

    with pytest.raises(EngineDied, match="in other words") as caught:
        await collect()
    assert len(said) == 6
    assert caught.value.retryable


async def test_a_random_answer_goes_on(gateway: Gateway, cutter: Cutter) -> None:
    fields = {"temperature": 1.0, "n_predict": 60}
    whole, _ = await answer(gateway, STORY, **fields)
    cutter.cuts = [15]
    texts, end = await answer(gateway, STORY, **fields)
    assert texts[:15] == whole[:15]
    assert end.usage.completion_tokens <= 60


async def test_an_answer_leaves_no_cycles(gateway: Gateway) -> None:
    """With a long conversation, freeing them would take the event loop some milliseconds."""

    class Builder:
        """Builds the prompt, and would hold the conversation."""

        async def __call__(self, instance: Instance) -> str:
            return COUNT

    builder = Builder()
    left = weakref.ref(builder)
    gc.disable()
    try:
        assert [event async for event in ask(gateway, builder, n_predict=5).events()]
        del builder
        assert left() is None
    finally:
        gc.enable()


async def test_an_answer_of_the_chat_route_leaves_no_cycles(gateway: Gateway) -> None:
    body = chat_body([{"role": "user", "content": COUNT}], {"max_tokens": 5}, {})
    chat: EngineChat | None = EngineChat(gateway, RequestInfo().ticket(KEY), body)
    assert chat is not None
    left = weakref.ref(chat)
    gc.disable()
    try:
        assert [event async for event in chat.events()]
        chat = None
        assert left() is None
    finally:
        gc.enable()


async def test_cuts_while_the_prompt_is_read(gateway: Gateway, cutter: Cutter) -> None:
    await same_when_cut(gateway, cutter, [[WHILE_READING], [WHILE_READING, WHILE_READING]], COUNT)


async def test_three_deaths_without_a_new_token_end_it(gateway: Gateway, cutter: Cutter) -> None:
    cutter.cuts = [5, WHILE_READING, WHILE_READING, 5]
    with pytest.raises(EngineDied, match="killed by SIGKILL"):
        await answer(gateway, COUNT)
    assert cutter.cuts == [5]
    # With one between them it goes on.
    await same_when_cut(gateway, cutter, [[5, 0, 1, 0, 1, 0, 2]], COUNT)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
async def test_other_deaths(gateway: Gateway, cutter: Cutter, number: signal.Signals) -> None:
    cutter.number = number
    await same_when_cut(gateway, cutter, [[30]], COUNT)


async def test_an_engine_that_is_stopped_on_purpose_is_no_death(gateway: Gateway) -> None:
    async def build_prompt(instance: Instance) -> str:
        instance.stop()
        return COUNT

    # The first tokens may come before the engine has noticed.
    with pytest.raises(Unavailable, match="was stopped"):
        async for _ in ask(gateway, build_prompt).events():
            pass


async def test_embeddings_are_retried(gateway: Gateway, cutter: Cutter) -> None:
    whole = await embed(gateway, RequestInfo(), "demo", ["one", "two"])
    cutter.embeds = 2
    again = await embed(gateway, RequestInfo(), "demo", ["one", "two"])
    assert again.prompt_tokens == whole.prompt_tokens
    assert again.vectors == [pytest.approx(vector, abs=1e-4) for vector in whole.vectors]
    cutter.embeds = 3
    with pytest.raises(EngineDied):
        await embed(gateway, RequestInfo(), "demo", ["one"])


async def test_the_phase_says_that_the_engine_is_restarted(
    gateway: Gateway, cutter: Cutter
) -> None:
    generation, phases = ask(gateway, as_it_is), set()

    async def watch() -> None:
        while True:
            phases.add(generation.phase)
            await asyncio.sleep(0.001)

    cutter.cuts = [5]
    watching = asyncio.create_task(watch())
    async for _ in generation.events():
        pass
    watching.cancel()
    assert any(phase.startswith("restarting the engine, loading") for phase in phases)
    assert any(re.fullmatch(r"reading \d+/\d+", phase) for phase in phases)
