"""The form in which all dialects hand over a conversation: OpenAI's messages, as engines read them.

Dialects convert what they are sent to this form and leave every repair to `normalize.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Required

from typing_extensions import TypedDict

# So many messages or parts are gone through in a millisecond.
_FEW: Final = 200
_PER_CALL: Final = 1_000  # characters of arguments that take as long as a part

Role = Literal["system", "user", "assistant", "tool"]
Part = dict[str, Any]
"""A part of a message's content: a text, an image, a sound."""


class CalledFunction(TypedDict):
    """A function that the model called; `arguments` is a JSON object as text."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A call of a tool; the message of role tool with its `id` has the result."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(TypedDict, total=False):
    """One message. Messages in OpenAI's dialect may have more fields, for the chat template."""

    role: Required[Role]
    content: Required[str | list[Part]]
    name: str
    reasoning_content: str
    tool_calls: list[ToolCall]
    tool_call_id: str


Messages = list[ChatMessage]

RawMessages = list[dict[str, Any]]
"""Messages in OpenAI's form, before `normalized` has looked at them: anything may be in them."""


def is_long(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether going through `messages` takes more than a millisecond, and so belongs in a thread.

    They may still be as a client wrote them.
    """
    return len(messages) > _FEW or sum(map(_weight, messages)) > _FEW


def _weight(message: Mapping[str, Any]) -> int:
    """Return about how many parts have to be looked at; the arguments of calls are parsed."""
    content, calls = message.get("content"), message.get("tool_calls")
    parts = len(content) if isinstance(content, list) else 1
    if not isinstance(calls, list):
        return parts
    functions = (call.get("function") for call in calls if isinstance(call, Mapping))
    arguments = (each.get("arguments") for each in functions if isinstance(each, Mapping))
    chars = sum(len(each) if isinstance(each, str) else _PER_CALL for each in arguments)
    return parts + len(calls) + chars // _PER_CALL
