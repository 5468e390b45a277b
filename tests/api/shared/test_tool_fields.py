"""Tools and the choice among them, in all forms that clients write."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.api.shared.tools import tool_fields
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import HEADER, Ignored

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "time", "parameters": SCHEMA}}
SEARCH = {"type": "web_search"}


def fields(tools: Any, choice: Any = None) -> tuple[dict[str, Any], str]:
    """Return the engine's fields, and the names of what is left out."""
    ignored = Ignored()
    made = tool_fields(tools, choice, ignored)
    return made, ignored.headers().get(HEADER, "")


def names(made: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in made.get("tools", ())]


def test_nothing_is_added_to_a_complete_tool() -> None:
    assert fields([WEATHER]) == ({"tools": [WEATHER]}, "")
    assert fields(None) == ({}, "")
    assert fields([]) == ({}, "")


@pytest.mark.parametrize(
    "tool",
    [
        WEATHER | {"type": None},
        {"function": WEATHER["function"]},
        {"type": "function", **WEATHER["function"]},  # type: ignore[dict-item]
        WEATHER | {"function": WEATHER["function"] | {"strict": None, "description": None}},  # type: ignore[operator]
        WEATHER | {"cache_control": {"type": "ephemeral"}},
    ],
)
def test_other_forms_of_the_same_tool(tool: dict[str, Any]) -> None:
    assert fields([tool]) == ({"tools": [WEATHER]}, "")


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"properties": None}])
def test_a_function_always_has_parameters_that_a_template_can_read(parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "now", "parameters": parameters}}
    [made] = fields([tool])[0]["tools"]
    assert made["function"]["parameters"] == {"type": "object", "properties": {}}


def test_tools_that_are_no_functions_are_left_out_and_named() -> None:
    custom = {"type": "custom", "custom": {"name": "patch"}}
    made, left_out = fields([SEARCH, WEATHER, custom, {"type": "namespace", "tools": []}], "auto")
    assert made == {"tools": [WEATHER], "tool_choice": "auto"}
    assert left_out == "tools[0] (web_search), tools[2] (custom), tools[3] (namespace)"
    assert fields([SEARCH]) == ({}, "tools[0] (web_search)")


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("any", "required"),
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "required"}, "required"),
        ({"type": "any"}, "required"),
    ],
)
def test_a_choice_of_all_tools(choice: Any, mode: str) -> None:
    made, _ = fields([WEATHER, TIME], choice)
    assert made["tool_choice"] == mode
    assert names(made) == ["weather", "time"]


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "time"}},
        {"type": "function", "name": "time"},
        {"function": {"name": "time"}},
        {"name": "time"},
        {"type": "tool", "name": "time"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TIME]}},
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "time"}],
        },
    ],
)
def test_a_choice_of_one_tool(choice: Any) -> None:
    made, _ = fields([WEATHER, TIME], choice)
    assert made["tool_choice"] == "required"
    assert names(made) == ["time"]


def test_tools_that_are_allowed_need_not_be_called() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TIME]}}
    made, _ = fields([WEATHER, TIME], allowed)
    assert made["tool_choice"] == "auto"
    assert names(made) == ["time"]


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        ([WEATHER], {"type": "function", "function": {"name": "time"}}, "no tool 'time'"),
        ([WEATHER], {"type": "custom", "custom": {"name": "patch"}}, "no tool 'patch'"),
        ([WEATHER, SEARCH], {"type": "web_search"}, "no tool of type 'web_search'"),
        ([SEARCH], "required", "tool_choice is required, but there are no tools"),
        ([WEATHER], "weather", "tool_choice must be"),
        ([WEATHER], 7, "tool_choice must be"),
        ([WEATHER], {"type": "function"}, "tool_choice must be"),
        ([WEATHER], {"type": "allowed_tools"}, "tool_choice.allowed_tools.tools must be a list"),
        ([WEATHER], {"type": "allowed_tools", "mode": "x", "tools": []}, "allowed_tools.mode must"),
        ([{"type": "function"}], None, "tools[0].function is required"),
        ([{"type": "function", "function": {}}], None, "tools[0].function is required"),
        ([{"function": {"description": "x"}}], None, "tools[0].function.name is required"),
        ([{"function": {"name": "x" * 2000}}], None, "must have 1024 characters at most"),
        ([{"function": {"name": "x", "parameters": []}}], None, "parameters must be an object"),
    ],
)
def test_what_cannot_be_followed_is_refused(tools: Any, choice: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fields(tools, choice)
    assert words in refused.value.detail
