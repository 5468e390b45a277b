"""JSON from outside, parsed within bounds."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from myllm.errors import InvalidRequest
from myllm.limits import CONTAINERS, KEYS, NESTING, VALUES

_NESTED = (dict, list)
# A text with fewer commas and brackets, those within its strings included, is parsed within some
# milliseconds.
_FEW: Final = 20_000
# Bytes that are read at once, so that other threads can run: that takes a millisecond at most.
_STEP: Final = 2**15
_SIMPLE_STEP: Final = 2**20
_JSON_TYPE: Final = re.compile(
    r"\s*+(?:(?:application|text)/(?:[\w.!#$&^-]++\+)?json\s*+(?:;|$)|$)", re.IGNORECASE
)
# The escape of half a surrogate pair, or of both halves. It begins with as much literal text as it
# can, because re looks for that fast; so whether its backslash is itself escaped is not part of it.
_SURROGATE: Final = re.compile(
    rb"\\u(?:(?P<pair>[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_HALF: Final = len(rb"\ud83d")
_BACKSLASH: Final = ord("\\")


def is_json_type(content_type: str) -> bool:
    """Whether a body with this Content-Type is read as JSON; one without any is, too.

    A body of another type is not, even if it is JSON: forms on pages of other sites can send such
    bodies without a preflight, so this is a second barrier behind the checks of Origin.
    """
    return content_type == "application/json" or _JSON_TYPE.match(content_type) is not None


def parse_json(text: bytes, what: str = "The body") -> Any:
    """The value of `text`. It contains no NaN, no infinity and no integer of more than 64 bits: a
    larger one becomes a float. Half of a surrogate pair becomes U+FFFD.

    Raises InvalidRequest about `what` if the text is not JSON or exceeds `VALUES`, `CONTAINERS`,
    `KEYS` or `NESTING`.
    """
    containers = check_values(text, what)
    value = _parsed(text, what)
    if containers > NESTING and _is_too_deep(value):
        raise InvalidRequest(f"{what} has more than {NESTING} lists and objects inside each other")
    return value


def _parsed(text: bytes, what: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as failure:
        if "surrogate" in failure.msg and (whole := _SURROGATE.sub(_repaired, text)) != text:
            return _parsed(whole, what)
        if not _is_utf8(text):
            raise InvalidRequest(f"{what} is not valid JSON in UTF-8") from None
        raise InvalidRequest(f"{what} is not valid JSON: {failure}") from None


def _repaired(found: re.Match[bytes]) -> bytes:
    text, start = found.string, found.start()
    run = start
    while run and text[run - 1] == _BACKSLASH:
        run -= 1
    is_text = (start - run) % 2 == 1  # an escaped backslash, and what follows it
    if is_text and found["pair"]:
        return found[0][:-_HALF] + rb"\ufffd"
    return found[0] if is_text or found["pair"] else rb"\ufffd"


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
    values = containers = keys = start = 0
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
        keys += outside.count(b":")
        if values > VALUES:
            raise InvalidRequest(f"{what} has more than {VALUES} values")
        if containers > CONTAINERS:
            raise InvalidRequest(f"{what} has more than {CONTAINERS} lists and objects")
        if keys > KEYS:
            raise InvalidRequest(f"{what} has more than {KEYS} fields of objects")
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
