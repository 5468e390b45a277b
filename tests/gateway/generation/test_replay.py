"""A short answer is replayed when its engine was killed, and is then the same."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from myllm.engine.engine import Engine
from myllm.gateway.engine_io import transport
from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation import replay
from myllm.gateway.generation.events import Finished, Token
from myllm.gateway.generation.relay import Relay
from myllm.gateway.generation.replay import DecodeTimer
from myllm.gateway.request_record import GAP_BOUNDS
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.instance import Instance
from tests.gateway.generation.cutting import Cutter, kill, running
from tests.gateway.generation.test_completion import (
    COUNT,
    GREEDY,
    KEY,
    STORY,
    answer,
    ask,
    chat_prompt,
)

END = b"\n\n"
RANDOM = {"temperature": 5.0, "min_p": 0, "top_k": 0, "top_p": 1, "n_predict": 60}


@pytest_asyncio.fixture
async def gateway(engine: Engine, home: Path) -> AsyncIterator[Gateway]:
    async with running(engine, home) as gateway:
        yield gateway


@pytest.fixture
def cutter(monkeypatch: pytest.MonkeyPatch) -> Cutter:
    cutter = Cutter(monkeypatch)
    cutter.replays = True
    return cutter


@pytest.mark.parametrize(
    ("written_s", "reading_s", "cheap"),
    [(0, 0, True), (1, 2, True), (2, 2, True), (2.1, 2, False), (0.1, 0, False)],
)
def test_an_answer_that_took_no_longer_than_its_prompt_is_replayed(
    written_s: float, reading_s: float, cheap: bool
) -> None:
    assert replay.is_cheap(written_s, reading_s) == cheap


def test_only_the_time_between_two_texts_counts() -> None:
    timer = DecodeTimer()
    for now in (10.0, 10.5, 11.0):
        timer.tick(now)
    timer.stop()  # the engine dies, another one reads the prompt
    for now in (60.0, 60.25):
        timer.tick(now)
    assert timer.seconds == 1.25
    assert timer.last == 60.25
    counted = {GAP_BOUNDS[at]: count for at, count in enumerate(timer.gaps) if count}
    assert counted == {0.3: 1, 0.5: 2}


@pytest.mark.parametrize("cuts", [[1], [20], [20, 5], [5, 30], [20, 5, 25]])
async def test_a_replayed_answer_is_the_same_and_nothing_comes_twice(
    gateway: Gateway, cutter: Cutter, cuts: list[int]
) -> None:
    """Also when an engine dies before it has repeated what was sent."""
    for fields in ({}, RANDOM):
        texts, whole = await answer(gateway, STORY, **fields)
        cutter.cuts, cutter.asked = list(cuts), 0
        again, end = await answer(gateway, STORY, **fields)
        assert (cutter.cuts, cutter.asked) == ([], len(cuts) + 1)
        assert again == texts
        assert end.full_text == whole.full_text
        assert (end.finish_reason, end.usage) == (whole.finish_reason, whole.usage)


async def test_a_raw_prompt(gateway: Gateway, cutter: Cutter) -> None:
    prompt = f"<|user|>{COUNT}<|end|><|assistant|>"
    _, whole = await answer(gateway, prompt, raw=True)
    cutter.cuts = [7, 3]
    assert (await answer(gateway, prompt, raw=True))[1] == whole


async def test_stop_strings_and_limits(gateway: Gateway, cutter: Cutter) -> None:
    for fields in ({"stop": ["6, 7"]}, {"stop": ["6, 8"], "n_predict": 20}, {"n_predict": 20}):
        _, whole = await answer(gateway, COUNT, **fields)
        for cut in (1, 9, 12, 13):
            cutter.cuts = [cut]
            _, end = await answer(gateway, COUNT, **fields)
            assert end.full_text == whole.full_text, (fields, cut)
            assert (end.finish_reason, end.usage) == (whole.finish_reason, whole.usage)


async def test_an_answer_whose_replay_diverges_is_continued(
    gateway: Gateway, cutter: Cutter
) -> None:
    said: list[str] = []
    cutter.cuts = [15]
    prompt = lambda instance: chat_prompt(instance, STORY)  # noqa: E731
    async for event in ask(gateway, prompt, **RANDOM).events():
        if isinstance(event, Token):
            said.append(event.text)
            cutter.seed = 77
    assert isinstance(event, Finished)
    assert "".join(said) == event.full_text
    assert cutter.asked == 3
    assert len(said) > 15
    assert event.usage.completion_tokens <= 60


async def test_an_answer_whose_replay_would_take_longer_is_continued(
    gateway: Gateway, cutter: Cutter
) -> None:
    _, whole = await answer(gateway, COUNT)
    cutter.replays = False
    cutter.cuts, cutter.asked = [40], 0
    assert (await answer(gateway, COUNT))[1].full_text == whole.full_text
    assert cutter.asked == 2


@pytest.mark.parametrize("replays", [True, False])
async def test_a_relayed_stream(
    gateway: Gateway, cutter: Cutter, monkeypatch: pytest.MonkeyPatch, replays: bool
) -> None:
    """It is continued or replayed through `/completion`."""
    whole = await relayed(gateway)
    cutter.replays = replays
    stream, prompts, left = transport.stream, list[list[int]](), 10

    async def cut(
        instance: Instance, path: str, body: dict[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        nonlocal left
        if path == "/completion":
            prompts.append(body["prompt"])
        async with aclosing(stream(instance, path, body)) as blocks:
            async for block in blocks:
                for part in re.findall(
                    rb".*?\n\n|.+", block, re.DOTALL
                ):  # a busy machine joins them
                    yield part
                    left -= part.endswith(b"\n\n")
                    if left == 0:
                        await kill(instance)

    monkeypatch.setattr(transport, "stream", cut)
    assert await relayed(gateway) == whole
    [instance] = gateway.supervisor
    prompt = await chat_prompt(instance, COUNT)
    [again] = prompts
    assert again[: len(prompt)] == prompt
    assert (len(again) > len(prompt)) != replays


async def relayed(gateway: Gateway) -> str:
    """Return the text of a stream in OpenAI's form."""
    body = {name: value for name, value in GREEDY.items() if name != "n_predict"}
    body |= {"messages": [{"role": "user", "content": COUNT}]}
    relay, text = Relay(gateway, RequestInfo().ticket(KEY), "/v1/chat/completions", body), ""
    async with aclosing(relay.blocks()) as blocks:
        async for block in blocks:
            for event in events_in(block):
                for choice in event.get("choices", ()):
                    text += choice["delta"].get("content") or ""
    return text
