"""Which turns a prompt has when not all of them fit. One word counts as one token."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myllm.errors import PromptTooLong
from myllm.gateway.prompt.fit import Prompt, fit
from myllm.sessions.history import Message, RoleName


def message(role: RoleName, words: int, name: str) -> Message:
    return Message(role, " ".join([name] + ["w"] * (words - 1)))


async def render(wire: list[dict[str, Any]]) -> Prompt:
    text = " ".join(each["content"] for each in wire)
    return Prompt(text, [1] * len(text.split()))


def conversation(turns: int, words: int = 10) -> list[Message]:
    messages = [message("system", 10, "sys")]
    for turn in range(turns):
        messages.append(message("user", words, f"u{turn}"))
        messages.append(message("assistant", words, f"a{turn}"))
    return [*messages, message("user", words, "last")]


async def test_what_fits_is_sent_whole() -> None:
    prompt = await fit(conversation(2), 0, 100, 40, render)
    assert len(prompt.tokens) == 60
    assert prompt.dropped_messages == 0


async def test_the_oldest_turns_are_left_out_down_to_half_of_the_limit() -> None:
    prompt = await fit(conversation(50), 0, 1000, 250, render)
    assert len(prompt.tokens) == 360  # of 750; two turns more would be 400
    assert prompt.dropped_messages == 66


async def test_nothing_is_left_out_when_that_is_forbidden() -> None:
    prompt = await fit(conversation(2), None, 61, 40, render)
    assert (len(prompt.tokens), prompt.dropped_messages) == (60, 0)
    with pytest.raises(PromptTooLong) as refused:
        await fit(conversation(2), None, 60, 40, render)
    assert refused.value.prompt_tokens == 60


async def test_a_small_max_tokens_leaves_more_for_the_prompt() -> None:
    prompt = await fit(conversation(50), 0, 1000, 5, render)
    assert len(prompt.tokens) == 480
    assert prompt.dropped_messages == 54


async def test_what_fits_is_not_trimmed_by_an_estimate() -> None:
    said = [replace(message, tokens=10) for message in conversation(3)]
    prompt = await fit(said, 0, 100, 20, render)
    assert (len(prompt.tokens), prompt.dropped_messages) == (80, 0)


async def test_thoughts_that_the_template_leaves_out_take_no_tokens() -> None:
    async def without_thoughts(wire: list[dict[str, Any]]) -> Prompt:
        return await render([{"content": m["content"].split("</think>")[-1]} for m in wire])

    said: list[Message] = []
    for number in range(6):
        thinking = "<think>" + "t " * 200 + "</think>"
        said += [message("user", 3, f"u{number}")]
        said += [Message("assistant", f"{thinking} a{number}", tokens=203)]
    prompt = await fit([*said, message("user", 3, "last")], 0, 1000, 100, without_thoughts)
    assert (len(prompt.tokens), prompt.dropped_messages) == (27, 0)
    tight = await fit([*said, message("user", 3, "last")], 0, 27, 5, without_thoughts)
    assert (len(tight.tokens), tight.dropped_messages) == (11, 8)


async def test_counts_of_another_tokenizer_do_not_matter() -> None:
    said = [replace(message, tokens=500) for message in conversation(3)]
    prompt = await fit(said, 0, 100, 20, render)
    assert prompt.dropped_messages == 0


async def test_what_is_far_too_long_is_not_rendered_whole() -> None:
    """Neither on the first turn, nor on later ones."""
    longest = 0

    async def spy(wire: list[dict[str, Any]]) -> Prompt:
        nonlocal longest
        prompt = await render(wire)
        longest = max(longest, len(prompt.tokens))
        return prompt

    prompt = await fit(conversation(2000), 0, 200, 20, spy)
    assert 1000 < longest < 10_000
    longest = 0
    await fit(conversation(2000), prompt.dropped_messages, 200, 20, spy)
    assert longest <= 180


async def test_turns_that_were_left_out_stay_out_until_the_next_step() -> None:
    left_out, steps = 0, []
    for turns in range(40):
        said = conversation(turns)
        prompt = await fit(said, left_out, 200, 20, render)
        assert len(prompt.tokens) <= 180
        if prompt.dropped_messages != left_out:
            steps.append(turns)
            assert len(prompt.tokens) <= 100
        left_out = prompt.dropped_messages
    assert all(later - earlier >= 4 for earlier, later in pairwise(steps))


async def test_all_turns_come_back_when_they_fit_again() -> None:
    prompt = await fit(conversation(3), 4, 100, 20, render)
    assert prompt.dropped_messages == 0


@given(st.lists(st.integers(1, 80), min_size=1, max_size=60), st.integers(40, 300))
async def test_every_prompt_fits_or_has_only_its_last_turn(sizes: list[int], context: int) -> None:
    said: list[Message] = []
    left_out, limit = 0, context - context // 4
    for number, size in enumerate(sizes):
        said += [message("user", size, f"u{number}"), message("assistant", 1, f"a{number}")]
        try:
            prompt = await fit(said, left_out, context, context, render)
        except PromptTooLong:
            assert size + 1 >= context
        else:
            assert len(prompt.tokens) <= limit or prompt.dropped_messages == 2 * number
            assert len(prompt.tokens) < context
            assert prompt.text.endswith(said[-1].content)
            left_out = prompt.dropped_messages


async def test_an_answer_keeps_its_question() -> None:
    seen: list[list[dict[str, Any]]] = []

    async def spy(wire: list[dict[str, Any]]) -> Prompt:
        seen.append(wire)
        return await render(wire)

    await fit(conversation(5), 0, 100, 25, spy)
    for wire in seen:
        assert wire[0]["role"] == "system"
        assert wire[1]["role"] == "user"


async def test_system_and_last_turn_alone_must_leave_room_for_one_token() -> None:
    with pytest.raises(PromptTooLong, match=r"\(20 tokens\): 20 tokens"):
        await fit(conversation(3), 0, 20, 4, render)
    prompt = await fit(conversation(3), 0, 21, 4, render)
    assert (len(prompt.tokens), prompt.dropped_messages) == (20, 6)


@pytest.mark.parametrize("words", [76, 90, 99])
async def test_what_cannot_be_shortened_gets_a_shorter_answer(words: int) -> None:
    prompt = await fit([message("user", words, "u")], 0, 100, 512, render)
    assert (len(prompt.tokens), prompt.dropped_messages) == (words, 0)


def calling(*ids: str) -> Message:
    calls = [{"id": each, "type": "function", "function": {"name": "f"}} for each in ids]
    return Message("assistant", "c", extra={"tool_calls": calls})


def result(name: str) -> Message:
    return Message("tool", " ".join(["r"] * 10), extra={"tool_call_id": name})


async def test_a_result_stays_with_its_call() -> None:
    """Also when the user wrote something in between, and when ids are used again."""
    first = [message("user", 200, "u0"), calling("1", "2"), result("1"), result("2")]
    then = [message("user", 10, "u1"), calling("1"), message("user", 10, "wait"), result("1")]
    answer, last = message("assistant", 10, "a"), message("user", 10, "last")
    said = [*first, answer, *then, answer, last]
    seen: list[list[dict[str, Any]]] = []

    async def spy(wire: list[dict[str, Any]]) -> Prompt:
        seen.append(wire)
        return await render(wire)

    for context in range(40, 400, 20):
        prompt = await fit(said, 0, context, context, spy)
        assert prompt.dropped_messages in (0, 5, 10)
    assert {len(wire) for wire in seen} == {1, 6, 11}
