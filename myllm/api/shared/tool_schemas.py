"""JSON schemas of tools as clients of typed languages write them, in the form that templates read.

They are repaired while a request is validated, which happens in a thread if its body is large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import orjson
from pydantic import AfterValidator

from myllm.api.shared.bounded import Tools

T = TypeVar("T")
# What definitions that need a repair contain somewhere.
_SIGNS: Final = (b":null", b'"type":["')
# Keywords whose value has a schema under each name; and those whose value is data, no schema.
_NAMED: Final = frozenset(
    {"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"}
)
_DATA: Final = frozenset({"const", "default", "enum", "examples"})


def _repaired(value: T) -> T:
    try:
        written = orjson.dumps(value)
    except TypeError:  # a half of a surrogate pair; what is sent to the engine is checked later
        return value
    return repaired_schema(value) if any(sign in written for sign in _SIGNS) else value


def repaired_schema(value: Any) -> Any:
    """Return a JSON schema, or an object around schemas, without null and lists of one type.

    Null means absent; a list of one type is that type, which is how most templates read it. Bodies
    are parsed only up to a nesting that leaves room for this recursion.
    """
    if isinstance(value, list):
        return [repaired_schema(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    made: dict[str, Any] = {}
    for name, each in value.items():
        if name in ("const", "default"):
            made[name] = each
        elif each is None:
            continue
        elif name in _DATA:
            made[name] = each
        elif name in _NAMED and isinstance(each, Mapping):
            made[name] = {key: repaired_schema(schema or {}) for key, schema in each.items()}
        elif name == "type" and isinstance(each, list) and len(each) == 1:
            made[name] = each[0]
        else:
            made[name] = repaired_schema(each)
    return made


ToolDefinitions = Annotated[Tools[dict[str, Any]], AfterValidator(_repaired)]
"""Tools with their schemas repaired."""

ToolSchema = Annotated[dict[str, Any], AfterValidator(_repaired)]
"""The JSON schema of a tool's arguments, repaired."""
