"""What the items of a `/v1/responses` input become, and what is left out of it."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.api.openai.responses_items import messages_of
from myllm.api.openai.responses_thinking import encoded
from myllm.api.openai.responses_tools import Tools
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import HEADER, Ignored

ASKED = {"role": "user", "content": "hello"}


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


def test_a_request_to_compact_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="compacts"):
        read(ASKED, {"type": "compaction_trigger"})
