"""The order in which the items of an answer came.

A model may say something, call a tool and go on: its text and its thinking are then several items
with a call between them. They are stored as one text each, and the order says where they part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

from myllm.gateway.generation.events import Call, CallPart, Thinking, Token

Kind = Literal["reasoning", "message", "call"]
Segment = list[Any]
"""A kind, and how many characters of it came together; or "call", and the id of the call."""


class Order:
    """Notes the order of an answer's pieces in `segments`, a list as it is stored."""

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments
        self._called: set[int] = set()

    def take(self, piece: Token | Thinking | CallPart) -> None:
        """Note the next piece."""
        match piece:
            case Token(text):
                self._add("message", len(text))
            case Thinking(text):
                self._add("reasoning", len(text))
            case CallPart(index, call_id) if index not in self._called:
                self._called.add(index)
                self._segments.append(["call", call_id])

    def _add(self, kind: Kind, chars: int) -> None:
        if self._segments and self._segments[-1][0] == kind:
            self._segments[-1][1] += chars
        elif chars:
            self._segments.append([kind, chars])


def in_order(
    order: Sequence[Segment], text: str, thinking: str, calls: Sequence[Call]
) -> list[tuple[Kind, str | Call | None]]:
    """Return an answer's items in their order: texts, and calls, with None for one that is missing
    in `calls` because it was cut.

    What `order` does not know of comes first, except for calls: thinking, then text.
    """
    texts = {"message": text, "reasoning": thinking}
    segments = [[*segment] for segment in order]
    for kind, whole in texts.items():
        mine = [segment for segment in segments if segment[0] == kind]
        unknown = len(whole) - sum(segment[1] for segment in mine)
        if mine:
            mine[0][1] += max(unknown, 0)
        elif unknown:
            segments.insert(0, [kind, unknown])
    made: list[tuple[Kind, str | Call | None]] = []
    waiting, at = deque(calls), {"message": 0, "reasoning": 0}
    for kind, what in segments:
        if kind == "call":
            is_there = bool(waiting) and waiting[0].id == what
            made.append((kind, waiting.popleft() if is_there else None))
            continue
        piece = texts[kind][at[kind] : at[kind] + what]
        at[kind] += what
        if piece:
            made.append((kind, piece))
    made += [("call", call) for call in waiting]
    return made or [("message", "")]
