"""`/v1/responses` with OpenAI's own client, and the conversations that it stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response

from myllm.api.openai.responses_events import Events
from myllm.api.openai.responses_output import Form
from myllm.api.openai.responses_tools import Tools
from myllm.engine.engine import Engine
from myllm.errors import (
    EngineDied,
    EngineError,
    InvalidRequest,
    MyLLMError,
    PromptTooLong,
    QueueFull,
)
from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.generation.events import Token
from tests.api.credentials import ANN, BOB
from tests.ggufs import write_model
from tests.projectors import data_url, png, write_projector
from tests.serving import Serving, serving, short_home, wait_until
from tests.tooled import OPEN_THOUGHTS, TOOLS, WEATHER, add_model

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
TOOL: Any = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_model(home / "models", "caller", TOOLS)
        add_model(home / "models", "thinker", OPEN_THOUGHTS)
        write_model(home / "models" / "eye" / "eye.gguf")
        write_projector(home / "models" / "eye" / "mmproj-eye.gguf")
        with serving(home) as running:
            yield running


@pytest.fixture
def client(server: Serving) -> Iterator[OpenAI]:
    with client_of(server, "none") as made:
        yield made


def client_of(server: Serving, key: str) -> OpenAI:
    http = httpx.Client(trust_env=False)
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, http_client=http)


def ask(client: OpenAI, given: Any, **more: Any) -> Response:
    fields = {"model": "demo", "temperature": 0} | more
    answer: Response = client.responses.create(input=given, **fields)
    return answer


def sessions(api: httpx.Client) -> dict[str, int]:
    found = api.get("/api/sessions", params={"limit": 500}).json()["sessions"]
    return {each["id"]: each["message_count"] for each in found}


def test_a_whole_answer(client: OpenAI) -> None:
    answer = ask(
        client, FRANCE, metadata={"a": "b"}, instructions="Be brief.", max_output_tokens=99
    )
    assert answer.output_text
    assert (answer.status, answer.object, answer.error) == ("completed", "response", None)
    assert (answer.metadata, answer.instructions) == ({"a": "b"}, "Be brief.")
    [message] = answer.output
    assert (message.type, message.status) == ("message", "completed")
    usage = answer.usage
    assert usage is not None
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert ask(client, FRANCE).output_text == PARIS


def test_a_stream_has_every_event_in_its_order(client: OpenAI) -> None:
    events = list(client.responses.create(model="demo", input=FRANCE, temperature=0, stream=True))
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == PARIS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [kind for kind in kinds if not kind.endswith(".delta")] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    first, last = events[0], events[-1]
    assert first.type == "response.created"
    assert last.type == "response.completed"
    assert first.response.id == last.response.id
    assert (first.response.status, last.response.output_text) == ("in_progress", PARIS)


def test_the_client_s_own_sum_of_a_stream(client: OpenAI) -> None:
    with client.responses.stream(model="demo", input=FRANCE, temperature=0) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == PARIS


def test_going_on(client: OpenAI, api: httpx.Client) -> None:
    first = ask(client, "My name is Marlo.")
    before = sessions(api)
    second = ask(client, "What is my name?", previous_response_id=first.id)
    assert second.output_text == "Your name is Marlo."
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens > 0
    after = sessions(api)
    assert before.keys() == after.keys()
    assert sum(after.values()) == sum(before.values()) + 2


def test_going_on_from_an_older_answer_branches(client: OpenAI, api: httpx.Client) -> None:
    first = ask(client, "My name is Marlo.")
    ask(client, "My name is Quentin.", previous_response_id=first.id)
    before = sessions(api)
    other = ask(client, "What is my name?", previous_response_id=first.id)
    assert other.output_text == "Your name is Marlo."
    after = sessions(api)
    [made] = after.keys() - before.keys()
    assert after[made] == 4
    assert {name: after[name] for name in before} == before
    again = ask(client, "What is my name?", previous_response_id=other.id)
    assert again.output_text == "Your name is Marlo."
    assert sessions(api)[made] == 6


def test_instructions_are_for_one_answer(client: OpenAI) -> None:
    first = ask(client, "Hello", instructions="My name is Marlo. " * 20)
    second = ask(client, "Hello", previous_response_id=first.id)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens < first.usage.input_tokens


def test_what_is_not_to_be_stored_is_not(client: OpenAI, api: httpx.Client) -> None:
    first = ask(client, "My name is Marlo.")
    before = sessions(api)
    second = ask(client, "What is my name?", previous_response_id=first.id, store=False)
    assert second.output_text == "Your name is Marlo."
    assert sessions(api) == before
    with pytest.raises(openai.NotFoundError, match=f"Response '{second.id}' not found"):
        ask(client, "?", previous_response_id=second.id)


def test_it_can_be_read_again_and_forgotten(client: OpenAI, api: httpx.Client) -> None:
    first = ask(client, "My name is Marlo.", metadata={"a": "b"})
    second = ask(client, "What is my name?", previous_response_id=first.id)
    assert client.responses.retrieve(first.id) == first
    assert client.responses.retrieve(second.id) == second
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    third = ask(client, "What is my name?", previous_response_id=second.id)
    assert third.output_text == "Your name is Marlo."
    count = len(sessions(api))
    client.responses.delete(second.id)
    client.responses.delete(third.id)
    assert len(sessions(api)) == count - 1


@pytest.mark.parametrize("unknown", ["resp_" + "0" * 48, "x", "../etc"])
def test_an_unknown_id(client: OpenAI, unknown: str) -> None:
    with pytest.raises(openai.NotFoundError) as failure:
        ask(client, "hello", previous_response_id=unknown)
    assert failure.value.body == {
        "message": f"Response '{unknown}' not found",
        "type": "not_found_error",
        "param": None,
        "code": None,
    }


def test_another_owner_s_answer_is_not_found(locked: Serving) -> None:
    with client_of(locked, ANN) as ann, client_of(locked, BOB) as bob:
        made = ask(ann, "My name is Marlo.")
        calls = (
            lambda: ask(bob, "What is my name?", previous_response_id=made.id),
            lambda: bob.responses.retrieve(made.id),
            lambda: bob.responses.delete(made.id),
        )
        for call in calls:
            with pytest.raises(openai.NotFoundError):
                call()
        assert ann.responses.retrieve(made.id) == made


def test_a_call_and_its_output(client: OpenAI) -> None:
    asked = ask(client, FRANCE, model="caller", tools=[TOOL])
    [call] = [item for item in asked.output if item.type == "function_call"]
    assert (call.name, call.status) == ("weather", "completed")
    assert json.loads(call.arguments) == {"city": "Paris"}
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    more = {"model": "caller", "tools": [TOOL], "max_output_tokens": 5}
    told = ask(client, [output], previous_response_id=asked.id, **more)
    assert (told.status, told.incomplete_details) != ("completed", None)
    items: Any = [{"role": "user", "content": FRANCE}, *asked.output, output]
    whole = ask(client, items, **more)
    assert told.usage is not None
    assert whole.usage is not None
    assert whole.usage.input_tokens == told.usage.input_tokens


def test_a_call_streamed(client: OpenAI) -> None:
    stream = client.responses.create(
        model="caller", input=FRANCE, temperature=0, tools=[TOOL], stream=True,
        tool_choice={"type": "function", "name": "weather"},
    )  # fmt: skip
    events = list(stream)
    added = [event.item.type for event in events if event.type == "response.output_item.added"]
    assert added == ["message", "function_call"]
    parts = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    [done] = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert done.arguments == "".join(parts)
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output[1].type == "function_call"
    assert client.responses.retrieve(last.response.id).output == last.response.output


def test_thoughts_are_an_item_of_their_own(client: OpenAI) -> None:
    fields: dict[str, Any] = {"model": "thinker", "input": FRANCE, "max_output_tokens": 20}
    events = list(client.responses.create(stream=True, temperature=0, **fields))
    thoughts = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output[0].type == "reasoning"
    assert last.response.output[0].content
    assert last.response.output[0].content[0].text == "".join(thoughts)
    off = client.responses.create(reasoning={"effort": "none"}, temperature=0, **fields)
    assert off.output_text == PARIS


def test_tokens_of_thinking_are_counted(client: OpenAI) -> None:
    fields: dict[str, Any] = {"model": "thinker", "input": FRANCE, "max_output_tokens": 20}
    for more in ({}, {"reasoning": {"effort": "none"}}):
        events = list(client.responses.create(stream=True, temperature=0, **fields, **more))
        pieces = [event for event in events if event.type == "response.reasoning_text.delta"]
        last = events[-1]
        assert last.type in ("response.completed", "response.incomplete")
        usage = last.response.usage
        assert usage is not None
        assert usage.output_tokens_details.reasoning_tokens == len(pieces)
        assert len(pieces) <= usage.output_tokens
        assert bool(pieces) == (not more)


def test_thinking_reaches_the_model_again(client: OpenAI) -> None:
    """Also for a client that sends nothing back but `encrypted_content`."""
    included: Any = ["reasoning.encrypted_content"]
    fields: dict[str, Any] = {"model": "thinker", "max_output_tokens": 20, "store": False}
    first = ask(client, FRANCE, include=included, **fields)
    thinking = next(item for item in first.output if item.type == "reasoning")
    assert thinking.encrypted_content
    question: Any = {"role": "user", "content": FRANCE}
    said: Any = {"role": "assistant", "content": "Yes."}
    bare: Any = {"type": "reasoning", "summary": []}
    counts = []
    for each in (bare, bare | {"encrypted_content": thinking.encrypted_content}, thinking):
        told = ask(client, [question, each, said, question], **fields)
        assert told.usage is not None
        counts.append(told.usage.input_tokens)
    assert counts[0] < counts[1] == counts[2]


def test_references_to_stored_items(client: OpenAI) -> None:
    first = ask(client, "My name is Marlo.", max_output_tokens=40)
    question: Any = {"role": "user", "content": "My name is Marlo."}
    then: Any = {"role": "user", "content": "What is my name?"}
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    referring = ask(client, [question, reference, then])
    spelled = ask(client, [question, {"role": "assistant", "content": first.output_text}, then])
    assert referring.output_text == "Your name is Marlo."
    assert referring.usage is not None
    assert spelled.usage is not None
    assert referring.usage.input_tokens == spelled.usage.input_tokens
    for unknown in ("msg_" + "0" * 48, "x", f"rs_{first.output[0].id[4:]}"):
        wrong: Any = {"type": "item_reference", "id": unknown}
        with pytest.raises(openai.NotFoundError, match=f"Item with id '{unknown}' not found"):
            ask(client, [question, wrong, then])


def test_a_later_developer_message_stays_in_its_place(client: OpenAI, api: httpx.Client) -> None:
    before = sessions(api)
    posted: Any = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "developer", "content": "Be brief."},
    ]
    first = ask(client, posted)
    late: Any = {"role": "developer", "content": "Be loud."}
    ask(client, [late, {"role": "user", "content": FRANCE}], previous_response_id=first.id)
    [made] = sessions(api).keys() - before.keys()
    stored = api.get(f"/api/sessions/{made}").json()["messages"]
    roles = ["system", "user", "system", "assistant", "system", "user", "assistant"]
    assert [each["role"] for each in stored] == roles
    assert [each["content"] for each in stored if each["role"] == "system"] == [
        "Be kind.",
        "Be brief.",
        "Be loud.",
    ]


def test_nothing_is_left_out_of_a_conversation_unless_the_request_allows_it(
    client: OpenAI, api: httpx.Client
) -> None:
    long: Any = [
        {"role": role, "content": "word " * 700} for role in ("user", "assistant", "user")
    ] + [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": FRANCE}]
    whole = ask(client, long, truncation="auto", max_output_tokens=20)
    assert whole.truncation == "auto"
    assert whole.usage is not None
    assert whole.usage.input_tokens < 2000
    for asked in (None, "disabled"):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(client, long, truncation=asked)
        assert refused.value.code == "context_length_exceeded"
    assert ask(client, FRANCE).truncation == "disabled"
    # OpenAI's own server fails in the stream, too, and agents rely on that.
    *_, last = client.responses.create(model="demo", input=long, stream=True)
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert str(last.response.error.code) == "context_length_exceeded"
    body = {"model": "demo", "input": long, "stream": True}
    assert api.post("/v1/responses", json=body).status_code == 200


def test_what_is_left_out_is_named(api: httpx.Client) -> None:
    body = {
        "model": "caller",
        "input": [{"role": "user", "content": "Hello"}, {"type": "web_search_call", "id": "x"}],
        "tools": [TOOL, {"type": "web_search"}, {"type": "image_generation"}],
        "max_output_tokens": 3,
        "text": {"format": None, "verbosity": "low"},
        "top_logprobs": 3,
        "user": "ann",
        "from_the_future": None,
        "reasoning": {"effort": None},
        "tool_choice": None,
        "truncation": None,
        "include": None,
    }
    for stream in (False, True):
        answer = api.post("/v1/responses", json=body | {"stream": stream})
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-MyLLM-Ignored"] == (
            "top_logprobs, text.verbosity, tools[1] (web_search), tools[2] (image_generation), "
            "input[1] (web_search_call)"
        )


def test_a_free_form_tool(client: OpenAI) -> None:
    """The client sees a text where the model writes JSON, also when it reads the answer again."""
    tool: Any = {"type": "custom", "name": "weather"}
    fields: dict[str, Any] = {"model": "caller", "tools": [tool], "max_output_tokens": 60}
    events = list(client.responses.create(input=FRANCE, temperature=0, stream=True, **fields))
    deltas = [e.delta for e in events if e.type == "response.custom_tool_call_input.delta"]
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    [call] = [item for item in last.response.output if item.type == "custom_tool_call"]
    assert (call.name, call.input) == ("weather", "".join(deltas))
    output: Any = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "sunny"}
    question: Any = {"role": "user", "content": FRANCE}
    told = ask(client, [question, *last.response.output, output], **fields)
    assert told.usage is not None
    if last.type == "response.completed":
        assert client.responses.retrieve(last.response.id).output == last.response.output


def test_a_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"]}
    wanted: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    assert json.loads(ask(client, FRANCE, text=wanted).output_text) == {"a": "b"}


@pytest.mark.parametrize("kind", ["json_schema", "json_object"])
def test_a_format_and_tools(client: OpenAI, kind: str) -> None:
    wanted: Any = {"format": {"type": kind, "name": "x", "schema": WEATHER}}
    if kind == "json_object":
        wanted = {"format": {"type": kind}}
    both: Any = {"model": "caller", "tools": [TOOL], "text": wanted}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="leave out the tools or the format"):
            ask(client, FRANCE, **both, stream=stream)
    output = ask(client, FRANCE, **both, tool_choice="required").output
    assert "weather" in [each.name for each in output if each.type == "function_call"]
    if kind == "json_schema":
        said = ask(client, FRANCE, **both, tool_choice="none").output_text
        assert json.loads(said) == {"city": "Paris"}


def test_an_answer_that_is_cut(client: OpenAI) -> None:
    cut = ask(client, FRANCE, max_output_tokens=3)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    stream = client.responses.create(
        model="demo", input=FRANCE, temperature=0, max_output_tokens=3, stream=True
    )
    assert [event.type for event in stream][-1] == "response.incomplete"


def test_a_picture(client: OpenAI) -> None:
    picture = {"type": "input_image", "image_url": data_url(png(255, 0, 0), "image/png")}
    parts = [{"type": "input_text", "text": "What is it?"}, picture]
    given = [{"role": "user", "content": parts}]
    seen = ask(client, given, model="eye", max_output_tokens=4)
    on = ask(client, "And?", model="eye", max_output_tokens=4, previous_response_id=seen.id)
    assert seen.usage is not None
    assert on.usage is not None
    assert on.usage.input_tokens > seen.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="cannot see images"):
        ask(client, given)


def test_a_client_that_leaves_has_a_part(api: httpx.Client) -> None:
    for _ in range(20):
        part = left_in_the_middle(api)
        if part["status"] != "completed":  # on a busy machine the answer may have been faster
            break
    assert part["status"] == "incomplete"
    assert part["output"][0]["content"][0]["text"].startswith("1, 2")


def left_in_the_middle(api: httpx.Client) -> dict[str, Any]:
    """What is stored of an answer whose client left after some tokens."""
    body = {"model": "demo", "input": "Count to one hundred.", "temperature": 0, "stream": True}
    lines = []
    with api.stream("POST", "/v1/responses", json=body) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if "output_text.delta" in line and len(lines) > 30:
                break
    made = json.loads(lines[1].removeprefix("data: "))["response"]["id"]
    path = f"/v1/responses/{made}"
    wait_until(lambda: api.get(path).status_code == 200, 20, "the part that was sent")
    stored: dict[str, Any] = api.get(path).json()
    return stored


def test_a_stream_that_fails() -> None:
    failure = EngineError("The engine is gone")
    record = {"id": "resp_x", "created_at": 1, "model": "demo", "asked": {}}
    events = Events("x", record, Form(Tools()))
    events.begin()
    events.say(Token("Hel"))
    [failed] = list(events_in(events.fail(failure).partition(b"\n")[2]))
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", 5)
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["message"] == "The engine is gone"
    assert failed["response"]["output"][0]["content"][0]["text"] == "Hel"
    assert failed["response"]["error"]["code"] == "server_error"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (PromptTooLong(9, 8), "context_length_exceeded"),
        (QueueFull("full"), "rate_limit_exceeded"),
        (InvalidRequest("wrong"), "invalid_prompt"),
        (EngineDied("gone"), "server_error"),
    ],
)
def test_a_stream_that_fails_before_its_answer(failure: MyLLMError, code: str) -> None:
    record = {"id": "resp_x", "created_at": 1, "model": "demo", "asked": {}}
    frames = Events("x", record, Form(Tools())).fail(failure)
    told = [json.loads(line[6:]) for line in frames.splitlines() if line.startswith(b"data: ")]
    assert [each["type"] for each in told] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
    assert told[-1]["response"]["error"]["code"] == code


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "web_search_call"}]}, "input must have an item"),
        ({"input": [{"type": "compaction_trigger"}]}, "input[0]: this server compacts"),
        ({"prompt": {"id": "x"}}, "prompt names what OpenAI keeps"),
        ({"conversation": "x"}, "conversation names what OpenAI keeps"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role must be"),
        ({"tools": [{"type": "function"}]}, "tools[0].name is required"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "there is no tool 'x'"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema is required"),
        ({"background": True}, "background"),
        ({"model": "gpt"}, "Model 'gpt' not found"),
    ],
)
def test_invalid_requests_are_refused(api: httpx.Client, fields: dict[str, Any], told: str) -> None:
    answer = api.post("/v1/responses", json={"model": "demo", "input": "hello"} | fields)
    assert answer.status_code == (404 if "model" in fields else 400), answer.text
    assert told in answer.json()["error"]["message"]
