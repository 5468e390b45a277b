"""From messages to tokens: rendered by the model's own template, and made to fit.

A prompt fits when it leaves room for an answer: prompt + min(max_tokens, context / 4) <=
context. When it does not, the oldest turns are left out, never a system message and never half
a turn; the last turn always stays. Turns leave in large steps, down to half of the room, and
stay away as long as not all of them fit: so the prompts of the turns that come next begin alike,
and the engine has read most of them already.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from myllm.errors import PromptTooLong
from myllm.sessions.history import Message

# Characters for each token of the room beyond which it is not even tried: sixteen times as much
# as fits of common text.
_WIDEST = 64
# All of it is tried again when it takes so many times the room, judged by what has stayed.
_LIKELY = 1.5


Wire = list[dict[str, Any]]
"""Messages in OpenAI's form."""


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation: its text, its tokens, and how many messages did not fit.

    `wire` has the messages that did. `other_tokens` stand for what is no text, and have no ids.
    """

    text: str
    tokens: list[int]
    dropped_messages: int = 0
    wire: Wire = field(default_factory=list)
    other_tokens: int = 0

    @property
    def size(self) -> int:
        """How many tokens it takes."""
        return len(self.tokens) + self.other_tokens


Render = Callable[[Wire], Awaitable[Prompt]]


async def fit(
    messages: Sequence[Message], left_out: int, context_size: int, max_tokens: int, render: Render
) -> Prompt:
    """Render the newest turns of `messages` that fit into `context_size` tokens.

    `left_out` says how many messages the conversation's last prompt had left out. What fits is
    decided by rendering, because a template may leave out most of what was said (thoughts), and
    another model counts otherwise. Raises PromptTooLong when the system messages and the last
    turn alone do not fit.
    """
    room = context_size - min(max_tokens, context_size // 4)
    turns = _Turns(messages)
    first = turns.behind(left_out)
    if turns.chars(first) <= _WIDEST * room:
        prompt = await _since(turns, first, render)
        if prompt.size <= room:
            if first and turns.chars(0) * prompt.size <= _LIKELY * room * turns.chars(first):
                whole = await _since(turns, 0, render)
                return whole if whole.size <= room else prompt
            return prompt
    return await _halved(turns, room, context_size, render)


async def _halved(turns: _Turns, room: int, context_size: int, render: Render) -> Prompt:
    """As many turns as fit into half of the room, or at least the last one."""
    last = turns.count - 1
    fitting = await _since(turns, last, render)
    if fitting.size > room:
        raise PromptTooLong(fitting.size, context_size)
    first = 1
    while first < last:
        middle = (first + last) // 2
        if turns.chars(middle) <= _WIDEST * room:
            prompt = await _since(turns, middle, render)
            if prompt.size <= room // 2:
                fitting, last = prompt, middle
                continue
        first = middle + 1
    return fitting


async def _since(turns: _Turns, first: int, render: Render) -> Prompt:
    kept = turns.since(first)
    prompt = await render([message.wire() for message in kept])
    return replace(prompt, dropped_messages=turns.before(first))


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
        spoken = [0, *accumulate(message.role != "system" for message in messages)]
        self._before = [0, *(spoken[start] for start in self._starts[1:])]

    def since(self, first: int) -> list[Message]:
        """System messages, and everything from turn `first` on."""
        start = self._starts[first] if first else 0
        return [m for i, m in enumerate(self._messages) if i >= start or m.role == "system"]

    def chars(self, first: int) -> int:
        """Characters of what is said from turn `first` on."""
        return sum(len(message.content) for message in self.since(first))

    def before(self, first: int) -> int:
        """How many messages are left out when turn `first` is the first one."""
        return self._before[first]

    def behind(self, left_out: int) -> int:
        """The turn before which just so many messages are left out; 0 if there is none."""
        turn = bisect_left(self._before, left_out)
        return turn if turn < self.count and self._before[turn] == left_out else 0


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
