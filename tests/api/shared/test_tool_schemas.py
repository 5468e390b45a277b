"""JSON schemas of tools as clients write them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from myllm.api.anthropic.schemas import CustomTool
from myllm.api.openai.responses_tools import ResponsesTool
from myllm.api.shared.tool_schemas import ToolDefinitions

TOOLS: TypeAdapter[Any] = TypeAdapter(ToolDefinitions)


def repaired(**function: Any) -> Any:
    [tool] = TOOLS.validate_python([{"type": "function", "function": function}])
    assert tool["type"] == "function"
    return tool["function"]


def test_a_good_definition_stays_as_it_is() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": ["string", "null"]}}}
    function = {"name": "weather", "description": "Of a city: null", "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    assert TOOLS.validate_python(tools) == tools


def test_null_means_absent_in_schemas_too() -> None:
    parameters = {
        "type": "object",
        "required": None,
        "$defs": None,
        "items": None,
        "properties": {
            "city": {"type": ["string"], "enum": None, "items": None, "description": ""},
            "when": {"type": None, "anyOf": [{"type": "string"}, {"type": "null"}]},
            "any": None,
        },
    }
    assert repaired(name="weather", description=None, parameters=parameters) == {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": ""},
                "when": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "any": {},
            },
        },
    }


def test_null_as_a_value_is_kept() -> None:
    unit = {"enum": ["C", None], "default": None, "type": ["string", "null"]}
    properties = {"unit": unit, "nothing": {"const": None}, "enum": {"type": "string"}}
    parameters = {"type": "object", "properties": properties}
    assert repaired(name="weather", parameters=parameters)["parameters"] == parameters


def test_schemas_alone_are_repaired_too() -> None:
    schema = {"type": ["object"], "properties": {"city": {"enum": None}}, "required": None}
    expected = {"type": "object", "properties": {"city": {}}}
    tool = ResponsesTool(type="function", name="weather", parameters=schema)
    assert tool.parameters == expected
    assert CustomTool(name="weather", input_schema=schema).input_schema == expected


@pytest.mark.parametrize("text", ["\ud800", "null"])
def test_what_cannot_be_written_is_left_to_later_checks(text: str) -> None:
    assert repaired(name="weather", description=text)["description"] == text
