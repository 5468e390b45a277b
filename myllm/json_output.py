"""JSON for engines and clients, written without keeping other threads waiting.

The encoder keeps Python's lock until it has ended: 65 ms for a text of 8 million quotes. So a large
value is written in a thread, in pieces of a millisecond; only joining them takes some more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, Final

import orjson

# Writing so many characters takes a millisecond at worst.
_LARGE: Final = 2**18
_ENTRY_CHARS: Final = 16  # an entry of a list or an object takes as long as so many characters
_MANY: Final = 2**12
# What is written in one piece.
_STEP_CHARS: Final = 2**16
_STEP: Final = 128
_NUMBERS: Final = frozenset({int, float})
_SCALARS: Final = frozenset({int, float, bool, NoneType})


async def dumped(value: Any) -> bytes:
    """Return `value` as JSON. Raises TypeError for what JSON or UTF-8 cannot express."""
    if is_large(value):
        return await asyncio.to_thread(dump_in_steps, value)
    return orjson.dumps(value)  # most are small, and taking them apart would cost more


def is_large(value: Any) -> bool:
    """Whether writing `value` may take more than a millisecond; looks at no more than that."""
    left, values = _LARGE, [value]
    while values:
        each = values.pop()
        kind = type(each)
        if kind is str:
            left -= len(each)
        elif kind not in _SCALARS:
            held = each if kind is list else _held(each)
            left -= _ENTRY_CHARS * len(held)
            if len(held) > _MANY:
                return True
            values += held
        if left < 0:
            return True
    return False


def dump_in_steps(
    value: Any, default: Callable[[Any], Any] | None = None, option: int = 0
) -> bytes:
    """Return what `orjson.dumps` returns, but let other threads run meanwhile."""
    return orjson.dumps(_in_steps(value), default, option)


def _held(value: Any) -> Collection[Any]:
    """Return the values in a list, an object or a dataclass; there are none in others."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    return _fields(value).values() if is_dataclass(value) else ()


def _fields(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _in_steps(value: Any) -> Any:
    """Return `value` with what takes long in it already written."""
    if isinstance(value, str):
        return value if len(value) <= _STEP_CHARS else _text(value)
    if isinstance(value, dict):
        return {name: _in_steps(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return _list(value)
    return _in_steps(_fields(value)) if is_dataclass(value) else value


def _text(text: str) -> orjson.Fragment:
    steps = (text[start : start + _STEP_CHARS] for start in range(0, len(text), _STEP_CHARS))
    return orjson.Fragment(b'"%b"' % b"".join([orjson.dumps(step)[1:-1] for step in steps]))


def _list(values: Sequence[Any]) -> Any:
    if len(values) <= _STEP:
        return _entries(values)
    steps = (values[start : start + _STEP] for start in range(0, len(values), _STEP))
    written = [orjson.dumps(_entries(each))[1:-1] for each in steps]
    return orjson.Fragment(b"[%b]" % b",".join(written))


def _entries(values: Sequence[Any]) -> Sequence[Any]:
    if _NUMBERS.issuperset(map(type, values)):
        return values
    return [_in_steps(each) for each in values]
