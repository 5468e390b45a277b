"""What a posted list of messages means for a stored conversation.

Clients come in two styles: some send the whole history again, some only the new turn. Which
one it is, in this order:
  1. the post contains an assistant message          -> whole history
  2. its first messages equal the stored ones        -> whole history
  3. it is the last question, and that has no answer,
     or only a part of one                           -> the question again
  4. otherwise                                       -> new turns, appended
A question that was answered wholly may be asked again: people say "go on" twice. System messages
stand outside of this: the last one given is the one in force.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, cast

RoleName = Literal["system", "user", "assistant", "tool"]


class Extra(TypedDict, total=False):
    """What a message has besides its text, in OpenAI's form.

    `parts` is its whole content when that is more than text; `tool_calls` are an assistant's,
    and `tool_call_id` is the one that a tool's message answers. `response` is for an answer that
    others can go on from by its id; it is neither shown nor exported.
    """

    tool_calls: list[dict[str, Any]]
    tool_call_id: str
    parts: list[dict[str, Any]]
    thinking: str
    response: dict[str, Any]


_UNSAID = ("thinking", "response")


@dataclass(frozen=True)
class Message:
    """One message. `partial`: the client left before the answer was whole.

    `tokens` is None until they have been counted; `key` names a stored message. `extra` is None
    for a message that is only text.
    """

    role: RoleName
    content: str
    partial: bool = False
    tokens: int | None = None
    key: int | None = None
    extra: Extra | None = None

    def same_as(self, other: Message) -> bool:
        """Whether both say the same; how they came about does not matter, and no client must
        send back what was thought."""
        return (self.role, self.content, self.said()) == (other.role, other.content, other.said())

    def said(self) -> dict[str, Any]:
        """What it has besides its text and thoughts."""
        extra = self.extra or {}
        return {name: value for name, value in extra.items() if name not in _UNSAID}

    def shown(self) -> dict[str, Any]:
        """What it has besides its text, for people."""
        return {name: value for name, value in (self.extra or {}).items() if name != "response"}

    def written(self) -> str:
        """All that it says, as one text to be compared."""
        said = self.said()
        return f"{self.content}\n{json.dumps(said)}" if said else self.content

    def wire(self) -> dict[str, Any]:
        """In OpenAI's form, as engines read it."""
        extra = self.extra or {}
        wire = {"role": self.role, "content": extra.get("parts") or self.content, **self.said()}
        wire.pop("parts", None)
        if "thinking" in extra:
            wire["reasoning_content"] = extra["thinking"]
        return wire

    def continuing(self, begun: Message) -> Message:
        """The whole answer, of which `begun` is the beginning and this the rest."""
        both = None not in (self.tokens, begun.tokens)
        tokens = (self.tokens or 0) + (begun.tokens or 0) if both else None
        extra = cast(Extra, {**(begun.extra or {}), **(self.extra or {})}) or None
        content = begun.content + self.content
        return replace(self, content=content, tokens=tokens, key=begun.key, extra=extra)


def from_wire(message: Mapping[str, Any]) -> Message:
    """A message of OpenAI's form: its content may be a text, parts, or None.

    Equal messages become equal, however a client has written them.
    """
    content, extra = message.get("content") or "", Extra()
    if not isinstance(content, str):
        texts = [str(part.get("text", "")) for part in content if part.get("type") == "text"]
        if len(texts) < len(content):
            extra["parts"] = content
        content = "\n".join(texts)
    if calls := message.get("tool_calls"):
        extra["tool_calls"] = [_call(call) for call in calls]
    if call_id := message.get("tool_call_id"):
        extra["tool_call_id"] = call_id
    if thinking := message.get("thinking"):
        extra["thinking"] = thinking
    return Message(message["role"], content, extra=extra or None)


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or "{}"
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments)
    named = {"name": function["name"], "arguments": arguments}
    return {"id": call.get("id") or "", "type": "function", "function": named}


@dataclass(frozen=True)
class Merged:
    """A conversation after a post: `system` in force, `kept` of the stored ones, `new` ones."""

    system: Message | None
    kept: tuple[Message, ...]
    superseded: tuple[Message, ...]
    new: tuple[Message, ...]

    @property
    def begun(self) -> Message | None:
        """The last message, if the answer is to continue it."""
        last = [*self.kept, *self.new][-1:]
        return last[0] if last and last[0].role == "assistant" else None

    def prompt(self) -> list[Message]:
        """Everything the engine should see."""
        return [*([self.system] if self.system else []), *self.kept, *self.new]

    def kept_keys(self) -> set[int]:
        """Which stored messages stay in force."""
        staying = (*self.kept, self.system)
        return {message.key for message in staying if message and message.key is not None}


def storable(text: str) -> str:
    """`text`, if every database can store it; else raises ValueError."""
    if "\0" in text:
        raise ValueError("must not have the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not have half of a character (a surrogate)") from None
    return text


def merge(system: Message | None, stored: Sequence[Message], posted: Sequence[Message]) -> Merged:
    """Join `posted` to a conversation whose turns so far are `stored`, under `system`.

    `stored` holds no system message. Of a whole history the longest common prefix is kept and
    what was stored after it is superseded.
    """
    given = [message for message in posted if message.role == "system"]
    turns = [message for message in posted if message.role != "system"]
    in_force = given[-1] if given else system
    if system is not None and in_force is not None and in_force.same_as(system):
        in_force = system  # the stored one, which is not repeated
    if _is_whole_history(stored, turns):
        kept = common = _common_prefix(stored, turns)
    elif _asks_again(stored, turns):
        kept, common = _open_question(stored), len(turns)
    else:
        kept, common = len(stored), 0
    return Merged(in_force, tuple(stored[:kept]), tuple(stored[kept:]), tuple(turns[common:]))


def _is_whole_history(stored: Sequence[Message], turns: Sequence[Message]) -> bool:
    if any(message.role == "assistant" for message in turns):
        return True
    return bool(stored and turns) and turns[0].same_as(stored[0])


def _asks_again(stored: Sequence[Message], turns: Sequence[Message]) -> bool:
    """Whether `turns` are what the stored messages end with, and had no whole answer."""
    end = _open_question(stored)
    if not turns or len(turns) > end or stored[end - 1].role != "user":
        return False
    asked = stored[end - len(turns) : end]
    return all(one.same_as(other) for one, other in zip(asked, turns, strict=True))


def _open_question(stored: Sequence[Message]) -> int:
    """Where a last answer begins that is only a part; else the end."""
    return len(stored) - (1 if stored and stored[-1].partial else 0)


def _common_prefix(one: Sequence[Message], other: Sequence[Message]) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if not left.same_as(right):
            break
        length += 1
    return length
