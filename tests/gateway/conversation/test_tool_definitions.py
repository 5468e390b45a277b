"""Definitions of tools as clients write them, in the one form."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import HEADER, Ignored
from myllm.gateway.conversation.tool_definitions import offered

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


def function(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "parameters": WEATHER} | more}


async def one(**more: Any) -> dict[str, Any]:
    ignored = Ignored()
    [tool] = await offered([function(**more)], ignored)
    assert ignored.headers() == {}
    assert tool["type"] == "function"
    made: dict[str, Any] = tool["function"]
    return made


async def test_a_good_definition_stays_as_it_is() -> None:
    tools = [function(description="Of a city.", strict=True)]
    assert await offered(tools, Ignored()) == tools


async def test_null_means_absent_in_schemas_too() -> None:
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
    assert await one(description=None, parameters=parameters) == {
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


async def test_null_as_a_value_is_kept() -> None:
    unit = {"enum": ["C", None], "default": None, "type": ["string", "null"]}
    nothing = {"const": None}
    properties = {"unit": unit, "nothing": nothing, "enum": {"type": "string"}}
    parameters = {"type": "object", "properties": properties}
    assert (await one(parameters=parameters))["parameters"] == parameters


@pytest.mark.parametrize(
    "parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": None}]
)
async def test_a_function_without_parameters_has_an_object_without_properties(
    parameters: Any,
) -> None:
    made = await one(parameters=parameters)
    assert made["parameters"] == {"type": "object", "properties": {}}


async def test_what_is_no_function_is_left_out_and_named() -> None:
    ignored = Ignored()
    others = [{"type": "web_search"}, {"type": "function"}, {"type": "namespace", "tools": []}, 5]
    made = await offered([*others, {"function": {"name": "weather"}}], ignored)
    assert [each["function"]["name"] for each in made] == ["weather"]
    named = "tools[0] (web_search), tools[1] (function), tools[2] (namespace), tools[3] (int)"
    assert ignored.headers() == {HEADER: named}


async def test_many_tools_with_nulls_are_repaired_all_the_same() -> None:
    tools = [function(name=f"tool_{n}", description=None) for n in range(1000)]
    made = await offered(tools, Ignored())
    assert [each["function"]["name"] for each in made] == [f"tool_{n}" for n in range(1000)]
    assert not any("description" in each["function"] for each in made)


async def test_a_lone_surrogate_is_refused_or_repaired_but_no_fault_of_ours() -> None:
    with pytest.raises(InvalidRequest, match="cannot be passed on"):
        await offered([function(description="\ud800")], Ignored())
