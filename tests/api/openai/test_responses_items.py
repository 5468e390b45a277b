"""What the items of a `/v1/responses` input become, and what is left out of it."""

from __future__ import annotations

from threading import get_ident
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myllm.api.openai import responses
from myllm.api.openai.responses_items import is_much, messages_of
from myllm.api.openai.responses_schemas import ResponsesRequest
from myllm.api.openai.responses_thinking import encoded
from myllm.api.openai.responses_tools import Tools
from myllm.errors import InvalidRequest
from myllm.gateway.client import Client
from myllm.gateway.conversation.ignored import HEADER, Ignored
from myllm.gateway.conversation.normalize import normalized
from myllm.sessions.history import from_wire
from myllm.settings import Settings

ASKED = {"role": "user", "content": "hello"}
KINDS = (
    *("message", "function_call", "function_call_output", "custom_tool_call"),
    *("custom_tool_call_output", "local_shell_call", "local_shell_call_output", "shell_call"),
    *("shell_call_output", "apply_patch_call", "apply_patch_call_output", "computer_call"),
    *("computer_call_output", "tool_search_call", "tool_search_output", "additional_tools"),
    *("reasoning", "compaction", "compaction_trigger", "web_search_call"),
)
# What the fields of items and of their parts are called, and texts that mean something in them.
NAMES = st.sampled_from(
    [
        *("type", "role", "content", "name", "namespace", "arguments", "input", "call_id", "id"),
        *("output", "action", "operation", "summary", "encrypted_content", "tools", "text"),
        *("image_url", "file_data", "input_audio", "refusal", "format", "parameters", "command"),
    ]
)
WORDS = (
    *("user", "assistant", "developer", "function", "custom", "local_shell", "namespace", "{}"),
    *("input_text", "input_image", "input_file", "input_audio", "refusal", "reasoning_text"),
)


def read(*items: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The messages of `items`, and the header that names what was left out."""
    ignored = Ignored()
    return messages_of(items, Tools(), ignored), ignored.headers().get(HEADER, "")


def calls(message: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    made = message["tool_calls"]
    return [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in made]


def test_messages_of_every_role_stay_at_their_places() -> None:
    roles = ["developer", "user", "assistant", "system", "user"]
    made, ignored = read(*({"type": "message", "role": role, "content": "x"} for role in roles))
    assert [message["role"] for message in made] == roles
    assert ignored == ""


def test_calls_belong_to_the_message_before_them() -> None:
    made, _ = read(
        ASKED,
        {"type": "message", "role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "+x"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": "2"},
    )
    assert [message["role"] for message in made] == ["user", "assistant", "tool", "tool"]
    assert calls(made[1]) == [("a", "f", "{}"), ("b", "patch", {"input": "+x"})]
    assert [(m["tool_call_id"], m["content"]) for m in made[2:]] == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("call", "output", "name", "arguments"),
    [
        (
            {
                "type": "local_shell_call",
                "id": "l",
                "call_id": "c",
                "action": {"type": "exec", "command": ["ls"], "env": {}, "user": None},
            },
            {"type": "local_shell_call_output", "id": "c", "output": "x"},
            "local_shell",
            {"command": ["ls"], "env": {}},
        ),
        (
            {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
            {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "x"}]},
            "shell",
            {"commands": ["ls"]},
        ),
        (
            {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "x", "path": "a"}},
            {"type": "apply_patch_call_output", "call_id": "c", "output": None},
            "apply_patch",
            {"path": "a"},
        ),
    ],
)
def test_calls_of_built_in_tools_are_calls(
    call: dict[str, Any], output: dict[str, Any], name: str, arguments: dict[str, Any]
) -> None:
    made, ignored = read(ASKED, call, output)
    assert calls(made[1]) == [("c", name, arguments)]
    assert (made[2]["role"], made[2]["tool_call_id"]) == ("tool", "c")
    assert ignored == ""


@pytest.mark.parametrize(
    "reasoning",
    [
        {"content": [{"type": "reasoning_text", "text": "hm"}], "summary": []},
        {"content": None, "summary": [], "encrypted_content": encoded("hm")},
        {"summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAA"},
    ],
)
def test_thinking_belongs_to_what_follows_it(reasoning: dict[str, Any]) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "a", "output": "1"}
    made, ignored = read(ASKED, {"type": "reasoning", **reasoning}, call, result)
    assert made[1]["reasoning_content"] == "hm"
    assert "reasoning_content" not in made[2]
    assert ignored == ""


def test_thinking_of_an_earlier_answer_is_not_given_to_a_later_one() -> None:
    thinking = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    made, _ = read(ASKED, thinking, ASKED, {"role": "assistant", "content": "Yes."}, ASKED)
    assert not any("reasoning_content" in message for message in made)


def test_unknown_items_and_parts_are_named() -> None:
    made, ignored = read(
        {
            "role": "user",
            "content": [{"type": "input_hologram"}, {"type": "input_text", "text": "a"}],
        },
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}},
        {"type": "compaction", "encrypted_content": "gAAA"},
        {"type": "from_the_future"},
        ASKED,
    )
    assert [message["content"] for message in made] == [[{"type": "text", "text": "a"}], "hello"]
    assert ignored.split(", ") == [
        "input[0].content[0] (input_hologram)",
        "input[1] (web_search_call)",
        "input[2] (compaction)",
        "input[3] (from_the_future)",
    ]


def test_null_means_absent() -> None:
    made, ignored = read(
        ASKED | {"type": None, "id": None, "status": None},
        {"type": "message", "role": "assistant", "content": None},
        {"type": "function_call", "call_id": None, "name": "f", "arguments": None},
        {"type": "function_call_output", "call_id": None, "output": None},
    )
    assert [message["content"] for message in made] == ["hello", "", ""]
    assert ignored == ""


def test_what_no_database_stores_is_replaced() -> None:
    [made], _ = read({"role": "user", "content": "a\0b"})
    assert made["content"] == "a\ufffdb"


def test_an_unknown_part_of_the_question_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"input\[0\].content\[0\].type must be"):
        read({"role": "user", "content": [{"type": "input_hologram"}]})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from([*WORDS, "{", '"ls"', "myllm-thinking:\u00e9", encoded("hm")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=6,
)
ITEMS = st.dictionaries(NAMES, JSON, max_size=6) | st.builds(
    lambda kind, fields: {**fields, "type": kind},
    st.sampled_from(KINDS),
    st.dictionaries(NAMES, JSON, max_size=8),
)


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # making the input, on a slow machine
)
@given(st.lists(ITEMS, min_size=1, max_size=4))
def test_any_item_is_read_or_refused(items: list[dict[str, Any]]) -> None:
    ignored, tools = Ignored(), Tools()
    try:
        made = normalized(messages_of(items, tools, ignored), ignored)
        tools.fields(None, ignored)
    except InvalidRequest:
        return
    assert made
    orjson.dumps([from_wire(message).wire() for message in made])
    ignored.headers()


@pytest.mark.parametrize(
    "item",
    [
        {"type": "tool_search_call", "arguments": "{}"},
        {"type": "tool_search_call", "arguments": "[]"},
        {"type": "local_shell_call", "action": ["ls"]},
        {"type": "shell_call", "action": 5},
        {"type": "reasoning", "encrypted_content": "myllm-thinking:\u00e9"},
        {"type": "reasoning", "encrypted_content": "myllm-thinking:/w=="},
        {"type": "function_call", "name": "f", "call_id": ["x"], "namespace": {}},
        {"type": "function_call_output", "call_id": {"x": []}, "output": "5"},
    ],
)
def test_odd_fields_are_read(item: dict[str, Any]) -> None:
    made, ignored = read(ASKED, item)
    assert normalized(made, Ignored())
    assert ignored == ""


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ({"type": ["x"]}, r"input\[1\].type must be a string"),
        ({"type": "additional_tools", "tools": 5}, r"input\[1\].tools must be a list"),
        ({"type": "tool_search_output", "tools": "x"}, r"input\[1\].tools must be a list"),
        ({"type": "additional_tools", "tools": ["x"]}, r"input\[1\].tools\[0\] must be an object"),
        ({"type": "function_call_output", "output": 5}, r"input\[1\].output must be a text"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(item: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidRequest, match=error):
        read(ASKED, item)


@pytest.mark.parametrize(
    ("items", "much"),
    [
        ([ASKED] * 100, False),
        ([ASKED] * 10_000, True),
        ([{"role": "user", "content": [{}] * 1000}], True),
        ([{"type": "function_call_output", "output": [{}] * 1000}], True),
        ([{"type": "additional_tools", "tools": [{}] * 200}], True),
        ([{"type": "reasoning", "encrypted_content": "x" * 10_000}] * 30, True),
        ([{"type": ["x"], "tools": 5, "output": {}, "encrypted_content": []}], False),
    ],
)
def test_long_inputs_are_read_in_a_thread(items: list[dict[str, Any]], much: bool) -> None:
    assert is_much(items) is much


def test_a_request_to_compact_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="compacts"):
        read(ASKED, {"type": "compaction_trigger"})


@pytest.mark.parametrize(("count", "is_aside"), [(2, False), (2000, True)])
async def test_only_short_inputs_are_read_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, count: int, is_aside: bool
) -> None:
    threads: list[int] = []

    def noted(*_: Any) -> None:
        threads.append(get_ident())
        raise InvalidRequest("read")

    monkeypatch.setattr(responses, "messages_of", noted)
    services: Any = SimpleNamespace(sessions=None, settings=Settings())
    request = ResponsesRequest(model="demo", input=[ASKED] * count)
    with pytest.raises(InvalidRequest, match="read"):
        await responses.create_response(request, services, Client("local"))
    assert (threads[0] != get_ident()) is is_aside
