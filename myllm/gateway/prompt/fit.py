"""Chooses the turns of a conversation that fit the context, by rendering them.

A prompt fits when it leaves enough of the context for an answer: prompt + min(max_tokens,
context / 4) <= context. When it does not fit, the oldest turns are left out; never a system
message, never half a turn, and never the last turn. Turns are left out in large steps, down to half
of the limit, and stay out until all of them fit again: so the prompts of the next turns begin
alike, and the engine has read most of them already.

When system messages and the last turn alone do not fit, the answer gets what is left of the
context, and the engine ends it there. Only a prompt that leaves no room for one token is refused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import cast

from myllm.errors import PromptTooLong
from myllm.gateway.conversation.messages import ChatMessage, Messages
from myllm.sessions.history import Message

# Turns with more characters per token of the limit than this are not even rendered. Of common
# text, a sixteenth of that fits.
_MAX_CHARS_PER_TOKEN = 64
# After turns were left out, the whole conversation is rendered again if it seems to take at most
# this many times the limit, estimated by the turns that are left.
_RETRY_WHOLE = 1.5


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation: its text, its tokens, and how many messages did not fit.

    `wire` has the messages that fit. `other_tokens` counts the tokens without ids: those of
    pictures and sounds, and those that come after more than the context holds.
    """

    text: str
    tokens: list[int]
    dropped_messages: int = 0
    wire: Messages = field(default_factory=list)
    other_tokens: int = 0

    @property
    def size(self) -> int:
        """How many tokens of the context the prompt takes."""
        return len(self.tokens) + self.other_tokens


Render = Callable[[Messages], Awaitable[Prompt]]
"""Renders messages with the model's own template."""


async def fit(
    messages: Sequence[Message],
    left_out: int | None,
    context_size: int,
    max_tokens: int,
    render: Render,
) -> Prompt:
    """Render the newest turns of `messages` that fit a context of `context_size` tokens.

    `left_out` is how many messages the conversation's latest prompt left out; None forbids leaving
    out any. Only rendering shows what fits: a template may leave out most of a message (its
    thoughts), and each model counts differently. Raises PromptTooLong when the system messages and
    the last turn alone, or all that must stay, leave no room for an answer.
    """
    limit = context_size - min(max_tokens, context_size // 4)
    turns = _Turns(messages)
    if left_out is None:
        return _with_room(await _since(turns, 0, render), context_size)
    first = turns.after(left_out)
    if turns.chars(first) <= _MAX_CHARS_PER_TOKEN * limit:
        prompt = await _since(turns, first, render)
        if prompt.size <= limit:
            if first and turns.chars(0) * prompt.size <= _RETRY_WHOLE * limit * turns.chars(first):
                whole = await _since(turns, 0, render)
                return whole if whole.size <= limit else prompt
            return prompt
    return await _halved(turns, limit, context_size, render)


async def _halved(turns: _Turns, limit: int, context_size: int, render: Render) -> Prompt:
    """Render as many turns as fit into half of the limit, or the last one alone."""
    last = turns.count - 1
    fitting = _with_room(await _since(turns, last, render), context_size)
    first = 1
    while first < last:
        middle = (first + last) // 2
        if turns.chars(middle) <= _MAX_CHARS_PER_TOKEN * limit:
            prompt = await _since(turns, middle, render)
            if prompt.size <= limit // 2:
                fitting, last = prompt, middle
                continue
        first = middle + 1
    return fitting


def _with_room(prompt: Prompt, context_size: int) -> Prompt:
    """Return a prompt that leaves room for at least one token."""
    if prompt.size >= context_size:
        raise PromptTooLong(prompt.size, context_size)
    return prompt


async def _since(turns: _Turns, first: int, render: Render) -> Prompt:
    kept = turns.since(first)
    prompt = await render([cast(ChatMessage, message.wire()) for message in kept])
    return replace(prompt, dropped_messages=turns.before(first))


class _Turns:
    """A conversation split into turns. Each begins with a user message that follows no other user
    message, and ends after the results of all tools that were called in it."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._starts: list[int] = []
        previous_role, tied = "assistant", 0
        results = _last_results(messages)
        for index, message in enumerate(messages):
            if message.role == "system":
                continue
            begins = message.role == "user" and previous_role != "user" and index > tied
            if not self._starts or begins:
                self._starts.append(index)
            previous_role, tied = message.role, max(tied, results.get(index, 0))
        self.count = max(1, len(self._starts))
        counts = [0, *accumulate(message.role != "system" for message in messages)]
        self._before = [0, *(counts[start] for start in self._starts[1:])]

    def since(self, first: int) -> list[Message]:
        """The system messages, and all messages from turn `first` on."""
        start = self._starts[first] if first else 0
        return [m for i, m in enumerate(self._messages) if i >= start or m.role == "system"]

    def chars(self, first: int) -> int:
        """How many characters these messages have."""
        return sum(len(message.content) for message in self.since(first))

    def before(self, first: int) -> int:
        """How many messages are left out if turn `first` is the first one."""
        return self._before[first]

    def after(self, left_out: int) -> int:
        """The turn before which exactly `left_out` messages are left out; 0 if no turn is."""
        turn = bisect_left(self._before, left_out)
        return turn if turn < self.count and self._before[turn] == left_out else 0


def _last_results(messages: Sequence[Message]) -> dict[int, int]:
    """Map the index of each message with tool calls to that of the last result of these calls.

    Searched from the end, because some models give the same id to all of their calls.
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
