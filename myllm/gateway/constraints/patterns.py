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
from myllm.gateway.constraints.regex import Anchor, Chars, Either, Node, Repeat, Unsupported, parse

_REMEMBERED: Final = 512
_ANYTHING: Final = Repeat(Chars(ALL), 0, None)


@dataclass(frozen=True, slots=True)
class Translated:
    """A pattern for an engine, and how many characters what it matches has. `most` None is without
    an end; `repeats` is whether it is one class of characters, repeated, so that `with_length` can
    change how often."""

    text: str
    least: int
    most: int | None
    repeated: Chars | None

    def with_length(self, least: int, most: int | None) -> Translated:
        """Return the pattern for texts of `least` to `most` characters. Raises Unsupported."""
        if self.least >= least and (most is None or (self.most or most + 1) <= most):
            return self
        if self.repeated is None:
            raise Unsupported("a length besides the pattern, which only one class may have")
        most = min((end for end in (most, self.most) if end is not None), default=None)
        least = max(least, self.least)
        if most is not None and least > most:
            raise Unsupported("a length that no match has")
        return _translated(Either(((Repeat(self.repeated, least, most),),)))


@lru_cache(_REMEMBERED)
def translate(pattern: str) -> Translated:
    """Return what an engine needs for `pattern`. Raises Unsupported for what cannot be said."""
    ways = [_anchored(row) for row in _flat(parse(pattern))]
    return _translated(Either(tuple(ways)))


def _translated(whole: Either) -> Translated:
    least, most = _length(whole)
    only = whole.ways[0][0] if len(whole.ways) == 1 and len(whole.ways[0]) == 1 else None
    repeated = only.item if isinstance(only, Repeat) and isinstance(only.item, Chars) else None
    return Translated(f"^{_spelled(whole)}$", least, most, repeated)


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


def _length(node: Node) -> tuple[int, int | None]:
    match node:
        case Repeat():
            least, most = _length(node.item)
            longest = None if most is None or node.most is None else most * node.most
            return least * node.least, 0 if most == 0 else longest
        case Either():
            rows = [[_length(item) for item in row] for row in node.ways]
            most_of = [_sum(most for _, most in row) for row in rows]
            shortest = min(sum(least for least, _ in row) for row in rows)
            return shortest, None if None in most_of else max(filter(None, most_of), default=0)
    return 1, 1


def _sum(numbers: Iterator[int | None]) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def _spelled(node: Either) -> str:
    """Return alternatives as text; what may be empty is made optional, since none may be empty."""
    ways = ["".join(map(_item, row)) for row in node.ways]
    spelled = "|".join(way for way in ways if way)
    return f"({spelled})?" if spelled and "" in ways else spelled


def _item(node: Node) -> str:
    match node:
        case Chars(ranges):
            if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
                return literal(ranges[0][0])
            return _atom(node)
        case Repeat():
            atom = _atom(node.item)
            return f"{atom}{_times(node.least, node.most)}" if atom and node.most != 0 else ""
        case Either():
            return _atom(node)
    raise Unsupported("an anchor inside")


def _atom(node: Node) -> str:
    """Return `node` as one item, behind which a quantifier belongs to all of it."""
    if isinstance(node, Chars):
        spelled, is_one = one_of(node.ranges)
        if not spelled:
            raise Unsupported("a class without characters")
        return spelled if is_one else f"({spelled})"
    spelled = _spelled(node) if isinstance(node, Either) else _item(node)
    return f"({spelled})" if spelled else ""


def _times(least: int, most: int | None) -> str:
    match least, most:
        case 0, 1:
            return "?"
        case 0, None:
            return "*"
        case 1, None:
            return "+"
    end = "" if most is None else str(most)
    return f"{{{least}}}" if most == least else f"{{{least},{end}}}"
