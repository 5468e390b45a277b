"""The tools of `/v1/responses` as functions, and calls of these functions in the client's form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from myllm.api.openai.responses_custom import CustomInput, whole_input
from myllm.api.openai.responses_events import Events
from myllm.api.openai.responses_items import messages_of
from myllm.api.openai.responses_output import Form, action_of
from myllm.api.openai.responses_tools import ChosenTool, Tools, stored_tools
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import HEADER, Ignored
from myllm.gateway.generation.events import Call, CallPart, Finished
from myllm.gateway.usage import Usage

PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
}
SHELL = {"type": "local_shell"}
AGENTS = {
    "type": "namespace",
    "name": "agents",
    "tools": [{"type": "function", "name": "close"}, {"type": "function", "name": "read"}],
}
READ = {"type": "function", "name": "read", "parameters": {"type": "object"}, "strict": False}
ALL = [AGENTS, READ, PATCH, SHELL, {"type": "web_search"}, {"type": "mcp", "server_label": "x"}]


def namespace(name: str, *members: str) -> dict[str, Any]:
    functions = [{"type": "function", "name": member} for member in members]
    return {"type": "namespace", "name": name, "tools": functions}


def offered(*given: Any) -> tuple[Tools, str]:
    """The tools, and the header that names what was left out."""
    tools, ignored = Tools(), Ignored()
    tools.add_all(given, "tools", ignored)
    return tools, ignored.headers().get(HEADER, "")


def names(tools: Tools, choice: Any = None) -> list[str]:
    chosen = ChosenTool.model_validate(choice) if isinstance(choice, dict) else choice
    fields = tools.fields(chosen, Ignored())
    return [tool["function"]["name"] for tool in fields.get("tools", ())]


def test_every_tool_that_the_client_runs_is_a_function() -> None:
    tools, ignored = offered(*ALL)
    assert names(tools) == ["read", "apply_patch", "local_shell", "close", "agents__read"]
    assert ignored == "tools[2].format (grammar), tools[4] (web_search), tools[5] (mcp)"
    patch = tools.functions["apply_patch"]
    assert patch["parameters"]["required"] == ["input"]
    assert "start: /x/" in patch["description"]


def test_another_tool_of_the_same_name_is_left_out() -> None:
    tools, ignored = offered(READ, READ | {"description": "Another."}, READ)
    assert names(tools) == ["read"]
    assert ignored == "tools[1] (the name of another tool)"


def test_a_member_of_a_namespace_that_is_offered_again_is_one_tool() -> None:
    tools, ignored = offered(namespace("a", "go"), namespace("b", "go"), namespace("b", "go"))
    assert names(tools) == ["go", "b__go"]
    assert ignored == ""


@pytest.mark.parametrize(
    ("choice", "allowed", "engine"),
    [
        (None, 5, None),
        ("auto", 5, "auto"),
        ("none", 5, "none"),
        ("required", 5, "required"),
        ({"type": "function", "name": "read"}, ["read"], "required"),
        ({"type": "custom", "name": "apply_patch"}, ["apply_patch"], "required"),
        ({"type": "local_shell"}, ["local_shell"], "required"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [READ, {"type": "web_search"}]},
            ["read"],
            "auto",
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [AGENTS]},
            ["close", "agents__read"],
            "required",
        ),
    ],
)
def test_every_form_of_tool_choice(choice: Any, allowed: Any, engine: str | None) -> None:
    tools, _ = offered(*ALL)
    chosen = ChosenTool.model_validate(choice) if isinstance(choice, dict) else choice
    fields = tools.fields(chosen, Ignored())
    made = [tool["function"]["name"] for tool in fields["tools"]]
    assert (len(made) if isinstance(allowed, int) else made) == allowed
    assert fields.get("tool_choice") == engine


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "x"},
        {"type": "web_search_preview"},
        {"type": "custom", "name": "read"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
        "sometimes",
    ],
)
def test_a_choice_that_cannot_be_honoured_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidRequest, match="tool_choice"):
        names(offered(*ALL)[0], choice)


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        ({"name": "go", "namespace": "ns1"}, "go"),
        ({"name": "go", "namespace": "ns2"}, "ns2__go"),
        ({"name": "read", "namespace": "ns2"}, "ns2__read"),
        ({"name": "read"}, "read"),
        ({"name": "read", "namespace": None}, "read"),
        ({"name": "only"}, "only"),
    ],
)
def test_a_choice_names_the_namespace(chosen: dict[str, Any], seen: str) -> None:
    tools, _ = offered(namespace("ns1", "go"), namespace("ns2", "go", "read", "only"), READ)
    choice = {"type": "function", **chosen}
    assert names(tools, choice) == [seen]
    assert names(tools, {"type": "allowed_tools", "mode": "auto", "tools": [choice]}) == [seen]


@pytest.mark.parametrize(
    ("chosen", "error"),
    [
        ({"name": "go"}, "namespace is required: there are 2 tools 'go'"),
        ({"name": "go", "namespace": "ns3"}, "no tool 'go' in the namespace 'ns3'|none of the"),
    ],
)
def test_an_ambiguous_choice_or_a_wrong_namespace_is_refused(
    chosen: dict[str, Any], error: str
) -> None:
    tools, _ = offered(namespace("ns1", "go"), namespace("ns2", "go"))
    choice = {"type": "function", **chosen}
    for given in (choice, {"type": "allowed_tools", "mode": "auto", "tools": [choice]}):
        with pytest.raises(InvalidRequest, match=error):
            names(tools, given)


def test_allowed_tools_that_are_not_offered_are_named() -> None:
    tools, ignored = offered(*ALL)[0], Ignored()
    missing = [{"type": "web_search"}, {"type": "function", "name": "x"}]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [*missing, READ]}
    fields = tools.fields(ChosenTool.model_validate(choice), ignored)
    assert [tool["function"]["name"] for tool in fields["tools"]] == ["read"]
    assert (
        ignored.headers()[HEADER] == "tool_choice.tools[0] (web_search), tool_choice.tools[1] (x)"
    )
    with pytest.raises(InvalidRequest, match="none of the allowed tools"):
        names(tools, choice | {"tools": missing})


def test_tools_that_a_search_found_are_offered() -> None:
    tools, ignored = Tools(), Ignored()
    tools.add_all([READ], "tools", ignored)
    items = [
        {"role": "user", "content": "?"},
        {"type": "tool_search_call", "call_id": "s", "arguments": {"query": "go"}},
        {
            "type": "tool_search_output",
            "call_id": "s",
            "tools": [namespace("ns", "read", "go"), READ, {"type": "mcp"}],
        },
        {"type": "function_call", "call_id": "a", "name": "read", "namespace": "ns"},
        {"type": "tool_search_output", "call_id": None, "tools": None},
    ]
    _, call, found, read, nothing = messages_of(items, tools, ignored)
    assert names(tools) == ["read", "ns__read", "go"]
    assert call["tool_calls"][0]["function"] == {
        "name": "tool_search",
        "arguments": {"query": "go"},
    }
    assert found == {
        "role": "tool",
        "tool_call_id": "s",
        "content": "Found these tools: ns__read, go, read",
    }
    assert read["tool_calls"][0]["function"]["name"] == "ns__read"
    assert nothing["content"] == "Found no tools"
    assert ignored.headers()[HEADER] == "input[2].tools[2] (mcp)"


def test_items_have_the_names_that_the_model_knows() -> None:
    tools, ignored = Tools(), Ignored()
    more = {"type": "additional_tools", "role": "developer", "tools": ALL}
    call = {"type": "function_call", "call_id": "a", "name": "read", "arguments": "{}"}
    items = [more, {"role": "user", "content": "?"}, call | {"namespace": "agents"}, call]
    messages = messages_of(items, tools, ignored)
    assert [each["function"]["name"] for each in messages[1]["tool_calls"]] == [
        "agents__read",
        "read",
    ]
    assert "input[0].tools[4] (web_search)" in ignored.headers()[HEADER]


def test_calls_are_written_in_the_client_s_form() -> None:
    tools, _ = offered(*ALL)
    calls = [
        Call("a", "apply_patch", '{"input": "+x\\n"}'),
        Call("b", "local_shell", '{"command": ["ls"]}'),
        Call("c", "agents__read", "{}"),
    ]
    for form in (Form(tools), Form(stored_tools(json.loads(json.dumps(tools.special()))))):
        patch, shell, read = form.output("k", "", "", calls, "completed")
        assert (patch["type"], patch["name"], patch["input"]) == (
            "custom_tool_call",
            "apply_patch",
            "+x\n",
        )
        assert shell["action"] == {"type": "exec", "command": ["ls"], "env": {}}
        assert (read["type"], read["name"], read["namespace"]) == (
            "function_call",
            "read",
            "agents",
        )


def test_a_free_form_call_is_streamed_as_text() -> None:
    tools, _ = offered(*ALL)
    record = {"id": "resp_x", "created_at": 1, "model": "demo", "asked": {}, "ended": "stop"}
    events = Events("x", record, Form(tools))
    arguments = json.dumps({"input": "+a \U0001f600\n"})
    frames = events.say(CallPart(0, "c", "apply_patch"))
    for char in arguments:
        frames += events.say(CallPart(0, arguments=char))
    frames += events.say(CallPart(1, "d", "local_shell", '{"command": ["ls"]}'))
    frames += events.end(Finished("", Usage(1, 1, 0), "tool_calls"))
    told = [json.loads(line[6:]) for line in frames.splitlines() if line.startswith(b"data: ")]
    deltas = [each["delta"] for each in told if each["type"].endswith("input.delta")]
    assert "".join(deltas) == "+a \U0001f600\n"
    assert len(deltas) > 3
    [done] = [each for each in told if each["type"].endswith("input.done")]
    assert done["input"] == "+a \U0001f600\n"
    made = [each["item"] for each in told if each["type"] == "response.output_item.done"]
    assert [(each["type"], each["call_id"]) for each in made] == [
        ("custom_tool_call", "c"),
        ("local_shell_call", "d"),
    ]
    assert made[1]["action"]["command"] == ["ls"]
    assert told[-1]["response"]["output"] == made


@pytest.mark.parametrize(
    "text", ["", 'a\\u12 "x"\n\té\\', "\U0001f600\U0001f600", "\\\\u", '*** Begin\n+"a\\nb"']
)
@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_an_input_arrives_in_any_pieces(text: str, step: int) -> None:
    for escaped in (True, False):
        arguments = json.dumps({"input": text}, ensure_ascii=escaped)
        reading = CustomInput()
        pieces = [arguments[n : n + step] for n in range(0, len(arguments), step)]
        assert "".join(map(reading.take, pieces)) == text == reading.text
        assert reading.end() == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "abc', "abc"),
        ('{"input": "abc\\', "abc"),
        ('{"input": "\\ud83d x"}', "\ufffd x"),
        ('{"text": "abc"}', '{"text": "abc"}'),
        ("", ""),
        (r'{"input":"bad \x esc \n ok"}', "bad \\x esc \n ok"),
        (r'{"input":"\user \u12 \u00e9 \u"}', "\\user \\u12 \u00e9 \\u"),
        (
            r'{"input":"\ud83d\user \ud83d\u0041 \ude00 \ud83d"}',
            "\ufffd\\user \ufffdA \ufffd \ufffd",
        ),
        (r'{"input":"\ud83d\ud83d\ude00\ud83d', "\ufffd\U0001f600"),
    ],
)
def test_an_input_that_is_cut_or_wrong(arguments: str, text: str) -> None:
    assert whole_input(arguments) == text
    for step in (1, 2, 3, 5):
        reading = CustomInput()
        pieces = [arguments[n : n + step] for n in range(0, len(arguments), step)]
        assert "".join([*map(reading.take, pieces), reading.end()]) == text == reading.text


@pytest.mark.parametrize("arguments", ['"ls"', "null", "5", '["ls"]', "{", ""])
def test_a_command_that_is_no_object_is_empty(arguments: str) -> None:
    assert action_of(arguments) == {"type": "exec", "command": [], "env": {}}
