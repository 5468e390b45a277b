"""What a posted list of messages means for a stored conversation.

Some clients send the full history again with each request, others only the new turn. A request
can state which (`Style`). Otherwise the first rule that applies decides:
  1. an assistant message precedes the last user
     message, or the last result of a tool             -> full history
  2. only one turn is stored, and its question is
     the whole post                                    -> full history
  3. otherwise                                         -> new turns, appended
A question may consist of several user messages or of results of tools. An assistant message
after it is the beginning of its answer. New turns that equal the last stored question repeat that
question if it has no answer, or only a part of one. After a whole answer they are new turns,
because people say "Hello!" twice. These rules do not concern the system messages that a post begins
with: they are joined and replace the stored one, unless both say the same. Later system messages
stay at their places, as turns do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, cast

from myllm.errors import InvalidRequest

RoleName = Literal["system", "user", "assistant", "tool"]
Style = Literal["full", "append"]
"""What a post holds: the full history of its conversation, or new turns to append."""


class Extra(TypedDict, total=False):
    """What a message has besides its text, in OpenAI's form.

    `parts` is its whole content when that is more than text. `tool_calls` belong to an assistant's
    message, and `tool_call_id` names the call that a tool's message answers. `response` belongs to
    an answer that later requests can continue by its id; it is neither shown nor exported.
    `in_place` is set for a system message that stays where it was posted, among the turns.
    """

    tool_calls: list[dict[str, Any]]
    tool_call_id: str
    parts: list[dict[str, Any]]
    thinking: str
    response: dict[str, Any]
    in_place: bool


_EXCLUDED = ("thinking", "response", "in_place")


@dataclass(frozen=True)
class Message:
    """One message.

    `partial` is set if the client left before the answer was whole. `tokens` is None until they are
    counted; `key` names a stored message. `extra` is None for a message that is only text.
    """

    role: RoleName
    content: str
    partial: bool = False
    tokens: int | None = None
    key: int | None = None
    extra: Extra | None = None

    @property
    def leads(self) -> bool:
        """Whether it is the system message at the beginning, wherever it is stored."""
        return self.role == "system" and not (self.extra or {}).get("in_place", False)

    def same_as(self, other: Message) -> bool:
        """Whether both say the same, thoughts aside: clients need not send those back."""
        return (self.role, self.content, self.extra_fields()) == (
            other.role,
            other.content,
            other.extra_fields(),
        )

    def trimmed(self) -> Message:
        """Return the message without spaces around its text."""
        return replace(self, content=self.content.strip())

    def extra_fields(self) -> dict[str, Any]:
        """Return what the message has besides its text and thoughts."""
        extra = self.extra or {}
        return {name: value for name, value in extra.items() if name not in _EXCLUDED}

    def shown(self) -> dict[str, Any]:
        """Return what the message has besides its text, for clients to see."""
        return {name: value for name, value in (self.extra or {}).items() if name != "response"}

    def wire(self) -> dict[str, Any]:
        """Return the message in OpenAI's form, as engines read it."""
        extra = self.extra or {}
        wire = {
            "role": self.role,
            "content": extra.get("parts") or self.content,
            **self.extra_fields(),
        }
        wire.pop("parts", None)
        if "thinking" in extra:
            wire["reasoning_content"] = extra["thinking"]
        return wire

    def continuing(self, begun: Message) -> Message:
        """Return the whole answer, of which `begun` is the beginning and this is the rest."""
        both = None not in (self.tokens, begun.tokens)
        tokens = (self.tokens or 0) + (begun.tokens or 0) if both else None
        extra = cast(Extra, {**(begun.extra or {}), **(self.extra or {})}) or None
        content = begun.content + self.content
        return replace(self, content=content, tokens=tokens, key=begun.key, extra=extra)


def from_wire(message: Mapping[str, Any]) -> Message:
    """Return the message for one in OpenAI's form, as the gateway normalizes it."""
    content, extra = message.get("content") or "", Extra()
    if not isinstance(content, str):
        texts = [str(part.get("text", "")) for part in content if part.get("type") == "text"]
        if len(texts) < len(content):
            extra["parts"] = content
        content = "\n".join(texts)
    if calls := message.get("tool_calls"):
        extra["tool_calls"] = list(calls)
    if call_id := message.get("tool_call_id"):
        extra["tool_call_id"] = call_id
    if thinking := message.get("reasoning_content"):
        extra["thinking"] = thinking
    return Message(message["role"], content, extra=extra or None)


@dataclass(frozen=True)
class Merged:
    """A conversation after a post: its system message, its kept stored messages, and new ones."""

    system: Message | None
    kept: tuple[Message, ...]
    superseded: tuple[Message, ...]
    new: tuple[Message, ...]

    @property
    def begun(self) -> Message | None:
        """The last message, if the answer continues it."""
        last = [*self.kept, *self.new][-1:]
        return last[0] if last and last[0].role == "assistant" else None

    def prompt(self) -> list[Message]:
        """Return all messages that the engine should see."""
        return [*([self.system] if self.system else []), *self.kept, *self.new]

    def kept_keys(self) -> set[int]:
        """Return the keys of the stored messages that stay in force."""
        staying = (*self.kept, self.system)
        return {message.key for message in staying if message and message.key is not None}


def storable(text: str) -> str:
    """Return `text` if every database can store it; otherwise raise ValueError."""
    if "\0" in text:
        raise ValueError("must not have the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not have half of a character (a surrogate)") from None
    return text


def merge(
    system: Message | None,
    stored: Sequence[Message],
    posted: Sequence[Message],
    style: Style | None = None,
) -> Merged:
    """Join `posted` to a conversation whose turns so far are `stored`, under `system`.

    `stored` contains no system message that leads. If the post is a full history, the longest
    common prefix is kept, and what was stored after it is superseded. `style` says which form the
    post has, if the client has stated it. Raises InvalidRequest when no message is left to be
    answered.
    """
    leading, turns = split(posted)
    if style == "full" or (style is None and _is_full_history(stored, turns)):
        kept = common = _common_prefix(stored, turns)
    else:
        kept, common = _overlap(stored, turns)
    last = stored[kept - 1] if kept else None
    if not turns and last is not None and last.role == "assistant" and not last.partial:
        raise InvalidRequest(
            "messages must hold more than system messages: the session's last turn is answered"
        )
    in_force = system_in_force(system, leading)
    return Merged(in_force, tuple(stored[:kept]), tuple(stored[kept:]), tuple(turns[common:]))


def split(posted: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Return the system messages that a post begins with, and its turns."""
    first = next((n for n, each in enumerate(posted) if each.role != "system"), len(posted))
    return list(posted[:first]), [placed(message) for message in posted[first:]]


def placed(message: Message) -> Message:
    """Return the message as a turn: a system message stays where it is."""
    if message.role != "system":
        return message
    return replace(message, extra=cast(Extra, {**(message.extra or {}), "in_place": True}))


def system_in_force(stored: Message | None, given: Sequence[Message]) -> Message | None:
    """Return the system message after a post that begins with `given`: these joined, or the stored
    one, if there are none or both say the same."""
    if not given:
        return stored
    together = given[0] if len(given) == 1 else _as_one(given)
    return stored if stored is not None and together.same_as(stored) else together


def _as_one(given: Sequence[Message]) -> Message:
    extra = Extra()
    if any("parts" in (message.extra or {}) for message in given):
        extra["parts"] = [part for message in given for part in _parts(message)]
    return Message("system", "\n\n".join(message.content for message in given), extra=extra or None)


def _parts(message: Message) -> list[dict[str, Any]]:
    return (message.extra or {}).get("parts") or [{"type": "text", "text": message.content}]


def _is_full_history(stored: Sequence[Message], turns: Sequence[Message]) -> bool:
    roles = [message.role for message in turns]
    # A call and its result alone are not a full history, which begins with a user message.
    if "user" in roles and "assistant" in roles[: _question_end(turns)]:
        return True
    first = next((n for n, message in enumerate(stored) if message.role == "assistant"), 0)
    one_turn = first > 0 and all(message.role != "user" for message in stored[first:])
    return one_turn and _equal(stored[:first], turns[: _question_end(turns)])


def _overlap(stored: Sequence[Message], turns: Sequence[Message]) -> tuple[int, int]:
    """Return how many stored messages stay, and how many of the new turns are among them."""
    if turns and turns[0].role == "assistant" and stored and turns[0].same_as(stored[-1]):
        return len(stored), 1  # to be continued, or repeats a call before its results
    open_end = len(stored) - (1 if stored and stored[-1].partial else 0)
    asked = turns[: _question_end(turns)]
    start = open_end - len(asked)
    is_open = open_end > 0 and stored[open_end - 1].role != "assistant"
    if asked and is_open and start >= 0 and _equal(stored[start:open_end], asked):
        common = _common_prefix(stored[start:], turns)
        return start + common, common
    return len(stored), 0


def _question_end(turns: Sequence[Message]) -> int:
    """Return the index after the last question, where the beginning of an answer may follow.

    System messages directly after it belong to it.
    """
    asking = [n for n, message in enumerate(turns, 1) if message.role in ("user", "tool")]
    end = asking[-1] if asking else 0
    while 0 < end < len(turns) and turns[end].role == "system":
        end += 1
    return end


def _equal(one: Sequence[Message], other: Sequence[Message]) -> bool:
    same = (left.same_as(right) for left, right in zip(one, other, strict=False))
    return len(one) == len(other) and all(same)


def _common_prefix(stored: Sequence[Message], posted: Sequence[Message]) -> int:
    """Return how many messages both have in common at the beginning.

    Many clients trim the answers that they send back; a trimmed answer is still the same. Not so in
    the last message, which is to be continued: each space counts there.
    """
    length = 0
    for left, right in zip(stored, posted, strict=False):
        trimmed = left.role == "assistant" and length < len(posted) - 1
        if not (left.same_as(right) or (trimmed and left.trimmed().same_as(right.trimmed()))):
            break
        length += 1
    return length
