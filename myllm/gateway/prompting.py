"""From messages to tokens: rendered by the model's own template, and made to fit.

A prompt fits when it leaves room for an answer: prompt + min(max_tokens, context / 4) <=
context. When it does not, the oldest turns are left out, never a system message and never half
a turn; the last turn always stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from myllm.errors import PromptTooLong
from myllm.sessions.history import Message

Render = Callable[[list[dict[str, str]]], Awaitable[list[int]]]


@dataclass(frozen=True)
class Prompt:
    """Tokens for the engine, and how many messages did not fit."""

    tokens: list[int]
    dropped_messages: int = 0


async def fit(
    messages: Sequence[Message], context_size: int, max_tokens: int, render: Render
) -> Prompt:
    """Render as many of the newest turns as fit into `context_size` tokens.

    Raises PromptTooLong when the system messages and the last turn alone do not.
    """
    room = context_size - min(max_tokens, context_size // 4)
    tokens = await render(_wire(messages))
    if len(tokens) <= room:
        return Prompt(tokens)
    starts = _turn_starts(messages)
    if len(starts) < 2:
        raise PromptTooLong(len(tokens), context_size)
    # Dropping more turns never makes the prompt longer, so the first fit is found by halving.
    low, high, best = 1, len(starts) - 1, None
    while low <= high:
        middle = (low + high) // 2
        kept = _without_turns(messages, starts[middle])
        tokens = await render(_wire(kept))
        if len(tokens) <= room:
            best, high = Prompt(tokens, len(messages) - len(kept)), middle - 1
        else:
            low = middle + 1
    if best is None:
        raise PromptTooLong(len(tokens), context_size)
    return best


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
