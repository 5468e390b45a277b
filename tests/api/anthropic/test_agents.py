"""What agents such as Claude Code send to Anthropic's API, and look for in the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.engine.fetch import provide_tree
from myllm.engine.progress import no_progress
from myllm.engine.source import find_source
from myllm.settings import load_settings
from scripts import random_model
from tests.serving import Serving, serving, short_home, suspend
from tests.tooled import AGENT, OPEN_THOUGHTS, WEATHER, add_model

FRANCE = "What is the capital of France?"
TOOL = {"name": "weather", "description": "Of a city.", "input_schema": WEATHER}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FORMAT = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_model(home / "models", "agent", AGENT)
        add_model(home / "models", "open", OPEN_THOUGHTS)
        add_model(home / "models", "short", AGENT, context_size=256)
        _add_qwen(home / "models" / "qwen")
        with serving(home) as running:
            yield running


def _add_qwen(folder: Path) -> None:
    """A model with random weights and the template of Qwen 3.5."""
    settings = load_settings()
    source = find_source(settings)
    provide_tree(source, settings.cache_dir, no_progress)
    folder.mkdir(parents=True)
    vocabulary = source.tree / "models" / "ggml-vocab-llama-spm.gguf"
    shape = replace(random_model.SHAPES["micro"], context=8192)
    random_model.write(folder / "qwen.gguf", shape, vocabulary)
    template = (source.tree / "models" / "templates" / "Qwen3.5-4B.jinja").read_text()
    (folder / "chat.jinja").write_text(template)
    (folder / "config.json").write_text(json.dumps({"template": "chat.jinja"}))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def post(api: httpx.Client, model: str, messages: Any, **more: Any) -> httpx.Response:
    body = {"model": model, "max_tokens": 50, "messages": messages}
    return api.post("/v1/messages", json=body | more)


def read_tokens(usage: dict[str, int]) -> int:
    return usage["input_tokens"] + usage["cache_read_input_tokens"]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def counted(api: httpx.Client, model: str, messages: Any, **more: Any) -> int:
    body = {"model": model, "messages": messages} | more
    answer = api.post("/v1/messages/count_tokens", json=body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["input_tokens"])


def test_the_first_event_has_the_counts_of_the_prompt(api: httpx.Client) -> None:
    asked = [user(FRANCE)]
    tokens = counted(api, "demo", asked)
    post(api, "demo", asked)
    for more in ({}, {"stop_sequences": ["Rome"]}):
        first, *_, delta, _ = events(post(api, "demo", asked, stream=True, **more))
        usage = first["message"]["usage"]
        assert read_tokens(usage) == tokens
        assert usage["cache_read_input_tokens"] > 0
        assert usage["output_tokens"] == 0
        assert delta["usage"] == usage | {"output_tokens": 10}


def test_the_answer_matches_a_schema(api: httpx.Client) -> None:
    whole = post(api, "demo", [user(FRANCE)], **FORMAT)
    assert whole.status_code == 200, whole.text
    [block] = whole.json()["content"]
    assert json.loads(block["text"]) == {"city": "Paris"}
    pieces = events(post(api, "demo", [user(FRANCE)], stream=True, **FORMAT))
    texts = [each["delta"]["text"] for each in pieces if each["type"] == "content_block_delta"]
    assert json.loads("".join(texts)) == {"city": "Paris"}


def test_a_schema_and_tools_exclude_each_other(api: httpx.Client) -> None:
    for choice in ({}, {"tool_choice": {"type": "auto"}}):
        refused = post(api, "agent", [user(FRANCE)], tools=[TOOL], **choice, **FORMAT)
        assert refused.status_code == 400
        assert "leave out the tools or the format" in refused.json()["error"]["message"]
    must = {"tools": [TOOL], "tool_choice": {"type": "any"}}
    answer = post(api, "agent", [user(FRANCE)], **must, **FORMAT, max_tokens=300).json()
    assert answer["stop_reason"] == "tool_use"
    assert {"city": "Paris"} in [block.get("input") for block in answer["content"]]
    none = {"tools": [TOOL], "tool_choice": {"type": "none"}}
    [block] = post(api, "agent", [user(FRANCE)], **none, **FORMAT).json()["content"]
    assert json.loads(block["text"]) == {"city": "Paris"}


def test_a_schema_that_would_keep_the_engine_busy_is_refused(api: httpx.Client) -> None:
    names = {f"p{number}": {"type": "string"} for number in range(1000)}
    form = {"type": "json_schema", "schema": {"type": "object", "properties": names}}
    refused = post(api, "demo", [user(FRANCE)], output_config={"format": form})
    assert refused.status_code == 400
    assert "properties" in refused.json()["error"]["message"]


def test_thoughts_are_shown_to_the_model_again(api: httpx.Client) -> None:
    def asked(*blocks: Any) -> list[Any]:
        return [user("Hello"), {"role": "assistant", "content": [*blocks]}, user(FRANCE)]

    said = {"type": "text", "text": "Hello!"}
    thought = {"type": "thinking", "thinking": "They greet me.", "signature": "x"}
    sealed = {"type": "redacted_thinking", "data": "AAAA"}
    plain = counted(api, "open", asked(said))
    assert counted(api, "open", asked(sealed, said)) == plain
    tokens = counted(api, "open", asked(thought, said))
    assert tokens > plain + 5
    answer = post(api, "open", asked(thought, sealed, said))
    assert read_tokens(answer.json()["usage"]) == tokens
    assert answer.headers["X-MyLLM-Ignored"] == "messages[1].content[1] (redacted_thinking)"


def test_streamed_thoughts_are_signed(api: httpx.Client) -> None:
    """Clients send back only thoughts that have a signature."""
    thinking = {"type": "adaptive", "display": "summarized"}
    pieces = events(post(api, "open", [user(FRANCE)], stream=True, thinking=thinking))
    deltas = [each["delta"] for each in pieces if each["type"] == "content_block_delta"]
    kinds = [delta["type"] for delta in deltas]
    assert kinds.count("signature_delta") == 1
    assert deltas[kinds.index("signature_delta")]["signature"]
    assert kinds[0] == "thinking_delta"
    [thought, *_] = post(api, "open", [user(FRANCE)], thinking=thinking).json()["content"]
    assert thought["type"] == "thinking"
    assert thought["signature"]


def test_what_is_left_out_is_named_and_a_question_about_it_refused(api: httpx.Client) -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    pdf = {"type": "document", "source": source, "title": "Cows"}
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    history = [user([pdf]), {"role": "assistant", "content": "I see."}, user(FRANCE)]
    for stream in (False, True):
        answer = post(api, "agent", history, tools=[search, TOOL], stream=stream)
        assert answer.status_code == 200, answer.text
        named = answer.headers["X-MyLLM-Ignored"]
        assert named == "messages[0].content[0] (document), tools[0] (web_search_20250305)"
    refused = post(api, "agent", [user([pdf])])
    assert refused.status_code == 400
    assert "messages[0].content[0]: this server cannot" in refused.json()["error"]["message"]


def test_an_answer_that_fills_the_context(api: httpx.Client) -> None:
    """Unlike at `max_tokens`, an agent must shorten the conversation."""
    endless = {"type": "array", "items": {"type": "integer"}, "minItems": 300}
    form = {"output_config": {"format": {"type": "json_schema", "schema": endless}}}
    cut = post(api, "short", [user(FRANCE)], **form).json()
    assert (cut["stop_reason"], cut["usage"]["output_tokens"]) == ("max_tokens", 50)
    full = post(api, "short", [user(FRANCE)], max_tokens=32_000, **form).json()
    assert full["stop_reason"] == "model_context_window_exceeded"
    assert read_tokens(full["usage"]) + full["usage"]["output_tokens"] >= 256


def test_a_prompt_that_is_too_long_is_recognized_in_a_stream(
    api: httpx.Client, server: Serving
) -> None:
    """A stream that has begun with comments still has the error in the form that agents parse."""
    post(api, "demo", [user(FRANCE)])
    [demo] = [each for each in server.engines() if "demo" in each.cmdline()]
    body = {"model": "demo", "max_tokens": 5, "messages": [user("word " * 3000)], "stream": True}
    suspend(demo)
    try:
        with api.stream("POST", "/v1/messages", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith(":")
            demo.resume()
            rest = [line for line in lines if line and not line.startswith(":")]
    finally:
        demo.resume()
    assert answer.status_code == 200
    kind, data = rest
    assert kind == "event: error"
    error = json.loads(data.removeprefix("data: "))["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("prompt is too long: 3")
    assert error["message"].endswith(" tokens > 2048 maximum")


def test_a_tool_loop_with_a_template_that_wants_the_system_message_first(
    api: httpx.Client,
) -> None:
    """Claude Code tells the model about agents and skills in a second message of the system."""
    thought = {"type": "thinking", "thinking": "I must look it up.", "signature": "x"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
    agents = {"role": "system", "content": "These are the agents: Explore and Plan."}
    question = user([{"type": "text", "text": "Be careful."}, {"type": "text", "text": FRANCE}])
    loop = [question, {"role": "assistant", "content": [thought, call]}, user([result])]
    more = {
        "system": [{"type": "text", "text": "You are an agent."}, {"type": "text", "text": "Be."}],
        "tools": [TOOL],
        "thinking": {"type": "adaptive"},
    }

    def tokens(*messages: Any) -> int:
        return counted(api, "qwen", messages, **more)

    for late in (1, 3):
        messages = [*loop[:late], agents, *loop[late:]]
        answer = post(api, "qwen", messages, **more | {"max_tokens": 3})
        assert answer.status_code == 200, answer.text
        assert read_tokens(answer.json()["usage"]) == tokens(*messages) > tokens(*loop) + 8
    unthought = {"role": "assistant", "content": [call]}
    assert tokens(loop[0], unthought, loop[2]) < tokens(*loop)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text is required"),
        ({"messages": [user([None])]}, "messages[0].content[0] must be an object"),
        (
            {"messages": [user([{"type": "image", "source": {"type": "url"}}])]},
            "messages[0].content[0].source.url is required",
        ),
        ({"tools": [{"name": "weather"}]}, "tools[0].input_schema is required"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name is required"),
    ],
)
def test_errors_name_the_field(api: httpx.Client, wrong: dict[str, Any], sentence: str) -> None:
    body = {"model": "demo", "max_tokens": 5, "messages": [user(FRANCE)]}
    refused = api.post("/v1/messages", json=body | wrong)
    assert refused.status_code == 400
    assert refused.json()["error"] == {"type": "invalid_request_error", "message": sentence}
