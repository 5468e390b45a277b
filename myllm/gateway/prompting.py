"""From messages to tokens: rendered by the model's own template, and made to fit.

A prompt fits when it leaves room for an answer: prompt + min(max_tokens, context / 4) <=
context. When it does not, the oldest turns are left out, never a system message and never half
a turn; the last turn always stays. Turns leave in large steps, down to half of the room, and
the steps follow from the conversation alone: so the prompts of the turns that come next begin
alike, and the engine has read most of them already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from myllm.errors import PromptTooLong
from myllm.sessions.history import Message

# What a chat template puts around one message, at most; what it puts around all of them is
# measured, and rounded up, so that small differences between turns change nothing.
_AROUND = 8
_ROUND = 32


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation: its text, its tokens, and how many messages did not fit."""

    text: str
    tokens: list[int]
    dropped_messages: int = 0


Render = Callable[[list[dict[str, str]]], Awaitable[Prompt]]
Count = Callable[[str], Awaitable[int]]
"""The tokens of a message's content."""


async def fit(
    messages: Sequence[Message], context_size: int, max_tokens: int, render: Render, count: Count
) -> Prompt:
    """Render the newest turns of `messages` that fit into `context_size` tokens.

    Raises PromptTooLong when the system messages and the last turn alone do not.
    """
    room = context_size - min(max_tokens, context_size // 4)
    # Counted alone, a message may have one token more than among others: a space before it.
    if _size(messages) - len(messages) <= room:
        prompt = await render(_wire(messages))
        if len(prompt.tokens) <= room:
            return prompt
    messages = [await _counted(message, count) for message in messages]
    starts = _turn_starts(messages)
    last = _without_turns(messages, starts[-1] if starts else 0)
    shortest = await render(_wire(last))
    if len(shortest.tokens) > room or len(starts) < 2:
        raise PromptTooLong(len(shortest.tokens), context_size)
    for_turns = room - _fixed_size(messages, last, len(shortest.tokens))
    first_of_all = max(1, first_turn(_turn_sizes(messages, starts), for_turns))
    for first in range(first_of_all, len(starts)):
        kept = _without_turns(messages, starts[first])
        prompt = await render(_wire(kept))
        if len(prompt.tokens) <= room:
            return replace(prompt, dropped_messages=len(messages) - len(kept))
    return replace(shortest, dropped_messages=len(messages) - len(last))


def first_turn(sizes: Sequence[int], room: int) -> int:
    """Which turn a prompt begins with, when turns of these `sizes` have come one by one, and
    each time that they did not fit the oldest left until half of `room` was free."""
    first = taken = 0
    for turn, size in enumerate(sizes):
        taken += size
        if taken > room:
            while first < turn and taken > room // 2:
                taken -= sizes[first]
                first += 1
    return first


async def _counted(message: Message, count: Count) -> Message:
    if message.tokens is not None:
        return message
    return replace(message, tokens=await count(message.content))


def _size(messages: Sequence[Message]) -> int:
    """What these messages take, as far as they have been counted."""
    return sum(message.tokens or 0 for message in messages)


def _turn_sizes(messages: Sequence[Message], starts: Sequence[int]) -> list[int]:
    ends = [*starts[1:], len(messages)]
    turns = [messages[start:end] for start, end in zip(starts, ends, strict=True)]
    turns = [[message for message in turn if message.role != "system"] for turn in turns]
    return [_size(turn) + _AROUND * len(turn) for turn in turns]


def _fixed_size(messages: Sequence[Message], last: Sequence[Message], rendered: int) -> int:
    """What every prompt of this conversation takes beside its turns."""
    system = _size([message for message in messages if message.role == "system"])
    around = max(0, rendered - _size(last) - _AROUND * len(last))
    return system + -(-around // _ROUND) * _ROUND


def _turn_starts(messages: Sequence[Message]) -> list[int]:
    """Where turns begin: at a user message that does not follow another one."""
    starts: list[int] = []
    before = "assistant"
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if not starts or (message.role == "user" and before == "assistant"):
            starts.append(index)
        before = message.role
    return starts


def _without_turns(messages: Sequence[Message], start: int) -> list[Message]:
    """System messages, and everything from `start` on."""
    return [m for i, m in enumerate(messages) if i >= start or m.role == "system"]


def _wire(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
