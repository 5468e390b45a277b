"""What a request's answer is made of, whatever the dialect that it is told in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Usage:
    """Counts of tokens, as the engine made them; `cached_tokens` are part of the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    def as_dict(self) -> dict[str, int]:
        """The wire form."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "cached_tokens": self.cached_tokens,
        }


@dataclass(frozen=True)
class Token:
    """A piece of the answer; never half a character. `more`: the next one follows at once, so
    that both can be sent together."""

    text: str
    more: bool = False


@dataclass(frozen=True)
class Thinking:
    """A piece of what a model thinks before it answers; no part of the answer's text."""

    text: str


@dataclass(frozen=True)
class CallPart:
    """A piece of a call of a tool: the first one of an `index` has its id and name."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Call:
    """A call of a tool, as far as it has been told; `arguments` are JSON in the end."""

    id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True)
class Finished:
    """The end of an answer. `stop_text` is the stop string that ended it, where that is known.

    The last three are for chats; one that is not to be stored has no session. `warning` says why
    an answer is not stored that was to be.
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
        """The same end, with what a chat adds."""
        return replace(
            self, session_id=session_id, dropped_messages=dropped_messages, warning=warning
        )

    def unstored(self) -> dict[str, Any]:
        """What an answer says of itself that was to be stored and is not; else nothing."""
        return {} if self.warning is None else {"stored": False, "warning": self.warning}


Event = Token | Thinking | CallPart | Finished
