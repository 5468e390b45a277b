"""Says combined schemas (`allOf`, `anyOf`, `enum` beside other keywords) as an engine reads them.

An engine reads one of `$ref`, `oneOf`, `anyOf`, `const`, `enum` and ignores what stands beside it.
`allOf` it reads only where nothing else has properties, and only as one object of all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from myllm.gateway.constraints.keywords import (
    ALTERNATIVES,
    BOUNDS,
    COUNTS,
    Schema,
    asserting,
    is_admitted,
    merged,
    types_of,
)
from myllm.gateway.constraints.matching import matching
from myllm.gateway.constraints.regex import Unsupported

Unsaid = tuple[str, str]
"""A keyword that cannot be enforced where it stands, and why."""
Resolve = Callable[[Schema], Schema | None]
"""Returns what the references of a schema lead to, or itself; None: nothing."""

_NEVER: Final[Schema] = {"not": {}}
_MAX_PARTS: Final = 100
# Of `required`, written into each of the alternatives.
_MAX_WRITTEN: Final = 10_000
_OF_STRINGS: Final = frozenset({"pattern", "format"})
_OF_LISTS: Final = frozenset(
    {"items", "prefixItems", "additionalItems", "contains", "minContains", "maxContains",
     "uniqueItems"}
)  # fmt: skip
_OF_OBJECTS: Final = frozenset(
    {"properties", "required", "additionalProperties", "propertyNames", "minProperties",
     "maxProperties"}
)  # fmt: skip


def combined(schema: Schema, resolve: Resolve) -> Iterator[Unsaid]:
    """Change `schema` into what an engine reads. The caller removes each keyword it is given,
    before it goes on, or refuses the schema."""
    yield from _all_of(schema, resolve)
    if "oneOf" in schema and "anyOf" in schema:
        yield "anyOf", "anyOf cannot be enforced beside oneOf"
    for name in ALTERNATIVES:
        if isinstance(schema.get(name), list):
            yield from _alternatives(schema, name, resolve)
    if not any(name in schema for name in ALTERNATIVES):
        yield from _values(schema)


def _all_of(schema: Schema, resolve: Resolve) -> Iterator[Unsaid]:
    parts = schema.get("allOf")
    if not (isinstance(parts, list) and all(isinstance(part, dict) for part in parts)):
        return
    whole = {name: value for name, value in schema.items() if name != "allOf"}
    left: list[Schema] = []
    rest = deque(parts)
    while rest:
        part = rest.popleft()
        inner = part.get("allOf")
        if isinstance(inner, list) and all(isinstance(each, dict) for each in inner):
            part = {name: value for name, value in part.items() if name != "allOf"}
            rest.extendleft(reversed(inner))
        joined = None
        if "$ref" not in part and len(parts) + len(rest) <= _MAX_PARTS:
            joined = merged(whole, part)
        if joined is None:
            left.append(part)
        else:
            whole = joined
    said = _with_references(whole, left, resolve)
    schema.clear()
    schema |= {**whole, "allOf": left} if said is None else said
    if said is None:
        yield "allOf", "allOf cannot be enforced with these parts and what stands beside it"


def _with_references(whole: Schema, left: list[Schema], resolve: Resolve) -> Schema | None:
    """Return what says both as an engine reads it; None where that is not possible."""
    if not left:
        return whole
    own = asserting(whole)
    is_alone = len(left) == 1 and "$ref" in left[0] and own <= {"type"}
    if is_alone and (not own or _has_types(left[0], types_of(whole), resolve)):
        return {name: value for name, value in whole.items() if name != "type"} | left[0]
    if not (own <= {"type", "properties", "required"} and types_of(whole) in (None, {"object"})):
        return None
    kept = {name: value for name, value in whole.items() if name not in ("properties", "required")}
    if own - {"type"}:
        moved: Schema = {name: whole[name] for name in ("properties", "required") if name in whole}
        left = [*left, {"type": "object", **moved}]
    return {**kept, "allOf": left} if _is_one_object(left, resolve) else None


def _is_one_object(parts: list[Schema], resolve: Resolve) -> bool:
    """Whether an engine's object with all properties of `parts` fits each of them."""
    names: set[str] = set()
    required: set[Any] = set()
    for part in parts:
        target = resolve(part)
        if target is None or not asserting(target) <= {"type", "properties", "required"}:
            return False
        properties, wanted = target.get("properties", {}), target.get("required", [])
        if types_of(target) not in (None, {"object"}) or not isinstance(properties, dict):
            return False
        if names & properties.keys() or not isinstance(wanted, list):
            return False
        names |= properties.keys()
        required |= {name for name in wanted if isinstance(name, str)}
    return required <= names


def _has_types(schema: Schema, types: set[str] | None, resolve: Resolve) -> bool:
    """Whether all that an engine writes for a reference is of these types."""
    target = resolve(schema)
    if target is None or types is None or not asserting(target).isdisjoint(ALTERNATIVES):
        return False
    found = types_of(target)
    if found is None:
        found = {"object"} if "properties" in target else set()
    return bool(found) and found <= types | ({"integer"} if "number" in types else set())


def _alternatives(schema: Schema, name: str, resolve: Resolve) -> Iterator[Unsaid]:
    """Write the type and `required` into each alternative; nothing else may be beside them."""
    ways = schema[name]
    if _NEVER in ways and any(way != _NEVER for way in ways):
        ways = [way for way in ways if way != _NEVER]
    written: Schema = {each: schema[each] for each in ("type", "required") if each in schema}
    hidden = sorted(asserting(schema) - {name, *written})
    required = written.get("required", [])
    if not isinstance(required, list) or len(required) * len(ways) > _MAX_WRITTEN:
        hidden.append("required")
    found: list[Any] = []
    for way in ways if written and not hidden else ():
        if not isinstance(way, dict):
            found.append(way)  # the engine refuses it
        elif "$ref" in way:
            if "type" in written and not _has_types(way, types_of(schema), resolve):
                hidden.append("type")
            if not set(map(str, required)) <= set(map(str, _required(resolve(way)))):
                hidden.append("required")
            found.append(way)
        elif (joined := merged(way, written)) is not None:
            found.append(joined)
    if hidden or (written and not found):
        yield name, f"{name} cannot be enforced beside {(hidden or ['type'])[0]}"
    else:
        schema[name] = found if written else ways


def _required(schema: Schema | None) -> list[Any]:
    required = schema.get("required") if schema else None
    return required if isinstance(required, list) else []


def _values(schema: Schema) -> Iterator[Unsaid]:
    """Keep of `enum` only what the keywords beside it admit."""
    name = next((each for each in ("const", "enum") if each in schema), None)
    values = schema.get("enum") if name == "enum" else [schema.get("const")]
    if name is None or not isinstance(values, list) or not values:
        return
    kept = [value for value in values if is_admitted(schema, value)]
    beside = asserting(schema) - {name, "type", *BOUNDS, *COUNTS}
    if "enum" in beside and isinstance(schema["enum"], list):
        kept = [value for value in kept if value in schema["enum"]]
        beside.discard("enum")
    if isinstance(pattern := schema.get("pattern"), str):
        try:
            texts = set(matching(pattern, [value for value in kept if isinstance(value, str)]))
            kept = [value for value in kept if not isinstance(value, str) or value in texts]
            del schema["pattern"]
            beside.discard("pattern")
        except Unsupported:
            pass
    for other in sorted(beside):
        if _may_concern(other, kept):
            yield other, f"{other} cannot be enforced beside {name}"
    if not kept:
        yield ("type" if "type" in schema else name), f"no value of {name} fits what is beside it"
    elif name == "enum" and len(kept) < len(values):
        schema["enum"] = kept


def _may_concern(keyword: str, values: list[Any]) -> bool:
    for keywords, kind in ((_OF_STRINGS, str), (_OF_LISTS, list), (_OF_OBJECTS, dict)):
        if keyword in keywords:
            return any(isinstance(value, kind) for value in values)
    return True
