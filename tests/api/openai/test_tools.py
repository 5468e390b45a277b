"""Tool calls and structured answers on `/v1/chat/completions`, also across killed engines.

The model's weights are random: what it says is made into calls and documents by the engine's
grammar alone, so every letter of them that is not forced is one that a cut could change. Before
a call the grammar would let it say anything, so it is given a bias to begin one.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest

from myllm.engine.engine import Engine
from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.generation.deltas import StreamedAnswer
from tests.ggufs import write_model
from tests.projectors import data_url, png, write_projector
from tests.serving import Serving, serving, short_home

CHAT = "/v1/chat/completions"
TEMPLATE = """
{%- if tools -%}
<|tools|>{% for tool in tools %}{{ tool.function | tojson }}{% endfor %}
{%- endif -%}
{%- for message in messages -%}
<|{{ message.role }}|>{{ message.content or '' }}
{%- for call in message.tool_calls or [] -%}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""  # noqa: E501 - as models have it
# Calls as one list. With separate calls, engines make several even if the request forbids it.
LISTING = """
{%- if tools -%}
<|tools|>{% for tool in tools %}{{ tool.function | tojson }}{% endfor %}
{%- endif -%}
{%- for message in messages -%}
<|{{ message.role }}|>{{ message.content or '' }}
{%- if message.tool_calls -%}
<tool_call>[
{%- for call in message.tool_calls -%}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
{{- ', ' if not loop.last }}
{%- endfor -%}
]</tool_call>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Paris"]}}, "required": ["city"]}
DIGITS = {"type": "array", "items": {"enum": list(range(10))}, "minItems": 60, "maxItems": 60}
LONG = {"type": "object", "properties": {"digits": DIGITS}, "required": ["digits"]}
# The first is the space that the tokenizer puts in front, which the grammar skips as one token.
WORDS = ["▁", "<tool_call>"]
BEGIN_OR_END = {"260": 10, "2": 16}
QUESTION = {"role": "user", "content": "Hm?"}


def tool(name: str, takes: dict[str, Any] = CITY) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": takes}}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as path:
        for name, template in (("tooled", TEMPLATE), ("lister", LISTING)):
            folder = path / "models" / name
            write_model(folder / "model.gguf", words=WORDS)
            write_projector(folder / "mmproj.gguf")
            (folder / "tools.jinja").write_text(template)
            (folder / "config.json").write_text('{"template": "tools.jinja"}')
        with serving(path, threads=1) as running:
            yield running


def body(*tools: dict[str, Any], messages: Any = (QUESTION,), **more: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": "tooled", "messages": messages, "seed": 5}
    if tools:
        asked |= {"tools": tools, "tool_choice": "required", "logit_bias": BEGIN_OR_END}
        asked["parallel_tool_calls"] = False
    return asked | more


def ask(api: httpx.Client, *tools: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = api.post(CHAT, json=body(*tools, **more))
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def calls(said: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the names of the called tools, and their arguments."""
    [choice] = said["choices"]
    assert choice["finish_reason"] == "tool_calls", said
    made = choice["message"]["tool_calls"]
    assert all(each["id"] and each["type"] == "function" for each in made)
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in made]


def told(said: StreamedAnswer) -> Any:
    """Return all that must be equal in two answers to the same question."""
    made = [(call.name, call.arguments) for call in said.calls.values()]
    assert said.usage is not None
    counts = (said.usage["prompt_tokens"], said.usage["completion_tokens"])
    return said.text, made, said.finish_reason, counts


def test_a_call(api: httpx.Client) -> None:
    [(name, takes)] = calls(ask(api, tool("weather")))
    assert name == "weather"
    assert takes["city"] in ("Rome", "Paris")


def test_a_streamed_call_is_the_same(server: Serving, api: httpx.Client) -> None:
    whole = ask(api, tool("digits", LONG))
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    asked = body(tool("digits", LONG))
    parts = [
        call
        for chunk in client.chat.completions.create(**asked, stream=True)
        for call in chunk.choices[0].delta.tool_calls or ()
    ]
    assert parts[0].id
    assert parts[0].function.name == "digits"
    assert len(parts) > 10
    assert all(part.id is None for part in parts[1:])
    arguments = "".join(part.function.arguments or "" for part in parts)
    assert calls(whole) == [("digits", json.loads(arguments))]


def test_one_that_is_named_is_called(api: httpx.Client) -> None:
    tools = [tool("one"), tool("two"), tool("three")]
    for name in ("one", "two", "three"):
        choice = {"type": "function", "function": {"name": name}}
        assert calls(ask(api, *tools, tool_choice=choice))[0][0] == name


def test_an_unknown_choice_is_refused(api: httpx.Client) -> None:
    for choice, why in (
        ({"type": "function", "function": {"name": "two"}}, "there is no tool 'two'"),
        ("two", "tool_choice"),
        ({"type": "function"}, "tool_choice"),
    ):
        answer = api.post(CHAT, json=body(tool("one"), tool_choice=choice))
        assert answer.status_code == 400
        assert why in answer.json()["error"]["message"]


def test_several_calls_only_where_they_are_wanted(api: httpx.Client) -> None:
    def made(parallel: bool) -> list[int]:
        options = {"parallel_tool_calls": parallel, "model": "lister"}
        asked = [body(tool("a"), tool("b"), **options, seed=seed) for seed in range(6)]
        answers = [api.post(CHAT, json=each).json()["choices"][0] for each in asked]
        return [len(answer["message"]["tool_calls"]) for answer in answers]

    assert set(made(False)) == {1}
    assert max(made(True)) > 1


def test_results_are_read(api: httpx.Client) -> None:
    first = ask(api, tool("weather"))
    message = first["choices"][0]["message"]
    [call] = message["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    history = [QUESTION, message, result]
    for content in ("sunny", [{"type": "text", "text": "sunny"}]):
        then = ask(
            api,
            tool("weather"),
            messages=[*history[:2], result | {"content": content}],
            tool_choice="none",
            logit_bias={},
            max_tokens=4,
        )
        assert then["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + len("sunny")
        assert "tool_calls" not in then["choices"][0]["message"]
    assert calls(ask(api, tool("weather"), messages=history))


def test_no_tool_is_called_that_may_not_be(api: httpx.Client) -> None:
    said = ask(api, tool("weather"), tool_choice="none", logit_bias={}, max_tokens=20)
    assert "tool_calls" not in said["choices"][0]["message"]
    assert said["choices"][0]["message"]["content"]


def test_a_schema_is_kept_to(api: httpx.Client) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    said = ask(api, response_format=schema)["choices"][0]["message"]["content"]
    assert json.loads(said)["city"] in ("Rome", "Paris")
    streamed = api.post(CHAT, json=body(response_format=schema, stream=True))
    whole = StreamedAnswer("chat")
    whole.take(events_in(streamed.content))
    assert whole.text == said


FORMATS: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": LONG}}},
    {"json_schema": LONG},
    {"guided_json": LONG},
]


@pytest.mark.parametrize("form", FORMATS)
def test_a_required_call_is_made_whatever_the_format(
    api: httpx.Client, form: dict[str, Any]
) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    for more in ({}, {"tool_choice": choice}):
        assert calls(ask(api, tool("weather"), **form, **more))[0][0] == "weather"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", [*FORMATS, {"grammar": 'root ::= "x"'}])
def test_a_format_is_refused_if_tools_may_be_called(
    api: httpx.Client, form: dict[str, Any], stream: bool
) -> None:
    asked = body(tool("weather"), **form, tool_choice="auto", stream=stream)
    answer = api.post(CHAT, json=asked)
    assert answer.status_code == 400
    assert "leave out the tools or the format" in answer.json()["error"]["message"]


def test_a_format_is_kept_to_if_no_tool_may_be_called(api: httpx.Client) -> None:
    unused = {"tool_choice": "none", "logit_bias": {}}
    for form in ({"json_schema": CITY}, {"grammar": """root ::= "{\\"city\\": \\"Rome\\"}" """}):
        said = ask(api, tool("weather"), **unused, **form)["choices"][0]["message"]["content"]
        assert json.loads(said)["city"] in ("Rome", "Paris")


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_a_template_without_tools_is_refused(api: httpx.Client, path: str) -> None:
    """Also when the request is a stream, and in every dialect."""
    asked = {"model": "demo", "messages": [QUESTION], "max_tokens": 4}
    weather = {"name": "weather", "input_schema": CITY}
    tools = [tool("weather") if path == CHAT else weather]
    for stream in (False, True):
        answer = api.post(path, json=asked | {"tools": tools, "stream": stream})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == (
            "Model 'demo' cannot call tools: its chat template has no place for them"
        )
        assert api.post(path, json=asked | {"stream": stream}).status_code == 200
    unused = {"tools": [tool("weather")], "tool_choice": "none"}
    assert path != CHAT or api.post(path, json=asked | unused).status_code == 200


class Reader(threading.Thread):
    """A client that reads a stream."""

    def __init__(self, server: Serving, asked: dict[str, Any]) -> None:
        super().__init__()
        self.said = StreamedAnswer("chat")
        self._server = server
        self._asked = asked | {"stream": True, "stream_options": {"include_usage": True}}

    def run(self) -> None:
        with self._server.client() as api, api.stream("POST", CHAT, json=self._asked) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.said.take(events_in(f"{line}\n\n".encode()))


def whole(server: Serving, asked: dict[str, Any]) -> StreamedAnswer:
    reader = Reader(server, asked)
    reader.start()
    reader.join(60)
    return reader.said


PICTURE = {"type": "image_url", "image_url": {"url": data_url(png(0, 255, 0), "image/png")}}
SEEN = {"role": "user", "content": [{"type": "text", "text": "Hm?"}, PICTURE]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "digits", "schema": LONG}}
CUT = [
    body(tool("digits", LONG)),
    body(tool("other"), tool("digits", LONG), parallel_tool_calls=True, tool_choice={
        "type": "function", "function": {"name": "digits"}}),
    body(response_format=SCHEMA),
    body(response_format=SCHEMA, temperature=0),
    body(messages=[SEEN], max_tokens=200, logit_bias={"2": -100}),
]  # fmt: skip


@pytest.mark.parametrize("asked", CUT)
def test_an_engine_that_is_killed_in_the_middle_is_not_noticed(
    server: Serving, asked: dict[str, Any]
) -> None:
    undisturbed = whole(server, asked)
    assert undisturbed.calls or undisturbed.text
    deaths = server.log.count("engine died under a request")
    [engine] = [each for each in server.engines() if "tooled" in each.cmdline()]
    reader = caught(server, asked, engine, told_so_far(undisturbed))
    before = told_so_far(reader.said)
    engine.send_signal(signal.SIGKILL)
    reader.join(60)
    assert server.log.count("engine died under a request") == deaths + 1
    assert 0 < before < told_so_far(reader.said)
    assert told(reader.said) == told(undisturbed)


def caught(
    server: Serving, asked: dict[str, Any], engine: psutil.Process, whole_length: int
) -> Reader:
    """Return a reader in the middle of an answer, with its engine suspended; some finish first."""
    for _ in range(30):
        engine.suspend()
        reader = Reader(server, asked)
        reader.start()
        while reader.is_alive():
            engine.resume()
            time.sleep(0.002)
            engine.suspend()
            if has_begun_and_waits(reader) and told_so_far(reader.said) < whole_length:
                return reader
    raise AssertionError("every answer was whole before its engine was stopped")


def has_begun_and_waits(reader: Reader) -> bool:
    """Whether the suspended engine owes the rest: nothing that it has sent is still on its way."""
    seen, quiet_since = -1, time.monotonic()
    while reader.is_alive() and time.monotonic() - quiet_since < 0.25:
        if seen != (seen := told_so_far(reader.said)):
            quiet_since = time.monotonic()
        if not seen:
            return False  # before the first token there is no need to wait
        time.sleep(0.01)
    return reader.is_alive()


def told_so_far(said: StreamedAnswer) -> int:
    return len(said.text) + sum(len(call.arguments) for call in said.calls.values())


def test_old_clients_get_the_calls_that_they_know(api: httpx.Client) -> None:
    function = {"name": "weather", "parameters": CITY}
    asked = {"functions": [function, {"name": "other", "parameters": CITY}]} | {
        "function_call": {"name": "weather"}, "logit_bias": BEGIN_OR_END,
    }  # fmt: skip
    [choice] = ask(api, **asked)["choices"]
    assert choice["finish_reason"] == "function_call"
    assert "tool_calls" not in choice["message"]
    call = choice["message"]["function_call"]
    assert call["name"] == "weather"
    assert json.loads(call["arguments"])["city"] in ("Rome", "Paris")
    streamed = api.post(CHAT, json=body(**asked, stream=True))
    assert streamed.text.endswith("data: [DONE]\n\n")
    events = list(events_in(streamed.content))
    parts = [each["choices"][0]["delta"].get("function_call", {}) for each in events]
    assert "".join(part.get("name", "") for part in parts) == "weather"
    assert "".join(part.get("arguments", "") for part in parts) == call["arguments"]
    assert events[-1]["choices"][0]["finish_reason"] == "function_call"
    assert "tool_calls" not in streamed.text
    assert ask(api, **asked | {"tools": []})["choices"][0]["message"] == choice["message"]
    history = [QUESTION, choice["message"], {"role": "function", "name": "weather", "content": "3"}]
    then = ask(api, **asked | {"messages": history, "function_call": "none", "logit_bias": {}})
    assert then["choices"][0]["finish_reason"] in ("stop", "length")


def test_an_unknown_format_is_refused(api: httpx.Client) -> None:
    for wanted in ({"type": "regex"}, "json"):
        answer = api.post(CHAT, json=body(response_format=wanted))
        assert answer.status_code == 400
        assert "response_format" in answer.json()["error"]["message"]


def test_tools_that_are_no_functions_are_named(api: httpx.Client) -> None:
    search = {"type": "web_search"}
    answer = api.post(CHAT, json=body(search, tool("weather")))
    assert answer.headers["X-MyLLM-Ignored"] == "tools[0] (web_search)"
    assert calls(answer.json())[0][0] == "weather"
