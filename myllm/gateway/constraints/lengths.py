"""How long the texts are that a pattern matches, and patterns for those of certain lengths.

Engines ignore `minLength` and `maxLength` beside a pattern, so the pattern itself has to say them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from myllm.gateway.constraints.regex import Either, Node, Repeat, Unsupported

Row = tuple[Node, ...]
# An engine follows all alternatives at once.
_MAX_WAYS: Final = 16
_MAX_TRIED: Final = 256


def length(node: Node) -> tuple[int, int | None]:
    """Return the least and the most characters of a match; None is without an end."""
    match node:
        case Repeat():
            least, most = length(node.item)
            longest = None if most is None or node.most is None else most * node.most
            return least * node.least, 0 if most == 0 else longest
        case Either():
            rows = [_length_of_row(row) for row in node.ways]
            longest_of = [most for _, most in rows if most is not None]
            longest = max(longest_of) if len(longest_of) == len(rows) else None
            return min(least for least, _ in rows), longest
    return 1, 1


def _length_of_row(row: Row) -> tuple[int, int | None]:
    least, most = 0, 0
    has_end = True
    for each in map(length, row):
        least += each[0]
        has_end = has_end and each[1] is not None
        most += each[1] or 0
    return least, most if has_end else None


def within_length(whole: Either, least: int, most: int | None) -> Either:
    """Return a pattern for exactly those matches that have `least` to `most` characters.

    Returns `whole` itself if all have. Raises Unsupported if none has, or if it would be long.
    """
    shortest, longest = length(whole)
    if shortest >= least and (most is None or (longest is not None and longest <= most)):
        return whole
    ways = _Within(least, most).ways((whole,))
    if not ways:
        raise Unsupported("a length that no match has")
    return Either(tuple(ways))


class _Within:
    """Splits a row of items until each way has one item at most whose repetitions decide."""

    def __init__(self, least: int, most: int | None) -> None:
        self._least = least
        self._most = most
        self._tried = 0

    def ways(self, row: Row) -> list[Row]:
        """Return the alternatives that match what `row` does, in texts of these lengths."""
        found: list[Row] = []
        rest = [row]
        while rest:
            self._tried += 1
            if self._tried > _MAX_TRIED or len(found) > _MAX_WAYS:
                raise Unsupported("a length besides a pattern with too many ways to have it")
            tried = rest.pop()
            shortest, longest = _length_of_row(tried)
            if self._most is not None and shortest > self._most:
                continue
            if longest is not None and longest < self._least:
                continue
            fits = self._most is None or (longest is not None and longest <= self._most)
            if fits and shortest >= self._least:
                found.append(tried)
            else:
                rest += reversed(list(self._split(tried, shortest)))
        return found

    def _split(self, row: Row, shortest: int) -> Iterator[Row]:
        """Return ways that are together the same row, each with less that varies."""
        varying = [i for i, item in enumerate(row) if _varies(item)]
        at = min(varying, key=lambda i: _choices(row[i]))
        before, item, behind = row[:at], row[at], row[at + 1 :]
        if isinstance(item, Either):
            yield from ((*before, *way, *behind) for way in item.ways)
            return
        assert isinstance(item, Repeat)
        each = length(item.item)[0]
        others = shortest - each * item.least
        is_fixed = not _varies(item.item)
        if each == 0:
            raise Unsupported("a length besides a repetition of what may be empty")
        # From `enough` on the text has the least length; beyond `end` it is too long.
        enough = max(item.least, -((others - self._least) // each))
        end = item.most
        if self._most is not None:
            longest = (self._most - others) // each
            end = longest if end is None else min(end, longest)
        if is_fixed and len(varying) == 1:
            if end is None or enough <= end:
                yield (*before, Repeat(item.item, enough, end), *behind)
            return
        last = enough if end is None else end
        if last - item.least > _MAX_WAYS:
            raise Unsupported("a length besides a pattern with too many ways to have it")
        for count in range(item.least, last + (end is not None)):
            yield (*before, *_times(item.item, count, is_fixed), *behind)
        if end is None:
            yield (*before, *_times(item.item, last, is_fixed), Repeat(item.item, 0, None), *behind)


def _varies(item: Node) -> bool:
    shortest, longest = length(item)
    return shortest != longest


def _choices(item: Node) -> int:
    """In how many ways the item varies, to begin with the fewest."""
    if isinstance(item, Either):
        return len(item.ways)
    assert isinstance(item, Repeat)
    return _MAX_TRIED if item.most is None else item.most - item.least


def _times(item: Node, count: int, is_fixed: bool) -> Row:
    """Return the item `count` times; one that varies is split further, each time by itself."""
    if is_fixed and count > 1:
        return (Repeat(item, count, count),)
    return (item,) * count
