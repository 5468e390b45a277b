"""JSON from outside, parsed within bounds."""

from __future__ import annotations

from typing import Any, Final

import orjson

from myllm.errors import InvalidRequest
from myllm.limits import CONTAINERS, NESTING, VALUES

_NESTED = (dict, list)
# A text with fewer commas and brackets, those within its strings included, is parsed within some
# milliseconds.
_FEW: Final = 20_000
# Bytes that are read at once, so that other threads can run: that takes a millisecond at most.
_STEP: Final = 2**15
_SIMPLE_STEP: Final = 2**20


def parse_json(text: bytes, what: str = "The body") -> Any:
    """The value of `text`. It contains no NaN, no infinity and no integer of more than 64 bits: a
    larger one becomes a float.

    Raises InvalidRequest about `what` if the text is not JSON or exceeds `VALUES`, `CONTAINERS` or
    `NESTING`.
    """
    containers = check_values(text, what)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as failure:
        if not _is_utf8(text):
            raise InvalidRequest(f"{what} is not valid JSON in UTF-8") from None
        raise InvalidRequest(f"{what} is not valid JSON: {failure}") from None
    if containers > NESTING and _is_too_deep(value):
        raise InvalidRequest(f"{what} has more than {NESTING} lists and objects inside each other")
    return value


def check_values(text: bytes, what: str) -> int:
    """Refuse a text with too many values before it is parsed; return how many lists and objects it
    has at most."""
    possible = 0
    for start in range(0, len(text), _SIMPLE_STEP):
        step = text[start : start + _SIMPLE_STEP]
        possible += _containers(step) + step.count(b",")
        if possible > _FEW:
            return _count_exactly(text, what)
    return possible


def _count_exactly(text: bytes, what: str) -> int:
    values = containers = start = 0
    is_inside = False
    while start < len(text):
        step = text[start : start + _STEP]
        if (len(step) - len(step.rstrip(b"\\"))) % 2:  # do not cut an escape
            step = text[start : start + len(step) + 1]
        start += len(step)
        # What is left has no quotes but those around strings.
        parts = step.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b" ".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0
        containers += _containers(outside)
        values += _containers(outside) + outside.count(b",")
        if values > VALUES:
            raise InvalidRequest(f"{what} has more than {VALUES} values")
        if containers > CONTAINERS:
            raise InvalidRequest(f"{what} has more than {CONTAINERS} lists and objects")
    return containers


def _containers(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def _is_too_deep(value: Any) -> bool:
    """Descends level by level: a recursion would itself overflow on deep input."""
    level = [value] if type(value) in _NESTED else []
    for _ in range(NESTING):
        level = [
            child
            for each in level
            for child in (each.values() if type(each) is dict else each)
            if type(child) in _NESTED
        ]
    return bool(level)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
