"""Sets of characters, as ranges of code points, and how an engine's pattern spells them.

An engine matches a pattern against the text of a JSON string, not against what that text means. So
a quote in the pattern must become an escaped one, or the answer would not be JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Ranges = tuple[tuple[int, int], ...]
"""First and last code points, ascending, with gaps between them."""

_LAST: Final = 0x10FFFF
_REMEMBERED: Final = 256
ALL: Final[Ranges] = ((0, _LAST),)
_ASCII_NAMES: Final = {"b": 8, "t": 9, "n": 10, "f": 12, "r": 13, '"': 0x22, "\\": 0x5C}
# What JSON spells by an escape, or engines never write.
_ESCAPED: Final[Ranges] = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F))
_SURROGATES: Final = (0xD800, 0xDFFF)
_CONTROLS: Final = sorted({*range(0x20)} - {*_ASCII_NAMES.values()})


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return what is in any of `ranges`."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def complement(ranges: Ranges) -> Ranges:
    """Return every character that is not in `ranges`."""
    found, start = [], 0
    for first, last in ranges:
        if start < first:
            found.append((start, first - 1))
        start = last + 1
    return (*found, (start, _LAST)) if start <= _LAST else tuple(found)


def contains(ranges: Ranges, code: int) -> bool:
    """Whether the character is one of `ranges`."""
    return any(first <= code <= last for first, last in ranges)


DIGITS: Final = union([(0x30, 0x39)])
WORD: Final = union([*DIGITS, (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
SPACE: Final = union(
    [(9, 13), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
     (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]
)  # fmt: skip
DOT: Final = complement(union([(10, 10), (13, 13), (0x2028, 0x2029)]))


def literal(code: int) -> str:
    """Return the pattern of one character that nothing repeats."""
    char = chr(code)
    if contains(_ESCAPED, code):
        return _json_escape(code)
    return f"\\{char}" if char in "^$.[]()|{}*+?" else char


@lru_cache(_REMEMBERED)
def one_of(ranges: Ranges) -> tuple[str, bool]:
    """Return the pattern of one character of `ranges`, and whether it is one item, which a
    quantifier may follow. Returns nothing if a JSON string can have none of them."""
    plain = complement(union([*complement(ranges), *_ESCAPED, _SURROGATES]))
    is_open = contains(ranges, _LAST)
    ways = [_class(plain, is_open)] if plain else []
    named = "".join(name for name, code in _ASCII_NAMES.items() if contains(ranges, code))
    if named:
        # A class of one is still a class, so that a quantifier would belong to it alone.
        ways.append(f"\\\\[{named.replace(chr(0x5C), chr(0x5C) * 2)}]")
    if not is_open:  # "everything but" means no control characters, which have no short names
        ways += [_json_escape(code) for code in _CONTROLS if contains(ranges, code)]
    return "|".join(ways), len(ways) == 1 and bool(plain)


def _json_escape(code: int) -> str:
    """Return the pattern of a character's escape; its backslash is escaped in the pattern."""
    for name, named in _ASCII_NAMES.items():
        if code == named:
            return f"\\\\{name.replace(chr(0x5C), chr(0x5C) * 2)}"
    return f"\\\\u{code:04x}" if code != 0x7F else "\\x7F"


def _class(plain: Ranges, is_open: bool) -> str:
    if is_open:  # shorter by what is not in it
        left_out = complement(union([*plain, _SURROGATES]))
        return f"[^{''.join(map(_range, left_out))}]"
    return f"[{''.join(map(_range, plain))}]"


def _range(ends: tuple[int, int]) -> str:
    first, last = (_in_class(code) for code in ends)
    if ends[0] == ends[1]:
        return first
    return f"{first}{last}" if ends[1] == ends[0] + 1 else f"{first}-{last}"


def _in_class(code: int) -> str:
    char = chr(code)
    if code < 0x80:
        if char in '"\\[]-':
            return f"\\{char}"
        return char if char.isprintable() and char != "^" else f"\\x{code:02X}"
    if char.isprintable():
        return char
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
