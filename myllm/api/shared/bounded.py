"""Types of fields with the bounds of `myllm.limits`; every request's schema uses them.

Validation of a list stops at the first wrong item: collecting a million errors takes gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field

from myllm.limits import (
    BIASES,
    INPUTS,
    MESSAGES,
    NAME_CHARS,
    PARTS,
    STOP_CHARS,
    STOPS,
    TOKENS,
    TOOLS,
    WHOLE,
)

T = TypeVar("T")


def at_most(limit: int) -> Callable[[Any], Any]:
    """Return a validator that refuses more entries before it looks at any of them."""

    def check(value: Any) -> Any:
        if isinstance(value, dict | list) and len(value) > limit:
            raise ValueError(f"must have {limit} entries at most, not {len(value)}")
        return value

    return check


def _few_parts(value: Any) -> Any:
    """Limit the parts of all messages together, since each message may have the most of one."""
    if isinstance(value, list):
        parts = sum(map(_parts, value[:MESSAGES]))
        if parts > PARTS:
            raise ValueError(f"must have {PARTS} parts, images and tool calls at most, not {parts}")
    return value


def _parts(message: Any) -> int:
    if not isinstance(message, dict):
        return 0
    return sum(len(each) + sum(map(len, _results(each))) for each in _lists(message))


def _let_others_run(value: Any) -> Any:
    """Do nothing: Python can pass its lock on to another thread whenever it calls a function of
    Python, while the validation of a list is otherwise one long call of C."""
    return value


def _lists(message: dict[str, Any]) -> Iterator[list[Any]]:
    for name in ("content", "tool_calls", "images", "output"):
        each = message.get(name)
        if isinstance(each, list):
            yield each


def _results(parts: list[Any]) -> Iterator[list[Any]]:
    """In Anthropic's form, the results of tools and documents have parts of their own."""
    for part in parts:
        if isinstance(part, dict):
            for holder in (part, part.get("source")):
                if isinstance(holder, dict) and isinstance(holder.get("content"), list):
                    yield holder["content"]


Name = Annotated[str, Field(max_length=NAME_CHARS)]
"""A name, an id or an address: a text that no model reads."""

Whole = Annotated[int, Field(ge=-WHOLE, le=WHOLE)]
Token = Annotated[int, Field(ge=0, le=WHOLE)]
Tokens = Annotated[list[Token], Field(max_length=TOKENS, fail_fast=True)]

Stop = Annotated[str, Field(max_length=STOP_CHARS)]
Stops = Annotated[list[Stop], Field(max_length=STOPS, fail_fast=True)]

_Biases = Annotated[list[tuple[Whole | Name, float | bool]], Field(fail_fast=True)]
Biases = Annotated[dict[Name, float] | _Biases, BeforeValidator(at_most(BIASES))]
"""`logit_bias`: additions to the scores of tokens, named by their ids or texts."""

_Large = Annotated[T, BeforeValidator(_let_others_run)]

Parts = Annotated[
    list[_Large[T]], Field(max_length=PARTS, fail_fast=True), BeforeValidator(at_most(PARTS))
]
"""The parts of one message: content parts, images, tool calls."""

Messages = Annotated[
    list[_Large[T]],
    Field(max_length=MESSAGES, fail_fast=True),
    BeforeValidator(_few_parts),
    BeforeValidator(at_most(MESSAGES)),
]
Tools = Annotated[
    list[_Large[T]], Field(max_length=TOOLS, fail_fast=True), BeforeValidator(at_most(TOOLS))
]
Inputs = Annotated[list[T], Field(max_length=INPUTS, fail_fast=True)]
"""Texts to embed or to score."""
