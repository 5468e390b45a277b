"""Tools and thinking on `/api/chat`, with sessions; only the demo model's template is a fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import detail, parse, post
from tests.serving import Serving, serving, short_home, wait_until
from tests.tooled import OPEN_THOUGHTS, TOOLS, WEATHER, add_model

FRANCE = {"role": "user", "content": "What is the capital of France?"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
OTHER = {"type": "function", "function": {"name": "other", "parameters": WEATHER}}
LONG = {"role": "user", "content": "MyLLM keeps conversations and their memory. " * 40}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_model(home / "models", "caller", TOOLS, context_size=2048)
        add_model(home / "models", "thinker", OPEN_THOUGHTS)
        with serving(home) as running:
            yield running


def chat(api: httpx.Client, *messages: dict[str, Any], **fields: Any) -> Any:
    body = {"model": "caller", "messages": messages, "tools": [TOOL], "stream": False}
    return post(api, "/api/chat", **body | fields)


def events(api: httpx.Client, *messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "caller", "messages": messages, "tools": [TOOL]} | fields
    with api.stream("POST", "/api/chat", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        return [parse(line) for line in answer.iter_lines() if line.startswith("data: ")]


def stored(api: httpx.Client, session: str) -> list[dict[str, Any]]:
    shown = api.get(f"/api/sessions/{session}").raise_for_status().json()
    return list(shown["messages"])


def test_a_call_and_its_result(api: httpx.Client) -> None:
    asked = chat(api, FRANCE)
    assert asked["finish_reason"] == "tool_calls"
    [call] = asked["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    session = asked["session_id"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    told = chat(api, result, session_id=session, options={"max_tokens": 5})
    assert told["usage"]["prompt_tokens"] > asked["usage"]["prompt_tokens"]
    said = stored(api, session)
    assert [each["role"] for each in said] == ["user", "assistant", "tool", "assistant"]
    assert said[1]["tool_calls"] == [call]
    assert said[2]["tool_call_id"] == call["id"]


def test_a_format_is_refused_if_tools_may_be_called(api: httpx.Client) -> None:
    for stream in (False, True):
        body = {"model": "caller", "messages": [FRANCE], "tools": [TOOL], "stream": stream}
        answer = api.post("/api/chat", json=body | {"format": WEATHER})
        assert "leave out the tools or the format" in detail(answer, 400)
    called = chat(api, FRANCE, format="json", tool_choice="required")
    assert called["message"]["tool_calls"][0]["function"]["name"] == "weather"


def test_a_whole_history_with_calls_is_known_again(api: httpx.Client) -> None:
    asked = chat(api, FRANCE)
    [call] = asked["message"]["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    whole = [FRANCE, asked["message"], result]
    chat(api, *whole, session_id=asked["session_id"], options={"max_tokens": 5})
    said = stored(api, asked["session_id"])
    assert [each["superseded"] for each in said] == [False] * 4


def test_a_stream_of_a_call(api: httpx.Client) -> None:
    *parts, last = events(api, FRANCE)
    assert "".join(part.get("token", "") for part in parts) == last["full_text"]
    calls = [call for part in parts for call in part.get("tool_calls", ())]
    assert all(part["done"] is False for part in parts)
    assert (calls[0]["index"], calls[0]["type"]) == (0, "function")
    assert all("id" not in call for call in calls[1:])
    [call] = last["tool_calls"]
    assert call["id"] == calls[0]["id"]
    arguments = "".join(each["function"].get("arguments", "") for each in calls)
    assert call["function"] == {"name": "weather", "arguments": arguments}
    assert last["finish_reason"] == "tool_calls"


def test_a_certain_tool(api: httpx.Client) -> None:
    named = {"type": "function", "function": {"name": "other"}}
    answer = chat(api, FRANCE, tools=[TOOL, OTHER], tool_choice=named)
    assert [each["function"]["name"] for each in answer["message"]["tool_calls"]] == ["other"]
    none = chat(api, FRANCE, tool_choice="none", options={"max_tokens": 8})
    assert "tool_calls" not in none["message"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tool_choice": {"function": {"name": "x"}}}, "tool_choice: there is no tool 'x'"),
        ({"tool_choice": "required", "tools": []}, "tool_choice is required, but there are no"),
        ({"tools": [{"type": "function"}]}, "tools[0].function is required"),
        ({"thinking": True}, "Model 'caller' does not think"),
    ],
)
def test_invalid_requests_are_refused(api: httpx.Client, fields: dict[str, Any], told: str) -> None:
    body = {"model": "caller", "messages": [FRANCE], "tools": [TOOL]} | fields
    assert told in detail(api.post("/api/chat", json=body), 400)


def test_a_result_that_answers_no_call_is_read(api: httpx.Client) -> None:
    result = {"role": "tool", "content": "It is sunny."}
    less, more = (
        chat(api, *said, options={"max_tokens": 1})["usage"]["prompt_tokens"]
        for said in ([FRANCE], [FRANCE, result])
    )
    assert more > less


def test_a_format_with_tools_that_are_not_to_be_used(api: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"]}
    answer = chat(api, FRANCE, tool_choice="none", format=schema)
    assert json.loads(answer["message"]["content"]) == {"a": "b"}


def test_the_history_of_calls_is_made_to_fit(api: httpx.Client) -> None:
    session, dropped, most = None, 0, {"max_tokens": 4}
    for number in range(9):
        question = LONG | {"content": f"{number} {LONG['content']}"}
        asked = chat(api, question, session_id=session, options=most)
        session, dropped = asked["session_id"], asked.get("dropped_messages", 0)
    assert dropped > 0
    assert dropped % 2 == 0
    assert asked["usage"]["total_tokens"] <= 2048


def test_a_conversation_with_tools_keeps_its_cache(api: httpx.Client) -> None:
    first = chat(api, LONG, options={"max_tokens": 4})
    assert api.post("/api/models/caller/unload").status_code == 200
    second = chat(api, FRANCE, session_id=first["session_id"], options={"max_tokens": 4})
    assert second["usage"]["cached_tokens"] >= first["usage"]["prompt_tokens"] - 1
    plain = chat(api, FRANCE, session_id=first["session_id"], tools=None,
                 options={"max_tokens": 4})  # fmt: skip
    assert plain["message"]["content"]


def test_a_call_that_is_cut_is_no_use_to_later_turns(api: httpx.Client) -> None:
    whole = chat(api, FRANCE)
    most = whole["usage"]["completion_tokens"] * 3 // 4
    cut = chat(api, FRANCE, options={"max_tokens": most})
    assert cut["finish_reason"] == "length"
    assert "tool_calls" in cut["message"]
    assert "tool_calls" not in stored(api, cut["session_id"])[1]


def test_an_engine_that_dies_in_a_call(api: httpx.Client, server: Serving) -> None:
    undisturbed = chat(api, FRANCE)["message"]["tool_calls"][0]["function"]
    body = {"model": "caller", "messages": [FRANCE], "tools": [TOOL]}
    heard = []
    with api.stream("POST", "/api/chat", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                heard.append(parse(line))
            if "tool_calls" in line and len(heard) < 20 and server.engines():
                for engine in server.engines():
                    engine.kill()
    assert heard[-1]["tool_calls"][0]["function"] == undisturbed


def test_thoughts_have_their_place(api: httpx.Client) -> None:
    fields: dict[str, Any] = {"model": "thinker", "tools": None, "options": {"max_tokens": 20}}
    whole = chat(api, FRANCE, **fields)
    assert whole["message"]["thinking"]
    *parts, last = events(api, FRANCE, **fields)
    assert "".join(part.get("thinking", "") for part in parts) == last["thinking"]
    assert last["thinking"] == whole["message"]["thinking"]
    assert stored(api, whole["session_id"])[1]["thinking"] == whole["message"]["thinking"]
    off = chat(api, FRANCE, thinking=False, **fields)
    assert off["message"] == {"role": "assistant", "content": "The capital of France is Paris."}


def test_whether_a_model_thinks_is_shown(api: httpx.Client) -> None:
    told = {name: api.get(f"/api/models/{name}").json()["thinking"] for name in ("demo", "thinker")}
    assert told == {"demo": False, "thinker": True}


def test_a_client_that_leaves_has_heard_so_much(api: httpx.Client) -> None:
    hundred = {"role": "user", "content": "Count to one hundred."}
    body = {"model": "thinker", "messages": [hundred], "thinking": False, "session_id": "left"}
    with api.stream("POST", "/api/chat", json=body | {"options": {"max_tokens": 400}}) as answer:
        next(line for line in answer.iter_lines() if "token" in line)
    wait_until(
        lambda: api.get("/api/sessions/left").status_code == 200, 20, "the part that was sent"
    )
    assert stored(api, "left")[1]["partial"] is True


@pytest.mark.parametrize("form", ["json", "markdown"])
def test_calls_move_with_their_conversation(api: httpx.Client, form: str) -> None:
    asked = chat(api, FRANCE, session_id=f"moving-{form}")
    file = api.get(f"/api/sessions/moving-{form}/export", params={"format": form})
    headers = {"Content-Type": file.headers["content-type"]}
    query = {"session_id": f"moved-{form}"}
    moved = api.post("/api/sessions/import", content=file.content, headers=headers, params=query)
    assert moved.status_code == 201, moved.text
    assert stored(api, f"moved-{form}")[1]["tool_calls"] == asked["message"]["tool_calls"]
