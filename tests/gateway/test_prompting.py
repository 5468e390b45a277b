"""Which turns a prompt carries when not all of them fit. One word counts as one token."""

from __future__ import annotations

import pytest

from myllm.errors import PromptTooLong
from myllm.gateway.prompting import fit
from myllm.sessions.history import Message, RoleName


def message(role: RoleName, words: int, name: str) -> Message:
    return Message(role, " ".join([name] + ["w"] * (words - 1)))


async def render(wire: list[dict[str, str]]) -> list[int]:
    return [1 for each in wire for _ in each["content"].split()]


def conversation(turns: int, words: int = 10) -> list[Message]:
    messages = [message("system", 10, "sys")]
    for turn in range(turns):
        messages.append(message("user", words, f"u{turn}"))
        messages.append(message("assistant", words, f"a{turn}"))
    return [*messages, message("user", words, "last")]


async def test_what_fits_is_sent_whole() -> None:
    prompt = await fit(conversation(2), context_size=100, max_tokens=40, render=render)
    assert len(prompt.tokens) == 60
    assert prompt.dropped_messages == 0


async def test_the_oldest_turns_give_way_and_no_more_than_needed() -> None:
    prompt = await fit(conversation(5), context_size=100, max_tokens=25, render=render)
    # 75 tokens of room: system 10, last 10, and two turns of 20
    assert len(prompt.tokens) == 60
    assert prompt.dropped_messages == 6


async def test_a_small_max_tokens_leaves_more_room() -> None:
    prompt = await fit(conversation(5), context_size=100, max_tokens=5, render=render)
    assert len(prompt.tokens) == 80


async def test_an_answer_keeps_its_question() -> None:
    seen: list[list[dict[str, str]]] = []

    async def spy(wire: list[dict[str, str]]) -> list[int]:
        seen.append(wire)
        return await render(wire)

    await fit(conversation(5), context_size=100, max_tokens=25, render=spy)
    for wire in seen:
        assert wire[0]["role"] == "system"
        assert wire[1]["role"] == "user"


async def test_system_and_last_turn_alone_must_fit() -> None:
    with pytest.raises(PromptTooLong, match=r"\(16 tokens\): 20 tokens"):
        await fit(conversation(3), context_size=16, max_tokens=4, render=render)
    with pytest.raises(PromptTooLong):
        await fit([message("user", 90, "u")], context_size=100, max_tokens=512, render=render)
