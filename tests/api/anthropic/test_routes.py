"""Anthropic's dialect, with Anthropic's own client and with plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import ANN
from tests.ggufs import write_model
from tests.projectors import b64, png, write_projector
from tests.serving import Serving, serving, short_home, wait_until
from tests.tooled import THOUGHTS, TOOLS, WEATHER, add_model

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
TOOL: Any = {"name": "weather", "description": "Of a city.", "input_schema": WEATHER}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_model(home / "models", "tools", TOOLS)
        add_model(home / "models", "thoughts", THOUGHTS)
        write_model(home / "models/eye/eye.gguf")
        write_projector(home / "models/eye/mmproj-eye.gguf")
        with serving(home) as running:
            yield running


@pytest.fixture
def client(server: Serving) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


def ask(*contents: Any) -> Any:
    """A conversation; the roles take turns."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]


def said(message: anthropic.types.Message) -> str:
    [block] = message.content
    assert block.type == "text"
    return block.text


def test_an_answer_and_its_counts(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="demo", max_tokens=50, messages=ask("Hello"))
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", "demo")
    first = client.messages.create(model="demo", max_tokens=50, messages=ask(FRANCE))
    again = client.messages.create(model="demo", max_tokens=50, messages=ask(FRANCE))
    assert said(first) == said(again) == PARIS
    assert (again.stop_reason, again.stop_sequence) == ("end_turn", None)
    assert again.usage.output_tokens == first.usage.output_tokens == 10
    assert again.usage.cache_read_input_tokens is not None
    assert again.usage.cache_read_input_tokens > 5
    total = again.usage.input_tokens + again.usage.cache_read_input_tokens
    assert client.messages.count_tokens(model="demo", messages=ask(FRANCE)).input_tokens == total


def test_the_request_id(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model="demo", max_tokens=1, messages=ask("Hello"), extra_headers={"X-Request-ID": "mine"}
    )
    assert message._request_id == "mine"


def test_system_prompt_and_messages_as_texts_or_blocks(client: anthropic.Anthropic) -> None:
    def tokens(**body: Any) -> int:
        return client.messages.count_tokens(model="demo", **body).input_tokens

    plain = tokens(system="Be brief.", messages=ask("My name is Ada.", "Hello.", "And now?"))
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    billed = {"type": "text", "text": "x-anthropic-billing-header: cch=a5145;"}
    thought = {"type": "thinking", "thinking": "Greet!", "signature": "x"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    hello = {"type": "text", "text": "Hello."}
    assert plain == tokens(
        system=[billed, *blocks],
        messages=ask(
            [{"type": "text", "text": "My name is Ada."}], [thought, hidden, hello], "And now?"
        ),
    )
    assert plain < tokens(
        system="Be brief, very.", messages=ask("My name is Ada.", "Hello.", "And now?")
    )


def test_neighbours_of_one_role_are_one_message(client: anthropic.Anthropic) -> None:
    parts = [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}]
    joined = client.messages.count_tokens(model="demo", messages=ask("One.\nTwo."))
    apart = client.messages.count_tokens(model="demo", messages=parts)  # type: ignore[arg-type]
    assert apart == joined


def test_a_last_assistant_message_is_continued(client: anthropic.Anthropic) -> None:
    messages = ask(FRANCE, "The capital of")
    whole = client.messages.create(model="demo", max_tokens=50, messages=messages)
    assert said(whole) == " France is Paris."
    with client.messages.stream(model="demo", max_tokens=50, messages=messages) as stream:
        assert "".join(stream.text_stream) == " France is Paris."


def test_why_an_answer_ends(client: anthropic.Anthropic) -> None:
    cut = client.messages.create(model="demo", max_tokens=3, messages=ask(FRANCE))
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 3)
    for stops in (["Rome", " is"], [" is"]):
        stopped = client.messages.create(
            model="demo", max_tokens=50, messages=ask(FRANCE), stop_sequences=stops
        )
        assert said(stopped) == "The capital of France"
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " is")
    ended = client.messages.create(
        model="demo", max_tokens=50, messages=ask(FRANCE), stop_sequences=["Rome"]
    )
    assert (ended.stop_reason, ended.stop_sequence) == ("end_turn", None)


def test_a_stopped_answer_has_its_stop_sequence_after_a_kill(
    client: anthropic.Anthropic, server: Serving
) -> None:
    prompt, stop = "Count to one hundred.", " 60,"
    whole = client.messages.create(
        model="demo", max_tokens=400, messages=ask(prompt), stop_sequences=[stop]
    )
    assert whole.stop_sequence == stop
    demo = [each for each in server.engines() if each.cmdline()[4] == "demo"]
    with client.messages.stream(
        model="demo", max_tokens=400, messages=ask(prompt), stop_sequences=[stop]
    ) as stream:
        texts = stream.text_stream
        begun = next(iter(texts))
        demo[0].kill()
        assert begun + "".join(texts) == said(whole)
        message = stream.get_final_message()
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)


def test_the_events_of_a_stream(server: Serving) -> None:
    body = {"model": "demo", "max_tokens": 50, "messages": ask(FRANCE), "stream": True}
    with server.client() as api:
        answer = api.post("/v1/messages", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block]
    events = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [name for name, _ in blocks] == [f"event: {event['type']}" for event in events]
    first, start, *deltas, stop, delta, last = events
    assert first["message"]["content"] == []
    assert start == {
        "type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}
    }  # fmt: skip
    assert {each["type"] for each in deltas} == {"content_block_delta"}
    assert "".join(each["delta"]["text"] for each in deltas) == PARIS
    assert stop == {"type": "content_block_stop", "index": 0}
    assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert delta["usage"]["output_tokens"] == 10
    assert last == {"type": "message_stop"}


def test_a_call_of_a_tool_whole_and_streamed(client: anthropic.Anthropic) -> None:
    body: Any = {
        "model": "tools", "max_tokens": 300, "messages": ask(FRANCE), "tools": [TOOL],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    }  # fmt: skip
    whole = client.messages.create(**body)
    text, call = whole.content
    assert text.type == "text"
    assert text.text.strip() == "The capital of France is"
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("weather", {"city": "Paris"})
    assert whole.stop_reason == "tool_use"
    with client.messages.stream(**body) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    assert streamed.stop_reason == "tool_use"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    [_, again] = streamed.content
    assert again.type == "tool_use"
    assert again.id
    assert (again.name, again.input) == (call.name, call.input)


def test_which_tools_may_be_called(client: anthropic.Anthropic) -> None:
    other = TOOL | {"name": "other"}

    def asked(**body: Any) -> anthropic.types.Message:
        return client.messages.create(
            model="tools", max_tokens=300, messages=ask(FRANCE), tools=[TOOL, other], **body
        )

    chosen = asked(tool_choice={"type": "tool", "name": "other"})
    assert [block.name for block in chosen.content if block.type == "tool_use"] == ["other"]
    assert asked(tool_choice={"type": "any"}).stop_reason == "tool_use"
    assert said(asked(tool_choice={"type": "none"})) == PARIS
    with pytest.raises(anthropic.BadRequestError, match="tool_choice: there is no tool 'none'"):
        asked(tool_choice={"type": "tool", "name": "none"})


def test_results_of_tools_are_read(client: anthropic.Anthropic) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}}

    def tokens(**result: Any) -> int:
        block = {"type": "tool_result", "tool_use_id": "t1", **result}
        messages = ask(FRANCE, [call], [block, {"type": "text", "text": "And now?"}])
        return client.messages.count_tokens(
            model="tools", messages=messages, tools=[TOOL]
        ).input_tokens

    none = tokens()
    assert tokens(content="It is sunny.") == tokens(
        content=[{"type": "text", "text": "It is sunny."}]
    )
    assert none < tokens(content="It is sunny.") < tokens(content="It is sunny.", is_error=True)
    messages = ask(FRANCE, [call], [{"type": "tool_result", "tool_use_id": "t1", "content": "7"}])
    answer = client.messages.create(model="tools", max_tokens=5, messages=messages, tools=[TOOL])
    assert answer.usage.output_tokens > 0


def test_thinking_has_a_separate_block(client: anthropic.Anthropic) -> None:
    body: Any = {
        "model": "thoughts", "max_tokens": 50, "messages": ask(FRANCE),
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }  # fmt: skip
    [block] = client.messages.create(**body).content
    assert block.type == "thinking"
    assert block.thinking == PARIS
    with client.messages.stream(**body) as stream:
        thoughts = [event.thinking for event in stream if event.type == "thinking"]
        [again] = stream.get_final_message().content
    assert len(thoughts) > 3
    assert "".join(thoughts) == PARIS
    assert again.type == "thinking"
    assert again.thinking == PARIS


def test_thinking_is_off_by_default(client: anthropic.Anthropic) -> None:
    def tokens(**body: Any) -> int:
        return client.messages.count_tokens(
            model="thoughts", messages=ask(FRANCE), **body
        ).input_tokens

    off = tokens(thinking={"type": "disabled"})
    assert tokens() == off
    assert tokens(thinking={"type": "enabled", "budget_tokens": 1024}) < off


def test_errors_are_the_clients_exceptions(client: anthropic.Anthropic) -> None:
    create = client.messages.create
    with pytest.raises(anthropic.NotFoundError, match="Model 'nope' not found") as missing:
        create(model="nope", max_tokens=5, messages=ask("Hello"))
    assert missing.value.request_id
    assert missing.value.type == "not_found_error"
    with pytest.raises(
        anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 2048 maximum"
    ) as refused:
        create(model="demo", max_tokens=5, messages=ask("word " * 3000))
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens is required"):
        client.post("/v1/messages", cast_to=object, body={"model": "demo", "messages": ask("Hi")})
    with (
        pytest.raises(anthropic.NotFoundError),
        client.messages.stream(model="nope", max_tokens=5, messages=ask("Hello")),
    ):
        pass


def image(**source: Any) -> dict[str, Any]:
    return {"type": "image", "source": source}


def test_images_are_seen_by_models_that_can(client: anthropic.Anthropic) -> None:
    red = image(type="base64", media_type="image/png", data=b64(png(255, 0, 0)))
    question = {"type": "text", "text": "What is it?"}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [question, red]}
    for shown in ([question, red], [result]):
        seen = client.messages.create(model="eye", max_tokens=1, messages=ask(shown))
        read = seen.usage.input_tokens + (seen.usage.cache_read_input_tokens or 0)
        counted = client.messages.count_tokens(model="eye", messages=ask(shown)).input_tokens
        assert read == counted
        assert counted >= 16 + len("What is it?")
    for model, wrong, words in (
        ("demo", red, "cannot see images"),
        ("eye", image(type="url", url="https://example.com/a.png"), "fetches nothing"),
        ("eye", image(type="base64", media_type="image/png", data="no base64!"), "base64"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=words):
            client.messages.create(model=model, max_tokens=1, messages=ask([wrong]))


def test_keys(locked: Serving) -> None:
    with anthropic.Anthropic(base_url=locked.url, api_key=ANN, max_retries=0) as ann:
        assert said(ann.messages.create(model="demo", max_tokens=50, messages=ask(FRANCE))) == PARIS
    with (
        anthropic.Anthropic(base_url=locked.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError) as refused,
    ):
        stranger.messages.create(model="demo", max_tokens=5, messages=ask("Hello"))
    assert refused.value.type == "authentication_error"


def test_an_error_in_the_middle_of_a_stream(home: Path, engine: Engine) -> None:
    body: Any = {
        "model": "demo", "max_tokens": 2000, "messages": ask("Count to one hundred."),
    }  # fmt: skip
    with (
        serving(home, drain_grace=0) as server,
        anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client,
        client.messages.stream(**body) as stream,
    ):
        next(iter(stream))
        server.engines()[0].suspend()  # or its answer would be complete by then
        server.process.terminate()
        with pytest.raises(anthropic.APIStatusError) as failed:
            list(stream)
    assert failed.value.type == "overloaded_error"


async def test_the_asynchronous_client(server: Serving) -> None:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="none") as client:
        message = await client.messages.create(model="demo", max_tokens=50, messages=ask(FRANCE))
        assert said(message) == PARIS
        async with client.messages.stream(
            model="demo", max_tokens=50, messages=ask(FRANCE)
        ) as stream:
            assert "".join([text async for text in stream.text_stream]) == PARIS
        tokens = await client.messages.count_tokens(model="demo", messages=ask(FRANCE))
        assert tokens.input_tokens == 11


def test_a_client_that_leaves_frees_its_slot(
    client: anthropic.Anthropic, api: httpx.Client
) -> None:
    def busy() -> int:
        running = api.get("/api/instances").json()["instances"]
        return sum(each["slots"]["busy"] for each in running if each["model"] == "demo")

    with client.messages.stream(
        model="demo", max_tokens=2000, messages=ask("Count to one hundred.")
    ) as stream:
        next(iter(stream.text_stream))
        assert busy() == 1
    wait_until(lambda: busy() == 0, 5, "the slot is free")
