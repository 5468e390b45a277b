"""Which turns a prompt carries when not all of them fit. One word counts as one token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myllm.errors import PromptTooLong
from myllm.gateway.prompting import Prompt, first_turn, fit
from myllm.sessions.history import Message, RoleName


def message(role: RoleName, words: int, name: str) -> Message:
    return Message(role, " ".join([name] + ["w"] * (words - 1)))


async def render(wire: list[dict[str, str]]) -> Prompt:
    text = " ".join(each["content"] for each in wire)
    return Prompt(text, [1] * len(text.split()))


async def count(text: str) -> int:
    return len(text.split())


def conversation(turns: int, words: int = 10) -> list[Message]:
    messages = [message("system", 10, "sys")]
    for turn in range(turns):
        messages.append(message("user", words, f"u{turn}"))
        messages.append(message("assistant", words, f"a{turn}"))
    return [*messages, message("user", words, "last")]


async def test_what_fits_is_sent_whole() -> None:
    prompt = await fit(conversation(2), context_size=100, max_tokens=40, render=render, count=count)
    assert len(prompt.tokens) == 60
    assert prompt.dropped_messages == 0


async def test_the_oldest_turns_give_way_down_to_half_of_the_room() -> None:
    prompt = await fit(conversation(5), context_size=100, max_tokens=25, render=render, count=count)
    # of 75 tokens of room the system message has 10; the last turn but one came after the last step
    assert len(prompt.tokens) == 40
    assert prompt.dropped_messages == 8


async def test_a_small_max_tokens_leaves_more_room() -> None:
    prompt = await fit(conversation(5), context_size=100, max_tokens=5, render=render, count=count)
    assert len(prompt.tokens) == 40
    assert prompt.dropped_messages == 8


async def test_what_fits_is_not_trimmed_by_an_estimate() -> None:
    said = [replace(message, tokens=10) for message in conversation(3)]
    prompt = await fit(said, context_size=100, max_tokens=20, render=render, count=count)
    assert (len(prompt.tokens), prompt.dropped_messages) == (80, 0)


async def test_what_cannot_fit_is_not_rendered_whole() -> None:
    longest = 0

    async def spy(wire: list[dict[str, str]]) -> Prompt:
        nonlocal longest
        prompt = await render(wire)
        longest = max(longest, len(prompt.tokens))
        return prompt

    said = [replace(message, tokens=10) for message in conversation(100)]
    await fit(said, context_size=200, max_tokens=20, render=spy, count=count)
    assert longest <= 180


@pytest.mark.parametrize(
    ("sizes", "first"),
    [([], 0), ([40, 40], 0), ([40, 40, 40], 2), ([40] * 4, 2), ([40] * 5, 4), ([200, 10], 1)],
)
def test_turns_leave_in_steps_down_to_half(sizes: list[int], first: int) -> None:
    assert first_turn(sizes, 100) == first


@given(st.lists(st.integers(1, 80), min_size=2, max_size=60), st.integers(80, 300))
def test_the_steps_are_few_and_only_go_forward(sizes: list[int], room: int) -> None:
    firsts = [first_turn(sizes[:count], room) for count in range(1, len(sizes) + 1)]
    assert firsts == sorted(firsts)
    assert all(sum(sizes[first : turn + 1]) <= room for turn, first in enumerate(firsts))


async def test_an_answer_keeps_its_question() -> None:
    seen: list[list[dict[str, str]]] = []

    async def spy(wire: list[dict[str, str]]) -> Prompt:
        seen.append(wire)
        return await render(wire)

    await fit(conversation(5), context_size=100, max_tokens=25, render=spy, count=count)
    for wire in seen:
        assert wire[0]["role"] == "system"
        assert wire[1]["role"] == "user"


async def test_system_and_last_turn_alone_must_fit() -> None:
    with pytest.raises(PromptTooLong, match=r"\(16 tokens\): 20 tokens"):
        await fit(conversation(3), context_size=16, max_tokens=4, render=render, count=count)
    only = [message("user", 90, "u")]
    with pytest.raises(PromptTooLong):
        await fit(only, context_size=100, max_tokens=512, render=render, count=count)
