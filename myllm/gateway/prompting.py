"""From messages to tokens: rendered by the model's own template, and made to fit.

A prompt fits when it leaves room for an answer: prompt + min(max_tokens, context / 4) <=
context. When it does not, the oldest turns are left out, never a system message and never half
a turn; the last turn always stays. Turns leave in large steps, down to half of the room, and
stay away as long as not all of them fit: so the prompts of the turns that come next begin alike,
and the engine has read most of them already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from myllm.errors import PromptTooLong
from myllm.sessions.history import Extra, Message

# What a chat template puts around one message, about.
_AROUND = 8
# What a picture takes, about.
_MEDIA = 500


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation: its text, its tokens, and how many messages did not fit.

    `wire` has the messages that did. `other_tokens` stand for what is no text, and have no ids.
    """

    text: str
    tokens: list[int]
    dropped_messages: int = 0
    wire: list[dict[str, Any]] = field(default_factory=list)
    other_tokens: int = 0

    @property
    def size(self) -> int:
        """How many tokens it takes."""
        return len(self.tokens) + self.other_tokens


Render = Callable[[list[dict[str, Any]]], Awaitable[Prompt]]
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
        if sum(_least(message) for message in kept) - len(kept) <= room:
            prompt = await render(_wire(kept))
            if prompt.size <= room:
                return replace(prompt, dropped_messages=len(messages) - len(kept))
    return await _halved(turns, room, context_size, render, count)


async def _halved(
    turns: _Turns, room: int, context_size: int, render: Render, count: Count
) -> Prompt:
    """As many turns as fit into half of the room, or at least the last one."""
    last = turns.count - 1
    prompt = await render(_wire(turns.since(last)))
    if prompt.size > room:
        raise PromptTooLong(prompt.size, context_size)
    first, taken = last, prompt.size
    while first > 1:
        taken += await _size(turns.of(first - 1), count)
        if taken > room // 2:
            break
        first -= 1
    for start in range(first, last):
        longer = await render(_wire(turns.since(start)))
        if longer.size <= room:
            prompt, last = longer, start
            break
    return replace(prompt, dropped_messages=turns.before(last))


class _Turns:
    """A conversation by its turns; each begins at a user message that follows no other one, and
    ends behind the results of all tools that were called in it."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._starts: list[int] = []
        before, tied = "assistant", 0
        results = _last_results(messages)
        for index, message in enumerate(messages):
            if message.role == "system":
                continue
            begins = message.role == "user" and before != "user" and index > tied
            if not self._starts or begins:
                self._starts.append(index)
            before, tied = message.role, max(tied, results.get(index, 0))
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
    return sum([await _about(message, count) for message in turn])


async def _about(message: Message, count: Count) -> int:
    """Tokens that it takes, about."""
    if message.tokens is not None and message.extra is None:
        return message.tokens + _AROUND
    extra = message.extra or Extra()
    calls = "".join(str(call.get("function")) for call in extra.get("tool_calls", ()))
    media = len([part for part in extra.get("parts", ()) if part.get("type") != "text"])
    return await count(message.content + calls) + media * _MEDIA + _AROUND


def _least(message: Message) -> int:
    """Tokens that it takes at least: those of thoughts may have been counted, and are not in
    every prompt."""
    return message.tokens or 0 if message.extra is None else 0


def _last_results(messages: Sequence[Message]) -> dict[int, int]:
    """Where the last result is of what the message at an index has called.

    Looked for from the end, because some models call all their calls the same.
    """
    last: dict[str, int] = {}
    found: dict[int, int] = {}
    for index in range(len(messages) - 1, -1, -1):
        extra = messages[index].extra or {}
        if "tool_call_id" in extra:
            last.setdefault(extra["tool_call_id"], index)
        ids = [call.get("id", "") for call in extra.get("tool_calls", ())]
        if ids:
            found[index] = max(last.pop(each, 0) for each in ids)
    return found


def _wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.wire() for message in messages]
