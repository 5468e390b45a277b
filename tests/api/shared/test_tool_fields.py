"""Tools and the choice among them, in all forms that clients write."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.api.shared.completion_schemas import ChatCompletionRequest
from myllm.api.shared.tools import tool_fields, tools_or_format
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
    ("allowed", "named"),
    [
        ({"type": "custom", "custom": {"name": "patch"}}, "patch"),
        ({"type": "custom", "name": "patch"}, "patch"),
        (SEARCH, "web_search"),
        ({"type": "function", "name": "gone"}, "gone"),
        ("time", "None"),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_that_were_left_out_are_skipped(allowed: Any, named: str, mode: str) -> None:
    custom = {"type": "custom", "custom": {"name": "patch"}}
    choice = {"type": "allowed_tools", "mode": mode, "tools": [allowed, WEATHER]}
    made, left_out = fields([WEATHER, TIME, custom], choice)
    assert names(made) == ["weather"]
    assert made["tool_choice"] == mode
    assert left_out == f"tools[2] (custom), tool_choice.allowed_tools.tools[0] ({named})"


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
        (
            [WEATHER],
            {"type": "allowed_tools", "tools": [SEARCH, TIME]},
            "none of the allowed tools",
        ),
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


def given(**asked: Any) -> tuple[dict[str, Any], bool]:
    """Return the engine's fields for a chat, and whether its calls have the old form."""
    body = {"messages": [{"role": "user", "content": "Hm?"}]} | asked
    request = ChatCompletionRequest.model_validate(body)
    return request.given(Ignored()), request.calls_functions()


OLD = {"functions": [WEATHER["function"], TIME["function"]]}
ONE = {"type": "function", "function": {"name": "time"}}


@pytest.mark.parametrize(
    ("asked", "mode", "offered", "is_old"),
    [
        (OLD, None, ["weather", "time"], True),
        (OLD | {"tools": []}, None, ["weather", "time"], True),
        (OLD | {"tools": None, "tool_choice": None}, None, ["weather", "time"], True),
        (OLD | {"tool_choice": "auto"}, "auto", ["weather", "time"], True),
        (OLD | {"tool_choice": "none", "tools": []}, "none", ["weather", "time"], True),
        (OLD | {"tool_choice": ONE}, "required", ["time"], True),
        (OLD | {"function_call": {"name": "time"}}, "required", ["time"], True),
        (OLD | {"function_call": "none", "tool_choice": "auto"}, "none", ["weather", "time"], True),
        (OLD | {"tools": [TIME]}, None, ["time"], False),
        (OLD | {"tools": [TIME], "function_call": {"name": "weather"}}, None, ["time"], False),
        ({"tools": [TIME], "functions": []}, None, ["time"], False),
        ({"functions": []}, None, [], False),
        ({"functions": [], "tool_choice": "auto"}, None, [], False),
    ],
)
def test_functions_are_used_where_there_are_no_tools(
    asked: dict[str, Any], mode: str | None, offered: list[str], is_old: bool
) -> None:
    made, has_old_form = given(**asked)
    assert names(made) == offered
    assert made.get("tool_choice") == mode
    assert has_old_form is is_old
    assert made.get("parallel_tool_calls") is (False if is_old else None)


FORMATS: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
    {"json_schema": {}},
]
GRAMMAR = {"grammar": 'root ::= "x"'}


@pytest.mark.parametrize("form", [*FORMATS, GRAMMAR])
@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}])
def test_a_format_and_tools_that_may_be_called_are_refused(
    form: dict[str, Any], choice: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="leave out the tools or the format"):
        tools_or_format({"tools": [WEATHER]} | choice | form)


def test_a_grammar_and_a_required_call_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="leave out the tools or the format"):
        tools_or_format({"tools": [WEATHER], "tool_choice": "required"} | GRAMMAR)


@pytest.mark.parametrize("form", FORMATS)
def test_a_required_call_has_no_text_to_format(form: dict[str, Any]) -> None:
    required = {"tools": [WEATHER], "tool_choice": "required"}
    assert tools_or_format(required | form) == required


@pytest.mark.parametrize("form", [*FORMATS, GRAMMAR])
@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": [WEATHER], "tool_choice": "none"}])
def test_a_format_stays_where_no_tool_may_be_called(
    form: dict[str, Any], tools: dict[str, Any]
) -> None:
    assert tools_or_format(tools | form) == tools | form


@pytest.mark.parametrize(
    "none",
    [
        {"response_format": {"type": "text"}},
        {"response_format": None, "json_schema": None, "grammar": None},
        {"response_format": {}, "grammar": ""},
    ],
)
def test_tools_stay_where_no_format_is_set(none: dict[str, Any]) -> None:
    assert tools_or_format({"tools": [WEATHER]} | none) == {"tools": [WEATHER]} | none
