"""Fields of completions that other servers and their clients have invented."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.api.shared.completion_schemas import ChatCompletionRequest
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import HEADER, Ignored

HI: Any = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}


def given(**fields: Any) -> tuple[dict[str, Any], str]:
    """Return what a chat with these fields gives to the engine, and what is left out of it."""
    ignored = Ignored()
    made = ChatCompletionRequest.model_validate(HI | fields).given(ignored)
    return made, ignored.headers().get(HEADER, "")


def test_null_means_absent_in_every_field() -> None:
    nulls = dict.fromkeys(set(ChatCompletionRequest.model_fields) - {"messages"})
    assert given(**nulls | {"reasoning": None, "guided_regex": None, "invented": None}) == ({}, "")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_bound_of_minus_one_is_none(name: str) -> None:
    assert given(**{name: -1})[0]["max_tokens"] >= 2**30
    assert given(**{name: 7})[0] == {"max_tokens": 7}


def test_the_newer_name_of_the_bound_wins() -> None:
    assert given(max_tokens=5, max_completion_tokens=7)[0] == {"max_tokens": 7}


def test_a_top_k_of_minus_one_means_all() -> None:
    assert given(top_k=-1)[0] == {"top_k": 0}
    assert given(top_k=40)[0] == {"top_k": 40}


def test_functions_of_old_clients_are_tools_with_repaired_schemas() -> None:
    city = {"type": ["string"], "enum": None}
    function = {"name": "weather", "parameters": {"properties": {"city": city}, "required": None}}
    made, left_out = given(functions=[function], function_call={"name": "weather"})
    [tool] = made["tools"]
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert tool == {"type": "function", "function": {"name": "weather", "parameters": schema}}
    assert (made["tool_choice"], made["parallel_tool_calls"]) == ("required", False)
    assert left_out == ""


@pytest.mark.parametrize(
    ("seed", "engine"), [(-1, {}), (2**32 - 1, {}), (7, {"seed": 7}), (-2, {"seed": 2**32 - 2})]
)
def test_no_seed_leaves_the_draw_to_the_engine(seed: int, engine: dict[str, Any]) -> None:
    """It would draw another one for a replay."""
    assert given(seed=seed) == (engine, "")


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "ann", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"prediction": {"type": "content", "content": "x"}, "prompt_cache_key": "k"},
        {"modalities": ["text"], "audio": {"voice": "alloy", "format": "wav"}},
        {"stream_options": {"include_usage": None, "include_obfuscation": False}},
        {"use_beam_search": False},
    ],
)
def test_hints_change_nothing(fields: dict[str, Any]) -> None:
    assert given(**fields) == ({}, "")


def test_what_no_model_can_follow_is_named() -> None:
    made = given(web_search_options={}, verbosity="low", id_slot=3, extra_body={"top_k": 1})
    assert made == ({}, "web_search_options, verbosity, id_slot, extra_body")


@pytest.mark.parametrize(
    ("fields", "engine"),
    [
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"reasoning": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning": {"enabled": False}}, {"reasoning_effort": "none"}),
        ({"reasoning": {"max_tokens": 99, "exclude": True}}, {"thinking_budget_tokens": 99}),
        ({"reasoning": {"effort": None, "summary": "auto"}}, {}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, {"thinking_budget_tokens": 9}),
        ({"thinking": False}, {"reasoning_effort": "none"}),
        ({"thinking_budget": 50}, {"thinking_budget_tokens": 50}),
        ({"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            {"enable_thinking": False, "chat_template_kwargs": {"a": 1}},
            {"chat_template_kwargs": {"enable_thinking": False, "a": 1}},
        ),
        (
            {"reasoning": {"effort": "low"}, "reasoning_effort": "high"},
            {"reasoning_effort": "high"},
        ),
        ({"repetition_penalty": 1.2}, {"repeat_penalty": 1.2}),
        ({"repetition_penalty": 1.2, "repeat_penalty": 1.0}, {"repeat_penalty": 1.0}),
        ({"guided_json": {"type": "integer"}}, {"json_schema": {"type": "integer"}}),
        ({"structured_outputs": {"json": {"enum": [1]}}}, {"json_schema": {"enum": [1]}}),
    ],
)
def test_the_names_of_other_servers(fields: dict[str, Any], engine: dict[str, Any]) -> None:
    assert given(**fields) == (engine, "")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"modalities": ["text", "audio"]}, 'modalities must be ["text"]'),
        ({"guided_regex": "a+"}, "guided_regex is not supported: send a grammar"),
        ({"guided_choice": ["a", "b"]}, "guided_choice is not supported: send a `response_format`"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs is supported with `json`"),
        ({"guided_json": "x"}, "guided_json must be a JSON schema"),
        ({"repetition_penalty": "x"}, "repetition_penalty must be a number"),
        ({"use_beam_search": True}, "use_beam_search is not supported"),
        ({"thinking_budget": "much"}, "thinking_budget must be a whole number"),
        ({"reasoning": {"max_tokens": -2}}, "reasoning's budget must be a whole number"),
        ({"reasoning": 7}, "reasoning must be an object"),
        ({"enable_thinking": "no"}, "enable_thinking must be true or false"),
    ],
)
def test_what_would_change_the_answer_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        given(**fields)
    assert words in refused.value.detail
