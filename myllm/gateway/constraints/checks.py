"""The limits on what shapes an answer: JSON schemas, regular expressions, grammars, samplers.

An engine computes with these on the one thread that all its requests share, so a few hundred bytes
could stop every client, and some would crash it. The figures next to the limits are of llama-server
(build 11400) on one core with a vocabulary of 49,000 tokens; docs/limits.md lists them for users.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from myllm.errors import InvalidRequest
from myllm.gateway.constraints import repetitions
from myllm.gateway.constraints.repetitions import MAX_REPEATED, Measured

# Of one request, all schemas and tools together.
MAX_BYTES: Final = 4 * 2**20
# Levels of lists and objects; an object in an object takes two.
MAX_NESTED: Final = 100
MAX_VALUES: Final = 100_000
# Optional ones take time with their cube: 500 take 0.25 s, 2,000 take 14 s.
MAX_PROPERTIES: Final = 500
MAX_PROPERTIES_IN_ALL: Final = 10_000
# The engine crashes of 100,000.
MAX_NAME_CHARS: Final = 256
# Joined from the root to each property, for the engine names its rules like this.
MAX_PATH_CHARS: Final = 2 * 2**20
# Each token takes 1.7 ms for each one that is possible.
MAX_ENUM: Final = 1_000
MAX_ENUM_IN_ALL: Final = 10_000
# Of maxLength, maxItems and the like together: 500,000 take 0.4 s and 110 MB.
MAX_REPEATED_IN_ALL: Final = 500_000
MAX_PATTERN_CHARS: Final = 4_096
MAX_GRAMMAR_CHARS: Final = 2**16
MAX_RULES: Final = 5_000
# The engine crashes of 20,000.
MAX_PARENTHESES: Final = 64
MAX_ELEMENTS: Final = 200_000
# `(([a-z]{1,10}){1,10}){1,10}` takes 1.5 s, a fourth one over ten.
MAX_TIMES: Final = 10_000
MAX_REPETITIONS_NESTED: Final = 3
# 16 of `[a-z]?` take 0.3 s, 32 over fifteen.
MAX_OPTIONAL: Final = 64
# Each takes 12 ms with 49,000 tokens.
MAX_BREAKERS: Final = 32
MAX_BREAKER_CHARS: Final = 64
MAX_SAMPLERS: Final = 32

_SCHEMAS: Final = ("json_schema", "response_format", "tools")
_COUNTED: Final = ("minLength", "maxLength", "minItems", "maxItems")
# Longer ones are checked outside the event loop.
_AT_ONCE_BYTES: Final = 8_192


async def check(body: Mapping[str, Any]) -> None:
    """Raise InvalidRequest, which names the limit, when `body` would keep an engine busy.

    `body` is what an engine is asked; what it has besides is not looked at.
    """
    _check_samplers(body)
    schemas = {name: body[name] for name in _SCHEMAS if body.get(name) is not None}
    grammar = body.get("grammar")
    if not (schemas or grammar):
        return
    size = len(grammar) if isinstance(grammar, str) else 0
    for name, value in schemas.items():
        size += _size(name, value)
    if size > _AT_ONCE_BYTES:
        await asyncio.to_thread(check_shape, schemas, grammar)
    else:
        check_shape(schemas, grammar)


def check_shape(schemas: Mapping[str, Any], grammar: Any) -> None:
    """Check the schemas, by the names of their fields, and a GBNF grammar."""
    if isinstance(grammar, str):
        _check_grammar(grammar)
    for name, value in schemas.items():
        schemas_of_field = _Schemas(name)
        for root in _roots(name, value):
            schemas_of_field.check(root)


def _check_samplers(body: Mapping[str, Any]) -> None:
    breakers = body.get("dry_sequence_breakers") or ()
    _at_most(MAX_BREAKERS, len(breakers), "dry_sequence_breakers has", "texts")
    longest = max(map(len, breakers), default=0)
    _at_most(MAX_BREAKER_CHARS, longest, "One of dry_sequence_breakers has", "characters")
    _at_most(MAX_SAMPLERS, len(body.get("samplers") or ()), "samplers has", "names")


def _size(name: str, value: Any) -> int:
    try:
        size = len(orjson.dumps(value))
    except TypeError as failure:
        raise InvalidRequest(f"{name} cannot be passed on: {failure}") from None
    _at_most(MAX_BYTES, size, f"{name} has", "bytes")
    return size


def _check_grammar(grammar: str) -> None:
    _at_most(MAX_GRAMMAR_CHARS, len(grammar), "The grammar has", "characters")
    measured = repetitions.of_grammar(grammar)
    _at_most(MAX_RULES, measured.rules, "The grammar has", "rules")
    _check_ways("The grammar", measured)


def check_pattern(what: str, pattern: str) -> None:
    """Raise InvalidRequest, which names the limit, for a pattern that takes an engine too long."""
    _at_most(MAX_PATTERN_CHARS, len(pattern), f"{what} has", "characters")
    _check_ways(what, repetitions.of_pattern(pattern))


def _check_ways(what: str, measured: Measured) -> None:
    _at_most(MAX_PARENTHESES, measured.depth, f"{what} has parentheses nested", "deep")
    _at_most(MAX_TIMES, measured.times, f"{what} has repetitions that multiply to", "times")
    _at_most(
        MAX_REPETITIONS_NESTED, measured.nested, f"{what} has repetitions of repetitions", "deep"
    )
    _at_most(
        MAX_OPTIONAL,
        measured.optional,
        f"{what} has optional items in a row that count",
        f"(a literal 1, a character class {repetitions.OPTIONAL_CLASS})",
    )
    _at_most(MAX_ELEMENTS, measured.elements, f"{what} is, written out,", "symbols long")


def _roots(field: str, value: Any) -> Iterator[Any]:
    """The schemas in a field of a body, to whose roots their references point."""
    if field == "tools":
        for tool in value if isinstance(value, list) else ():
            yield _at(tool, "function", "parameters")
    elif field == "response_format":
        yield _at(value, "schema")
        yield _at(value, "json_schema", "schema")
    else:
        yield value


def _at(value: Any, *path: str) -> Any:
    """What is at a path into objects and lists; None where there is nothing."""
    for name in path:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name[:9]) < len(value):
            value = value[int(name[:9])]
        else:
            return None
    return value


class _Schemas:
    """The schemas of one field, searched for what is too much of them in all.

    No recursion, for they may be nested to any depth.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._values = self._properties = self._path_chars = self._enum = self._repeated = 0

    def check(self, root: Any) -> None:
        """Raise InvalidRequest."""
        followed: set[str] = set()
        # A value, how deep it is, and how long the names of the properties around it are.
        rest: list[tuple[Any, int, int]] = [(root, 1, 0)]
        while rest:
            value, depth, path = rest.pop()
            if isinstance(value, dict):
                self._look(value, path)
                self._follow(root, value.get("$ref"), followed)
                children: Iterator[tuple[str, Any]] = iter(value.items())
            elif isinstance(value, list):
                children = (("", each) for each in value)
            else:
                continue
            self._at_most(MAX_NESTED, depth, "is nested", "levels deep")
            for name, child in children:
                self._values += 1
                rest.append((child, depth + 1, path + len(name)))
            self._at_most(MAX_VALUES, self._values, "has", "values")

    def _look(self, value: Mapping[str, Any], path: int) -> None:
        properties, enum, pattern = (value.get(n) for n in ("properties", "enum", "pattern"))
        if isinstance(properties, dict):
            self._look_at_properties(properties, path)
        if isinstance(enum, list):
            self._enum += len(enum)
            self._at_most(MAX_ENUM, len(enum), "has an enum of", "values")
            self._at_most(MAX_ENUM_IN_ALL, self._enum, "has enums of", "values in all")
        if isinstance(pattern, str):
            self._at_most(MAX_PATTERN_CHARS, len(pattern), "has a pattern of", "characters")
            _check_ways(f"A pattern of {self._field}", repetitions.of_pattern(pattern))
        for name in _COUNTED:
            if isinstance(count := value.get(name), int):
                self._repeated += min(abs(count), MAX_REPEATED)
        self._at_most(
            MAX_REPEATED_IN_ALL, self._repeated, "has lengths that add up to", "(maxLength, …)"
        )

    def _follow(self, root: Any, ref: Any, followed: set[str]) -> None:
        """Refuse a reference to nothing but itself, over others or not: the engine would crash."""
        here: set[str] = set()
        while isinstance(ref, str) and ref not in followed:
            if ref in here:
                raise InvalidRequest(f"{self._field} has a $ref that leads to itself: {ref[:200]}")
            here.add(ref)
            target = _at(root, *ref.removeprefix("#/").split("/"))
            ref = target.get("$ref") if isinstance(target, dict) else None
        followed |= here

    def _look_at_properties(self, properties: Mapping[str, Any], path: int) -> None:
        self._properties += len(properties)
        names = [len(name) for name in properties]
        self._path_chars += sum(names) + path * len(names)
        self._at_most(MAX_PROPERTIES, len(names), "has an object of", "properties")
        self._at_most(MAX_PROPERTIES_IN_ALL, self._properties, "has", "properties in all")
        self._at_most(
            MAX_NAME_CHARS, max(names, default=0), "has a property's name of", "characters"
        )
        self._at_most(
            MAX_PATH_CHARS,
            self._path_chars,
            "has properties whose names, with those around them, have",
            "characters",
        )

    def _at_most(self, limit: int, found: int, what: str, of: str) -> None:
        if found > limit:
            _at_most(limit, found, f"{self._field} {what}", of)


def _at_most(limit: int, found: int, what: str, of: str) -> None:
    if found > limit:
        raise InvalidRequest(f"{what} {_figure(found)} {of}; the limit is {limit:,}")


def _figure(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"over {10**15:,}"
