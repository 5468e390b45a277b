"""Reads regular expressions as JSON schemas have them: those of ECMAScript, and Python's groups.

What no grammar can express is refused, such as a look-ahead, and so is what two languages read
differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from myllm.gateway.constraints.characters import (
    ALL,
    DIGITS,
    DOT,
    SPACE,
    WORD,
    Ranges,
    complement,
    union,
)

_MAX_DEPTH: Final = 64
_CLASSES: Final = {"d": DIGITS, "w": WORD, "s": SPACE}
_CONTROLS: Final = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_HEX: Final = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_QUANTIFIER: Final = re.compile(r"(?:([*+?])|\{(?=[0-9,])([0-9]*)(,?)([0-9]*)\})\??")
_MAX_DIGITS: Final = 9
_ENDS: Final = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_GROUP: Final = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>)?(?!\?)")


class Unsupported(Exception):
    """What of a pattern cannot be enforced, in words."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character."""

    ranges: Ranges

    @property
    def is_one(self) -> bool:
        """Whether only one certain character matches."""
        return len(self.ranges) == 1 and self.ranges[0][0] == self.ranges[0][1]


@dataclass(frozen=True, slots=True)
class Anchor:
    """`^` or `$`."""

    is_start: bool


@dataclass(frozen=True, slots=True)
class Repeat:
    """An item several times; `most` None is without an end."""

    item: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Either:
    """Alternatives, each of them items in a row."""

    ways: tuple[tuple[Node, ...], ...]


Node = Chars | Anchor | Repeat | Either


def parse(pattern: str) -> Either:
    """Return the parts of `pattern`. Raises Unsupported."""
    return _Parser(pattern).parse()


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def parse(self) -> Either:
        whole = self._either(0)
        if self._at < len(self._text):
            raise Unsupported("a parenthesis that was never opened")
        return whole

    def _either(self, depth: int) -> Either:
        if depth > _MAX_DEPTH:
            raise Unsupported(f"parentheses nested more than {_MAX_DEPTH} deep")
        ways: list[tuple[Node, ...]] = []
        row: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] != ")":
            if self._text[self._at] == "|":
                self._at += 1
                ways.append(tuple(row))
                row = []
            else:
                row.append(self._quantified(self._item(depth)))
        return Either((*ways, tuple(row)))

    def _quantified(self, item: Node) -> Node:
        found = _QUANTIFIER.match(self._text, self._at)
        if found is None:
            return item
        if isinstance(item, Anchor):
            raise Unsupported("a quantifier behind an anchor")
        self._at = found.end()
        sign, first, comma, last = found.groups()
        least, most = _ENDS[sign] if sign else _bounds(first, comma, last)
        if self._text[self._at : self._at + 1] in ("*", "+", "?") or _QUANTIFIER.match(
            self._text, self._at
        ):
            raise Unsupported("a quantifier behind a quantifier")
        return Repeat(item, least, most)

    def _item(self, depth: int) -> Node:
        char = self._text[self._at]
        match char:
            case "(":
                return self._group(depth)
            case "[":
                return self._class()
            case "\\":
                return Chars(self._escape(in_class=False))
            case "*" | "+" | "?":
                raise Unsupported(f"a {char} with nothing to repeat")
            case "{" if _QUANTIFIER.match(self._text, self._at):
                raise Unsupported("a quantifier with nothing to repeat")
        self._at += 1
        if char in "^$":
            return Anchor(char == "^")
        return Chars(DOT if char == "." else _one(ord(char)))

    def _group(self, depth: int) -> Node:
        found = _GROUP.match(self._text, self._at)
        if found is None:
            raise Unsupported(f"'{self._text[self._at : self._at + 4]}' (only plain groups are)")
        self._at = found.end()
        inside = self._either(depth + 1)
        if self._at == len(self._text):
            raise Unsupported("a parenthesis that is never closed")
        self._at += 1
        return inside

    def _escape(self, *, in_class: bool) -> Ranges:
        """Read an escape; a pair of surrogates is one character."""
        self._at += 1
        char = self._text[self._at : self._at + 1]
        if (found := _HEX.match(self._text, self._at)) is not None:
            self._at = found.end()
            return _one(self._paired(int(next(filter(None, found.groups())), 16)))
        self._at += 1
        if char.lower() in _CLASSES:
            named = _CLASSES[char.lower()]
            return named if char.islower() else complement(named)
        if char == "0" and self._text[self._at : self._at + 1].isdigit():
            raise Unsupported("an octal escape")
        if char in _CONTROLS and char:
            return _one(_CONTROLS[char])
        if char == "b" and in_class:
            return _one(8)
        if not char or (char.isascii() and char.isalnum()):
            raise Unsupported(f"'\\{char}'")
        return _one(ord(char))

    def _paired(self, code: int) -> int:
        if 0xD800 <= code < 0xDC00 and self._text.startswith("\\u", self._at):
            low = _HEX.match(self._text, self._at + 1)
            if low is not None and low[2] and 0xDC00 <= int(low[2], 16) < 0xE000:
                self._at = low.end()
                return 0x10000 + ((code - 0xD800) << 10) + int(low[2], 16) - 0xDC00
        if 0xD800 <= code < 0xE000 or code > ALL[0][1]:
            raise Unsupported("half of a character (a surrogate)")
        return code

    def _class(self) -> Chars:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        if self._text.startswith("]", self._at):
            raise Unsupported("']' at the beginning of a class, which languages read differently")
        found: list[tuple[int, int]] = []
        while not self._text.startswith("]", self._at):
            first = self._member()
            if self._text.startswith("-", self._at) and self._text[self._at + 1 :][:1] not in "]":
                self._at += 1
                found += _between(first, self._member())
            else:
                found += first
        self._at += 1
        ranges = union(found)
        return Chars(complement(ranges) if negated else ranges)

    def _member(self) -> Ranges:
        if self._at == len(self._text):
            raise Unsupported("a class that is never closed")
        if self._text[self._at] == "\\":
            return self._escape(in_class=True)
        if self._text.startswith(("[:", "[.", "[="), self._at):
            raise Unsupported("a class such as [:alpha:]")
        self._at += 1
        return _one(ord(self._text[self._at - 1]))


def _bounds(first: str, comma: str, last: str) -> tuple[int, int | None]:
    if not first:
        raise Unsupported(f"'{{,{last}}}', which languages read differently")
    if max(len(first), len(last)) > _MAX_DIGITS:
        raise Unsupported(f"a repetition with a number of more than {_MAX_DIGITS} digits")
    least = int(first)
    if not comma:
        return least, least
    most = int(last) if last else None
    if most is not None and most < least:
        raise Unsupported("a quantifier whose ends are in the wrong order")
    return least, most


def _one(code: int) -> Ranges:
    return ((code, code),)


def _between(first: Ranges, last: Ranges) -> Ranges:
    ends = first[0][0], last[0][0]
    if len(first) > 1 or len(last) > 1 or first[0][0] != first[0][1] or last[0][0] != last[0][1]:
        raise Unsupported("a class inside the range of another")
    if ends[0] > ends[1]:
        raise Unsupported("a range whose ends are in the wrong order")
    return (ends,)
