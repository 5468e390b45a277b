"""The events of an answer, in whatever dialect it is sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from myllm.gateway.usage import Usage


@dataclass(frozen=True)
class Token:
    """A piece of the answer's text, of whole characters.

    `more`: the next piece is there already, so that both can be sent together.
    """

    text: str
    more: bool = False


@dataclass(frozen=True)
class Thinking:
    """A piece of what a model thinks before it answers; not part of the answer's text."""

    text: str


@dataclass(frozen=True)
class CallPart:
    """A piece of a tool call; the first piece of each `index` has the call's id and name."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Call:
    """A tool call as far as it has come; its `arguments` are JSON once it is complete."""

    id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True)
class Finished:
    """The end of an answer. `stop_text` is the stop string that ended it, if known.

    The last three fields are for chats; a chat that is not stored has no session. `warning` says
    why an answer could not be stored.
    """

    full_text: str
    usage: Usage
    finish_reason: Literal["stop", "length", "tool_calls"]
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    stop_text: str | None = None
    session_id: str | None = None
    dropped_messages: int = 0
    warning: str | None = None

    def in_session(
        self, session_id: str | None, dropped_messages: int, warning: str | None
    ) -> Finished:
        """Return the same end with the fields of a chat."""
        return replace(
            self, session_id=session_id, dropped_messages=dropped_messages, warning=warning
        )

    def unstored(self) -> dict[str, Any]:
        """Return the fields that tell the client that its answer could not be stored; else none."""
        return {} if self.warning is None else {"stored": False, "warning": self.warning}


Event = Token | Thinking | CallPart | Finished
