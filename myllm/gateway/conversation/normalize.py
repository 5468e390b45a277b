"""Repairs that any dialect's messages need, whatever the model: the same form for the same thing.

What a certain model's chat template needs besides is in `adapt.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import ChatMessage, Messages, Part, RawMessages, ToolCall
from myllm.gateway.conversation.tool_calls import called, matched, text_of

_ROLES: Final = {"developer": "system", "function": "tool"}
_AFTER_A_QUESTION: Final = ("assistant", "system", "developer")
_PLAIN: Final = {"role", "content"}
_NAMES: Final = ("name", "tool_call_id")
_MEDIA: Final = frozenset({"image_url", "input_audio", "file"})
# Where clients put what the model has thought.
_THOUGHTS: Final = ("reasoning_content", "thinking", "reasoning")


def normalized(messages: RawMessages, ignored: Ignored) -> Messages:
    """Return `messages` in the one form, one for each, for engines and the store.

    - null means absent, and an absent content is "";
    - developers are system, and the role function (of old clients) is tool;
    - texts in parts are joined, in lines; `ignored` names parts that no model can have;
    - thinking is `reasoning_content`;
    - calls have a type, an id and arguments that are an object; results have the id of their call
      and the name of its tool.

    Takes time linear in the size of the messages.
    """
    asked = to_be_answered(messages)
    return matched(
        [
            _normalized(each, f"messages[{number}]", None if number == asked else ignored)
            for number, each in enumerate(messages)
        ]
    )


def to_be_answered(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the index of the user's message that is to be answered; -1 if there is none.

    The request depends on what is in it: nothing may be left out of it. Instructions and the
    beginning of an answer may follow it.
    """
    last = len(messages) - 1
    while last > 0 and messages[last]["role"] in _AFTER_A_QUESTION:
        last -= 1
    return last if messages and messages[last]["role"] == "user" else -1


def _normalized(message: dict[str, Any], where: str, ignored: Ignored | None) -> ChatMessage:
    """Return one message; without `ignored`, unknown parts stay in it, to be refused."""
    role = message["role"]
    role = _ROLES.get(role, role)
    content = message.get("content")
    if message.keys() == _PLAIN and isinstance(content, str):
        return {"role": role, "content": content}
    made = {name: value for name, value in message.items() if value is not None}
    made["role"], made["content"] = role, content or text_of(made.pop("refusal", ""))
    for name in _NAMES:
        if name in made and not isinstance(made[name], str):
            made[name] = text_of(made[name])
    _set_calls(made, where, ignored)
    thoughts = [text for name in _THOUGHTS if isinstance(text := made.pop(name, None), str)]
    if isinstance(content, list):
        parts = _parts(content, f"{where}.content", ignored)
        of_parts = (part["thinking"] for part in parts if part["type"] == "thinking")
        thoughts.append("\n\n".join(of_parts))
        made["content"] = joined([part for part in parts if part["type"] != "thinking"])
    if thinking := next(filter(None, thoughts), ""):
        made["reasoning_content"] = thinking
    return cast(ChatMessage, made)


def _set_calls(message: dict[str, Any], where: str, ignored: Ignored | None) -> None:
    """Bring the tool calls of `message` into the one form."""
    given = message.pop("tool_calls", None) or []
    if not isinstance(given, list):
        given = [given]
    if (old := message.pop("function_call", None)) is not None:
        given = [*given, {"function": old}]
    calls: list[ToolCall] = []
    for index, each in enumerate(given):
        call = called(each)
        if call is not None:
            calls.append(call)
        elif ignored is not None:
            ignored.add(f"{where}.tool_calls[{index}]")
    if calls:
        message["tool_calls"] = calls


def _parts(parts: list[Any], where: str, ignored: Ignored | None) -> list[Part]:
    """Return the parts that a model can have, and thoughts as parts of type thinking."""
    made = []
    for index, given in enumerate(parts):
        part = _part(given)
        kind = _kind(given)
        if part is not None:
            made.append(part)
        elif ignored is None:
            # Refused later, with a text that names its type.
            made.append({**given, "type": kind} if isinstance(given, Mapping) else {"type": kind})
        else:
            ignored.add(f"{where}[{index}] ({kind})")
    return made


def _kind(part: Any) -> str | None:
    if not isinstance(part, Mapping):
        return type(part).__name__
    kind = part.get("type")
    return kind if kind is None or isinstance(kind, str) else type(kind).__name__


def _part(part: Any) -> Part | None:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        return None
    kind = _kind(part)
    if kind in _MEDIA:
        return dict(part)
    if kind in ("thinking", "reasoning"):
        thought = part.get("thinking") or part.get("text")
        return {"type": "thinking", "thinking": thought} if isinstance(thought, str) else None
    text = part.get("refusal" if kind == "refusal" else "text")
    return {"type": "text", "text": text} if isinstance(text, str) else None


def joined(parts: list[Part]) -> str | list[Part]:
    """Return texts alone as one text: not every template reads parts."""
    if any(part["type"] != "text" or not isinstance(part.get("text"), str) for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)
