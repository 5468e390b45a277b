"""What a posted list of messages means for a stored conversation.

Clients come in two styles: some send the whole history again, some only the new turn. Which
one it is, in this order:
  1. the post contains an assistant message          -> whole history
  2. its first messages equal the stored ones        -> whole history
  3. otherwise                                       -> new turns, appended
System messages stand outside of this: the last one given is the one in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

RoleName = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One message. `partial`: the client left before the answer was whole.

    `tokens` is None until they have been counted; `key` names a stored message.
    """

    role: RoleName
    content: str
    partial: bool = False
    tokens: int | None = None
    key: int | None = None

    def same_as(self, other: Message) -> bool:
        """Whether both say the same; how they came about does not matter."""
        return self.role == other.role and self.content == other.content

    def continuing(self, begun: Message) -> Message:
        """The whole answer, of which `begun` is the beginning and this the rest."""
        both = None not in (self.tokens, begun.tokens)
        tokens = (self.tokens or 0) + (begun.tokens or 0) if both else None
        return replace(self, content=begun.content + self.content, tokens=tokens, key=begun.key)


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
    if not _is_whole_history(stored, turns):
        return Merged(in_force, tuple(stored), (), tuple(turns))
    common = _common_prefix(stored, turns)
    kept, superseded = tuple(stored[:common]), tuple(stored[common:])
    return Merged(in_force, kept, superseded, tuple(turns[common:]))


def _is_whole_history(stored: Sequence[Message], turns: Sequence[Message]) -> bool:
    if any(message.role == "assistant" for message in turns):
        return True
    return bool(stored and turns) and turns[0].same_as(stored[0])


def _common_prefix(one: Sequence[Message], other: Sequence[Message]) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if not left.same_as(right):
            break
        length += 1
    return length
