"""From messages to tokens: rendered by the model's own template, and made to fit.

A prompt fits when it leaves room for an answer: prompt + min(max_tokens, context / 4) <=
context. When it does not, the oldest turns are left out, never a system message and never half
a turn; the last turn always stays. Turns leave in large steps, down to half of the room, and
stay away as long as not all of them fit: so the prompts of the turns that come next begin alike,
and the engine has read most of them already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from myllm.errors import PromptTooLong
from myllm.sessions.history import Message

# What a chat template puts around one message, about.
_AROUND = 8


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
    messages: Sequence[Message],
    left_out: int,
    context_size: int,
    max_tokens: int,
    render: Render,
    count: Count,
) -> Prompt:
    """Render the newest turns of `messages` that fit into `context_size` tokens.

    `left_out` says how many messages the conversation's last prompt had left out. Raises
    PromptTooLong when the system messages and the last turn alone do not fit.
    """
    room = context_size - min(max_tokens, context_size // 4)
    turns = _Turns(messages)
    for first in sorted({0, turns.behind(left_out)}):
        kept = turns.since(first)
        # Counted alone, a message may have one token more than among others: a space before it.
        if sum(message.tokens or 0 for message in kept) - len(kept) <= room:
            prompt = await render(_wire(kept))
            if len(prompt.tokens) <= room:
                return replace(prompt, dropped_messages=len(messages) - len(kept))
    return await _halved(turns, room, context_size, render, count)


async def _halved(
    turns: _Turns, room: int, context_size: int, render: Render, count: Count
) -> Prompt:
    """As many turns as fit into half of the room, or at least the last one."""
    last = turns.count - 1
    prompt = await render(_wire(turns.since(last)))
    if len(prompt.tokens) > room:
        raise PromptTooLong(len(prompt.tokens), context_size)
    first, taken = last, len(prompt.tokens)
    while first > 1:
        taken += await _size(turns.of(first - 1), count)
        if taken > room // 2:
            break
        first -= 1
    for start in range(first, last):
        longer = await render(_wire(turns.since(start)))
        if len(longer.tokens) <= room:
            prompt, last = longer, start
            break
    return replace(prompt, dropped_messages=turns.before(last))


class _Turns:
    """A conversation by its turns; each begins at a user message that follows no other one."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._starts: list[int] = []
        before = "assistant"
        for index, message in enumerate(messages):
            if message.role == "system":
                continue
            if not self._starts or (message.role == "user" and before == "assistant"):
                self._starts.append(index)
            before = message.role
        self.count = max(1, len(self._starts))

    def since(self, first: int) -> list[Message]:
        """System messages, and everything from turn `first` on."""
        start = self._starts[first] if first else 0
        return [m for i, m in enumerate(self._messages) if i >= start or m.role == "system"]

    def of(self, turn: int) -> list[Message]:
        """The messages of one turn but the last."""
        said = self._messages[self._starts[turn] : self._starts[turn + 1]]
        return [message for message in said if message.role != "system"]

    def before(self, first: int) -> int:
        """How many messages are left out when turn `first` is the first one."""
        return len(self._messages) - len(self.since(first))

    def behind(self, left_out: int) -> int:
        """The turn before which just so many messages are left out; 0 if there is none."""
        turns = range(self.count)
        return next((turn for turn in turns if self.before(turn) == left_out), 0)


async def _size(turn: Sequence[Message], count: Count) -> int:
    counts = [m.tokens if m.tokens is not None else await count(m.content) for m in turn]
    return sum(counts) + _AROUND * len(counts)


def _wire(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
