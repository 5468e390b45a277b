"""A session: its name, what a list shows of it, and its state during one request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from myllm.sessions.history import Merged, Message, Style, merge


@dataclass(frozen=True, slots=True)
class SessionRef:
    """The unique name of a session. Two owners may choose the same id."""

    owner: str
    id: str


@dataclass(frozen=True)
class Summary:
    """A stored session without its messages; times are seconds since 1970, UTC.

    `messages` counts those in force, `left_out` those of them that the last prompt left out.
    """

    key: int
    owner: str
    id: str
    model: str
    title: str
    created: float
    updated: float
    messages: int
    left_out: int
    version: int


@dataclass(frozen=True)
class StoredMessage:
    """A message as it is listed; prompts no longer contain a superseded one."""

    message: Message
    superseded: bool
    created: float


@dataclass
class Session:
    """A session while one request has it, with the messages in force when the request began.

    `stored` is None for a new session. `left_out` is how many messages the last prompt left out;
    it is stored with the next turn. `writing` is the task that stores a turn.
    """

    ref: SessionRef
    stored: Summary | None = None
    system: Message | None = None
    messages: list[Message] = field(default_factory=list)
    left_out: int = 0
    writing: asyncio.Task[None] | None = None

    def merged(self, posted: Sequence[Message], style: Style | None = None) -> Merged:
        """Return the conversation with `posted` added, without storing anything.

        Raises InvalidRequest when no message is left to be answered.
        """
        return merge(self.system, self.messages, posted, style)
