"""JSON from outside, parsed within bounds."""

from __future__ import annotations

from typing import Any

import orjson

from myllm.errors import InvalidRequest
from myllm.limits import NESTING, SEPARATORS, VALUES

_NESTED = (dict, list)


def parse_json(text: bytes, what: str = "The body") -> Any:
    """The value of `text`. It contains no NaN, no infinity and no integer of more than 64 bits: a
    larger one becomes a float.

    Raises InvalidRequest about `what` if the text is not JSON or exceeds `SEPARATORS`, `VALUES` or
    `NESTING`.
    """
    brackets, separators = check_separators(text, what)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as failure:
        if not _is_utf8(text):
            raise InvalidRequest(f"{what} is not valid JSON in UTF-8") from None
        raise InvalidRequest(f"{what} is not valid JSON: {failure}") from None
    if brackets > NESTING and _is_too_deep(value):
        raise InvalidRequest(f"{what} has more than {NESTING} lists and objects inside each other")
    if separators > VALUES and (values := _count(value)) > VALUES:
        raise InvalidRequest(f"{what} has {values} values; {VALUES} are taken at most")
    return value


def check_separators(text: bytes, what: str) -> tuple[int, int]:
    """Refuse a text that may have too many values, before it is parsed.

    Returns how many lists and objects it has at most, and how many values of all kinds.
    """
    brackets = text.count(b"[") + text.count(b"{")
    separators = brackets + text.count(b",")
    if separators > SEPARATORS:
        raise InvalidRequest(
            f"{what} has {separators} commas and opening brackets; {SEPARATORS} are taken at most"
        )
    return brackets, separators


def _count(value: Any) -> int:
    """The values in a list or object, at any depth."""
    values, rest = 0, [value] if type(value) in _NESTED else []
    while rest:
        each = rest.pop()
        values += len(each)
        children = each.values() if type(each) is dict else each
        rest.extend(child for child in children if type(child) in _NESTED)
    return values


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
