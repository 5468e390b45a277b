"""Translates regular expressions of JSON schemas into those that engines enforce.

llama.cpp reads a small part of the syntax, takes a pattern for one of the whole string, and accepts
any string where it does not know something. JSON schemas want a match anywhere in the string.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from myllm.gateway.constraints.characters import ALL, literal, one_of
from myllm.gateway.constraints.lengths import length, within_length
from myllm.gateway.constraints.regex import Anchor, Chars, Either, Node, Repeat, Unsupported, parse

_REMEMBERED: Final = 512
_ANYTHING: Final = Repeat(Chars(ALL), 0, None)


@dataclass(frozen=True, slots=True)
class Translated:
    """A pattern for an engine, and how many characters what it matches has. `most` None is without
    an end. `whole` is what it was made of, as a pattern of whole strings."""

    text: str
    least: int
    most: int | None
    whole: Either

    def with_length(self, least: int, most: int | None) -> Translated:
        """Return the pattern for texts of `least` to `most` characters. Raises Unsupported."""
        within = within_length(self.whole, least, most)
        return self if within is self.whole else _translated(within)


@lru_cache(_REMEMBERED)
def translate(pattern: str) -> Translated:
    """Return what an engine needs for `pattern`. Raises Unsupported for what cannot be said."""
    ways = [_anchored(row) for row in _flat(parse(pattern))]
    return _translated(Either(tuple(ways)))


def _translated(whole: Either) -> Translated:
    least, most = length(whole)
    return Translated(f"^{_spelled(whole)}$", least, most, whole)


def _flat(whole: Either) -> Iterator[tuple[Node, ...]]:
    """The alternatives; those of a group that is one of them by itself count as such."""
    for row in whole.ways:
        if len(row) == 1 and isinstance(row[0], Either):
            yield from _flat(row[0])
        else:
            yield row


def _anchored(row: Sequence[Node]) -> tuple[Node, ...]:
    """Return the alternative as one of whole strings, without its anchors."""
    items = list(row)
    starts, ends = False, False
    while items and items[0] == Anchor(True):
        starts = True
        del items[0]
    while items and items[-1] == Anchor(False):
        ends = True
        del items[-1]
    if any(_has_anchor(item) for item in items):
        raise Unsupported("an anchor inside")
    if not starts:
        while items and (shorter := _least(items[0])) != items[:1]:
            items[:1] = shorter
        items.insert(0, _ANYTHING)
    if not ends:
        while len(items) > 1 and (shorter := _least(items[-1])) != items[-1:]:
            items[-1:] = shorter
        if items != [_ANYTHING]:
            items.append(_ANYTHING)
    return tuple(items)


def _least(item: Node) -> list[Node]:
    """Return what `item` must have at least, which is enough where anything may follow."""
    if not isinstance(item, Repeat):
        return [item]
    if item.least < 2:
        return [item.item] * item.least
    return [Repeat(item.item, item.least, item.least)]


def _has_anchor(node: Node) -> bool:
    match node:
        case Anchor():
            return True
        case Repeat():
            return _has_anchor(node.item)
        case Either():
            return any(_has_anchor(item) for row in node.ways for item in row)
    return False


def _spelled(node: Either) -> str:
    """Return alternatives as text; what may be empty is made optional, since none may be empty."""
    ways = ["".join(map(_item, row)) for row in node.ways]
    spelled = "|".join(way for way in ways if way)
    return f"({spelled})?" if spelled and "" in ways else spelled


def _item(node: Node) -> str:
    match node:
        case Chars(ranges):
            return literal(ranges[0][0]) if node.is_one else _atom(node)
        case Repeat():
            atom = _atom(node.item)
            return f"{atom}{_times(node.least, node.most)}" if atom and node.most != 0 else ""
        case Either():
            return _atom(node)
    raise Unsupported("an anchor inside")


def _atom(node: Node) -> str:
    """Return `node` as one item, behind which a quantifier belongs to all of it."""
    if isinstance(node, Chars):
        if node.is_one:
            # An engine would repeat all of an escape and what is before it, or a byte of `é`.
            spelled = literal(node.ranges[0][0])
            return spelled if len(spelled) == 1 and spelled.isascii() else f"({spelled})"
        spelled, is_one = one_of(node.ranges)
        if not spelled:
            raise Unsupported("a class without characters")
        return spelled if is_one else f"({spelled})"
    spelled = _spelled(node) if isinstance(node, Either) else _item(node)
    return f"({spelled})" if spelled else ""


def _times(least: int, most: int | None) -> str:
    match least, most:
        case 1, 1:
            return ""
        case 0, 1:
            return "?"
        case 0, None:
            return "*"
        case 1, None:
            return "+"
    end = "" if most is None else str(most)
    return f"{{{least}}}" if most == least else f"{{{least},{end}}}"
