"""The tools that a request offers, in the one form: functions with a JSON schema."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

import orjson

from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored

Tool = dict[str, Any]
"""A tool in OpenAI's form, whose type is function."""

# Longer definitions are repaired outside the event loop.
_AT_ONCE_BYTES: Final = 65_536
# What definitions that need a repair contain somewhere.
_SIGNS: Final = (b":null", b'"type":["')
# Keywords whose value has a schema under each name; and those whose value is data, no schema.
_NAMED: Final = frozenset(
    {"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"}
)
_DATA: Final = frozenset({"const", "default", "enum", "examples"})


async def offered(tools: Sequence[Any], ignored: Ignored, where: str = "tools") -> list[Tool]:
    """Return the functions among `tools`; `ignored` collects the others, which no model can have.

    - null means absent, also within schemas;
    - a list of one type is that type, which is how most templates read it;
    - a function without parameters has an object without properties.

    Raises InvalidRequest for what JSON cannot express.
    """
    functions: list[Mapping[str, Any]] = []
    for number, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, Mapping) else type(tool).__name__
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if kind in ("function", None, "") and _is_function(function):
            functions.append(function)
        else:
            ignored.add(f"{where}[{number}] ({kind})")
    try:
        written = orjson.dumps(functions)
    except TypeError as failure:
        raise InvalidRequest(f"{where} cannot be passed on: {failure}") from None
    if not any(sign in written for sign in _SIGNS):
        return [_tool(each) for each in functions]
    if len(written) <= _AT_ONCE_BYTES:
        return _repaired(functions)
    return await asyncio.to_thread(_repaired, functions)


def _is_function(function: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(function, Mapping) and bool(function.get("name"))


def _repaired(functions: Sequence[Mapping[str, Any]]) -> list[Tool]:
    return [_tool(repaired_schema(each)) for each in functions]


def _tool(function: Mapping[str, Any]) -> Tool:
    parameters = function.get("parameters") or {"type": "object"}
    if isinstance(parameters, dict) and parameters.get("type") == "object":
        parameters = {"properties": {}, **parameters} if len(parameters) == 1 else parameters
    return {"type": "function", "function": {**function, "parameters": parameters}}


def repaired_schema(value: Any) -> Any:
    """Return a JSON schema, or an object around schemas, without null and lists of one type.

    Bodies are parsed only up to a nesting that leaves room for this recursion.
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
