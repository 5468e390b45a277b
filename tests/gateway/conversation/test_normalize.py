"""Repairs of conversations, whichever dialect they came in."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myllm.gateway.conversation.adapt import adapted
from myllm.gateway.conversation.ignored import HEADER, Ignored
from myllm.gateway.conversation.messages import Messages, is_long
from myllm.gateway.conversation.normalize import normalized
from myllm.gateway.conversation.traits import STRICTEST

USER = {"role": "user", "content": "What is the weather?"}


def repaired(*messages: dict[str, Any]) -> Messages:
    ignored = Ignored()
    made = normalized(list(messages), ignored)
    assert ignored.headers() == {}
    return made


def called(**more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "weather", **more}}


def assistant(*calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def result(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": text, **more}


def test_a_plain_conversation_stays_as_it_is() -> None:
    messages = [USER, {"role": "assistant", "content": "Sunny."}, USER]
    assert repaired(*messages) == messages


def test_null_is_the_same_as_absent() -> None:
    message = USER | {"name": None, "tool_calls": None, "tool_call_id": None}
    assert repaired(message | {"reasoning_content": None, "function_call": None}) == [USER]
    assert repaired({"role": "assistant"}) == [{"role": "assistant", "content": ""}]
    assert repaired(USER | {"name": "Ann"}) == [USER | {"name": "Ann"}]


def test_a_developer_is_the_system() -> None:
    [message] = repaired({"role": "developer", "content": "Be brief."})
    assert message == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}],
        ["a", {"type": "refusal", "refusal": "b"}],
        [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"text": "b"}],
    ],
)
def test_texts_in_parts_become_one_text(parts: list[Any]) -> None:
    assert repaired({"role": "user", "content": parts}) == [{"role": "user", "content": "a\nb"}]


def test_pictures_stay_in_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert repaired({"role": "user", "content": parts})[0]["content"] == parts


def test_unknown_parts_are_left_out_of_the_history_and_named() -> None:
    ignored = Ignored()
    parts = [{"type": "text", "text": "a"}, {"type": "video_url"}, 7]
    [first, _] = normalized([{"role": "user", "content": parts}, USER], ignored)
    assert first["content"] == "a"
    named = "messages[0].content[1] (video_url), messages[0].content[2] (int)"
    assert ignored.headers()[HEADER] == named


def test_unknown_parts_of_the_question_stay_to_be_refused() -> None:
    [message] = repaired({"role": "user", "content": [{"type": "video_url"}]})
    assert message["content"] == [{"type": "video_url"}]


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_thinking_has_one_name(name: str) -> None:
    [_, message] = repaired(USER, {"role": "assistant", "content": "Yes", name: "hm"})
    assert message == {"role": "assistant", "content": "Yes", "reasoning_content": "hm"}


def test_a_refusal_is_the_text_of_its_message() -> None:
    [_, message] = repaired(USER, {"role": "assistant", "content": None, "refusal": "No."})
    assert message == {"role": "assistant", "content": "No."}


def test_several_thoughts_are_kept() -> None:
    first, second = ({"type": "thinking", "thinking": text} for text in "ab")
    parts = [first, {"type": "text", "text": "Yes"}, second]
    [_, message] = repaired(USER, {"role": "assistant", "content": parts})
    assert message["reasoning_content"] == "a\n\nb"


def test_thinking_among_the_parts() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes"}]
    [_, message] = repaired(USER, {"role": "assistant", "content": parts})
    assert message == {"role": "assistant", "content": "Yes", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"city": "Paris"}', {"city": "Paris"}),
        ({"city": "Paris"}, {"city": "Paris"}),
        ('"{\\"city\\": \\"Paris\\"}"', {"city": "Paris"}),
        ('{"city": "Par\\ud83dis"}', {"city": "Par\ufffdis"}),
        ("", {}),
        ("  ", {}),
        (None, {}),
        ("null", {}),
        ('{"city": "Par', {"arguments": '{"city": "Par'}),
        ("Paris", {"arguments": "Paris"}),
        ("[1, 2]", {"arguments": [1, 2]}),
        ("[" * 2000, {"arguments": "[" * 2000}),
        ("[" * 1000 + "]" * 1000, {"arguments": "[" * 1000 + "]" * 1000}),
    ],
)
def test_arguments_become_an_object(arguments: Any, read: dict[str, Any]) -> None:
    [_, message] = repaired(USER, assistant(called(arguments=arguments)))
    [call] = message["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == read


def test_arguments_that_are_an_object_keep_their_spelling() -> None:
    spelled = ' {"city":"Paris","at":1.50}'
    [_, message] = repaired(USER, assistant(called(arguments=spelled)))
    assert message["tool_calls"][0]["function"]["arguments"] == spelled


def test_calls_without_type_and_id_get_them_and_results_find_them() -> None:
    bare = {"function": {"name": "weather", "arguments": "{}"}, "index": 0}
    made = repaired(USER, assistant(bare, bare), result("sunny"), result("rain"))
    assert [call["id"] for call in made[1]["tool_calls"]] == ["call_1_0", "call_1_1"]
    assert all(set(call) == {"id", "type", "function"} for call in made[1]["tool_calls"])
    assert [each["tool_call_id"] for each in made[2:]] == ["call_1_0", "call_1_1"]
    assert [each["name"] for each in made[2:]] == ["weather", "weather"]


def test_equal_ids_are_told_apart() -> None:
    call = called(arguments="{}")
    results = [result("sunny", tool_call_id="call_1"), result("rain", tool_call_id="call_1")]
    made = repaired(USER, assistant(call, call), *results)
    ids = [call["id"] for call in made[1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [each["tool_call_id"] for each in made[2:]] == ids


def test_an_id_that_looks_like_ours_is_told_apart() -> None:
    calls = [{"id": "call_1_1", "function": {"name": "a"}}, {"function": {"name": "b"}}]
    results = [result("x", tool_call_id="call_1_1"), result("y", tool_call_id="call_1_1")]
    made = repaired(USER, assistant(*calls), *results)
    first, second = (call["id"] for call in made[1]["tool_calls"])
    assert first == "call_1_1" != second
    assert made[2]["tool_call_id"] == first


def test_results_name_their_call_by_id_or_by_tool() -> None:
    calls = [
        {"id": "a", "function": {"name": "weather"}},
        {"id": "b", "function": {"name": "time"}},
        {"id": "c", "function": {"name": "time"}},
    ]
    made = repaired(
        USER,
        assistant(*calls),
        result("third", tool_call_id="c"),
        result("second", name="time"),
        result("first"),
    )
    assert [each["tool_call_id"] for each in made[2:]] == ["c", "b", "a"]
    assert [each["name"] for each in made[2:]] == ["time", "time", "weather"]


def test_a_result_without_a_call_keeps_its_id() -> None:
    [_, message] = repaired(USER, result("sunny", tool_call_id="gone"))
    assert message == {"role": "tool", "content": "sunny", "tool_call_id": "gone"}


def test_functions_of_old_clients() -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "weather"}}
    made = repaired(USER, old, {"role": "function", "name": "weather", "content": "sunny"})
    [call] = made[1]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": "{}"}
    assert made[2]["role"] == "tool"
    assert made[2]["tool_call_id"] == call["id"]


def test_calls_of_custom_tools() -> None:
    custom = {"id": "x", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    [_, message] = repaired(USER, assistant(custom))
    [call] = message["tool_calls"]
    assert call["function"] == {"name": "patch", "arguments": '{"input": "*** Begin"}'}


def test_what_names_no_function_is_left_out_and_named() -> None:
    ignored = Ignored()
    calls = [called(), {"id": "x", "type": "search"}, "weather", {"function": {"name": 1}}]
    made = normalized([USER, assistant(*calls)], ignored)
    assert len(made[1]["tool_calls"]) == 1
    assert ignored.headers()[HEADER].startswith("messages[1].tool_calls[1]")


def test_twelve_thousand_calls_do_not_take_long() -> None:
    calls = [{"function": {"name": f"f{number % 7}"}} for number in range(12_000)]
    results = [result("x") for _ in calls]
    began = time.perf_counter()
    made = normalized([USER, assistant(*calls), *results], Ignored())
    assert time.perf_counter() - began < 2  # 0.05 s; 34 s when each result searched all calls
    assert made[-1]["tool_call_id"] == made[1]["tool_calls"][-1]["id"]


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_instructions_may_follow_the_question(role: str) -> None:
    """An unknown part of the question itself stays, to be refused."""
    hologram = {"type": "hologram"}
    question = {"role": "user", "content": [hologram]}
    [asked, _] = repaired(question, {"role": role, "content": "Be brief."})
    assert asked["content"] == [hologram]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
FIELDS = ("content", "tool_calls", "tool_call_id", "name", "function_call", "thinking", "reasoning")
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "type": JSON,
        "custom": JSON,
        "function": JSON | st.fixed_dictionaries({}, optional={"name": JSON, "arguments": JSON}),
    },
)
PARTS = st.fixed_dictionaries({}, optional={"type": JSON, "text": JSON, "thinking": JSON})
ANY_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
    optional=dict.fromkeys(FIELDS, JSON)
    | {
        "content": st.text(max_size=3) | st.none() | st.lists(JSON | PARTS, max_size=3),
        "tool_calls": JSON | st.lists(CALLS, max_size=3),
    },
)


# On a slow machine, making the input takes longer than Hypothesis expects.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(ANY_MESSAGE, max_size=5))
def test_whatever_a_client_sends_gets_its_form(messages: list[dict[str, Any]]) -> None:
    is_long(messages)
    made = normalized(messages, Ignored())
    assert len(made) == len(messages)
    for message in made:
        assert message["role"] in ("system", "user", "assistant", "tool")
        assert isinstance(message["content"], str | list)
        for call in message.get("tool_calls", []):
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert call["id"]
        for name in ("name", "tool_call_id", "reasoning_content"):
            assert isinstance(message.get(name, ""), str)
    adapted(made, STRICTEST, Ignored())


def test_ids_that_are_numbers_match() -> None:
    call = {"id": 5, "function": {"name": "weather"}}
    made = repaired(USER, assistant(call), result("sunny", tool_call_id=5))
    assert made[1]["tool_calls"][0]["id"] == made[2]["tool_call_id"] == "5"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"text": "x"}] * 300},
        assistant(*[called()] * 300),
        assistant(called(arguments="x" * 300_000)),
    ],
)
def test_what_takes_long_is_long(message: dict[str, Any]) -> None:
    assert is_long([USER, message])
    assert is_long([USER] * 300)
    assert not is_long([USER, assistant(called(arguments="{}")), result("x" * 100_000)])
