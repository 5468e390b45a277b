"""Tools as Go programs write them: a structure without JSON tags has capitalised names, which Go
reads like small ones, and so does Ollama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# The fields of Ollama's structures for tools, by their names in small letters.
_FIELDS: Final = {
    name.lower(): name
    for name in (
        *("type", "function", "name", "description", "parameters"),
        *("required", "properties", "items", "enum", "anyOf", "$defs"),
    )
}
_SCHEMAS_BY_NAME: Final = ("properties", "$defs")


def in_small_letters(tools: Any) -> Any:
    """Return tools with the names that Ollama's documentation has for their fields.

    One that has the documented names already stays as it is.
    """
    if not isinstance(tools, list):
        return tools
    return [
        _small(tool) if isinstance(tool, Mapping) and "function" not in tool else tool
        for tool in tools
    ]


def _small(value: Any) -> Any:
    """Bodies are parsed only up to a nesting that leaves room for this recursion."""
    if isinstance(value, list):
        return [_small(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    made: dict[str, Any] = {}
    for given, each in value.items():
        name = _FIELDS.get(given.lower()) or given
        if name in _SCHEMAS_BY_NAME and isinstance(each, Mapping):
            made[name] = {key: _small(schema) for key, schema in each.items()}
        else:
            made[name] = each if name == "enum" else _small(each)
    return made
