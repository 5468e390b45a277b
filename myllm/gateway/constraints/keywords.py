"""What the keywords of a schema say, and how two schemas become one that says what both say."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]
ALTERNATIVES: Final = ("oneOf", "anyOf")
DECIDING: Final = ("not", "if", "patternProperties", "dependentRequired", "dependentSchemas",
                   "dependencies")  # fmt: skip
NARROWING: Final = ("multipleOf", "uniqueItems", "minProperties", "maxProperties", "contains")
BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
COUNTS: Final = ("minLength", "maxLength", "minItems", "maxItems")
_OF_OBJECTS: Final = frozenset({"properties", "additionalProperties", "patternProperties"})
# One of these means something else beside another one than it does alone.
_TOGETHER: Final = (
    _OF_OBJECTS,
    frozenset({"items", "prefixItems", "additionalItems"}),
    frozenset({"if", "then", "else"}),
    frozenset({"contains", "minContains", "maxContains"}),
)
_ASSERTING: Final = frozenset(
    {*ALTERNATIVES, *DECIDING, *NARROWING, *BOUNDS, *COUNTS, "$ref", "type", "enum", "const",
     "required", "pattern", "propertyNames", "allOf"}.union(*_TOGETHER)
)  # fmt: skip
# An engine enforces these; it ignores all others, and so does everything here.
_FORMATS: Final = frozenset({"date", "time", "date-time", "uuid"})


def asserting(schema: Schema) -> set[str]:
    """Return the keywords of `schema` that decide whether a value fits."""
    found = set(_ASSERTING & schema.keys())
    if schema.get("additionalProperties") is True:
        found.discard("additionalProperties")
    if schema.get("format") in _FORMATS:
        found.add("format")
    return found


def types_of(schema: Schema) -> set[str] | None:
    """Return the types that `schema` names; None: it names none."""
    stated = schema.get("type")
    if isinstance(stated, str):
        return {stated}
    return {each for each in stated if isinstance(each, str)} if isinstance(stated, list) else None


def merged(schema: Schema, part: Schema) -> Schema | None:
    """Return one schema for what fits both; None where no single one says it."""
    own, more = asserting(schema), asserting(part)
    if own and more and "$ref" in own | more:
        return None
    whole = {**part, **schema, **{name: part[name] for name in more - own}}
    for name in own & more:
        if name == "type":
            whole["type"] = _common_types(schema, part)
        elif name == "required":
            whole["required"] = _joined(schema["required"], part["required"])
        elif name == "properties":
            whole["properties"] = _properties(schema["properties"], part["properties"])
        elif schema[name] != part[name]:
            return None
        if whole[name] is None:
            return None
    for group in _TOGETHER:
        here, there = own & group, more & group
        if here and there and not (here == there and len(here) == 1):
            return None
    return whole


def _common_types(one: Schema, other: Schema) -> Any:
    if one["type"] == other["type"]:
        return one["type"]
    first, second = types_of(one) or set(), types_of(other) or set()
    common = sorted(first & second)
    if "integer" not in common and "integer" in first | second and "number" in first | second:
        common.append("integer")
    return (common[0] if len(common) == 1 else common) or None


def _joined(one: Any, other: Any) -> list[Any] | None:
    if not (isinstance(one, list) and isinstance(other, list)):
        return None
    known = {name for name in one if isinstance(name, str)}
    return [*one, *(name for name in other if isinstance(name, str) and name not in known)]


def _properties(one: Any, other: Any) -> Schema | None:
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return None
    if any(one[name] != other[name] for name in one.keys() & other.keys()):
        return None
    return {**one, **other}


def is_admitted(schema: Schema, value: Any) -> bool:
    """Whether type, lengths and bounds admit a value of `enum` or `const`."""
    types = types_of(schema)
    if types is not None and not types & _types_of_value(value):
        return False
    if isinstance(value, str):
        return _is_between(schema, len(value), "minLength", "maxLength")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = (_number(schema, name) for name in ("exclusiveMinimum", "exclusiveMaximum"))
        if (low is not None and value <= low) or (high is not None and value >= high):
            return False
        return _is_between(schema, value, "minimum", "maximum")
    if isinstance(value, list):
        return _is_between(schema, len(value), "minItems", "maxItems")
    return True


def _is_between(schema: Schema, number: float, least: str, most: str) -> bool:
    low, high = _number(schema, least), _number(schema, most)
    return not ((low is not None and number < low) or (high is not None and number > high))


def _number(schema: Schema, name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _types_of_value(value: Any) -> set[str]:
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"integer", "number"} if value.is_integer() else {"number"}
        case str():
            return {"string"}
        case list():
            return {"array"}
    return {"object"}
