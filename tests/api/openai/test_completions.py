"""OpenAI's chat and completions: choices, prompts, usage, and streams whose engine is killed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.events import post
from tests.serving import Serving

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUESTION = "Count to one hundred."
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": QUESTION}]},
    COMPLETIONS: {"prompt": "Count to one"},
}
GREEDY = {"model": "demo", "temperature": 0, "max_tokens": 60}


class Told:
    """Return a stream's text, and the fields that its chunks share and end with."""

    def __init__(self, chunks: list[dict[str, Any]], ended: bool) -> None:
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        said = [
            each["delta"].get("content") if "delta" in each else each["text"] for each in choices
        ]
        self.text = "".join(filter(None, said))
        self.finish_reason = choices[-1]["finish_reason"]
        self.ids = {chunk["id"] for chunk in chunks}
        self.usage = chunks[-1].get("usage")
        self.ended = ended


def stream(api: httpx.Client, path: str, server: Serving | None = None, cut: int = 0) -> Told:
    """Read a stream, and kill the engine of `server` after chunk number `cut`."""
    body = GREEDY | ASKED[path] | {"stream": True, "stream_options": {"include_usage": True}}
    chunks, ended = [], False
    with api.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                ended = True
            elif line.startswith("data: "):
                chunks.append(json.loads(line[6:]))
            if server is not None and len(chunks) == cut:
                [engine] = server.engines()
                engine.kill()
                server = None
    return Told(chunks, ended)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("cut", [1, 2, 30, 59])
def test_a_stream_outlives_its_engine(
    server: Serving, api: httpx.Client, path: str, cut: int
) -> None:
    post(api, path, **GREEDY, **ASKED[path])  # one engine runs, whatever ran before
    whole, cut_one = stream(api, path), stream(api, path, server, cut)
    assert cut_one.text == whole.text
    assert cut_one.finish_reason == whole.finish_reason
    assert cut_one.ended
    assert len(cut_one.ids) == 1
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert cut_one.usage[name] == whole.usage[name], name


def test_a_prompt_counts_once_for_all_its_choices(api: httpx.Client) -> None:
    one = post(api, CHAT, **GREEDY, **ASKED[CHAT])
    three = post(api, CHAT, **GREEDY, **ASKED[CHAT], n=3)
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    assert three["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert three["usage"]["completion_tokens"] == 3 * one["usage"]["completion_tokens"]


def test_choices_of_a_stream_have_indexes(api: httpx.Client) -> None:
    one = post(api, CHAT, **GREEDY, **ASKED[CHAT])["choices"][0]["message"]["content"]
    body = (
        GREEDY | ASKED[CHAT] | {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    )
    text = api.post(CHAT, json=body).text
    *chunks, usage = [json.loads(line[6:]) for line in text.splitlines() if line[6:7] == "{"]
    said = {0: "", 1: ""}
    for chunk in chunks:
        [choice] = chunk["choices"]
        said[choice["index"]] += choice["delta"].get("content") or ""
    assert said == {0: one, 1: one}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 2 * GREEDY["max_tokens"]
    assert text.endswith("data: [DONE]\n\n")


def test_several_prompts_are_answered_in_their_order(api: httpx.Client) -> None:
    prompts = ["Count to one", "What is the capital of"]
    alone = [post(api, COMPLETIONS, **GREEDY, prompt=prompt) for prompt in prompts]
    both = post(api, COMPLETIONS, **GREEDY, prompt=prompts)
    texts = [answer["choices"][0]["text"] for answer in alone]
    assert [choice["text"] for choice in both["choices"]] == texts
    counted = sum(answer["usage"]["prompt_tokens"] for answer in alone)
    assert both["usage"]["prompt_tokens"] == counted


def test_the_engines_state_is_out_of_reach(api: httpx.Client) -> None:
    plain = post(api, CHAT, **GREEDY, **ASKED[CHAT])
    reaching = {
        "id_slot": 99, "lora": [{"id": 0, "scale": 1}], "n_predict": -2, "cache_prompt": False,
        "response_fields": ["content"], "n_keep": 5, "return_progress": True,
    }  # fmt: skip
    answer = post(api, CHAT, **GREEDY, **ASKED[CHAT], **reaching)
    assert answer["choices"] == plain["choices"]


@pytest.mark.parametrize(
    ("field", "value"), [("max_tokens", 0), ("temperature", 3), ("n", 0), ("stop", 5)]
)
def test_errors_name_the_field(api: httpx.Client, field: str, value: Any) -> None:
    answer = api.post(CHAT, json=GREEDY | ASKED[CHAT] | {field: value})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].split(".")[0] == field
    assert field in error["message"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_speeds_are_in_whole_answers_as_in_streams(api: httpx.Client, path: str) -> None:
    whole = post(api, path, **GREEDY, **ASKED[path])
    assert whole["timings"]["predicted_n"] == whole["usage"]["completion_tokens"]
    text = api.post(path, json=GREEDY | ASKED[path] | {"stream": True}).text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line[6:7] == "{"]
    assert set(chunks[-1]["timings"]) == set(whole["timings"])
    assert "timings" not in post(api, path, **GREEDY, **ASKED[path], n=2)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_stream_reports_how_much_of_the_prompt_is_read(api: httpx.Client, path: str) -> None:
    asked = GREEDY | ASKED[path] | {"return_progress": True, "timings_per_token": True}
    plain = post(api, path, **GREEDY, **ASKED[path])
    text = api.post(path, json=asked | {"stream": True}).text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line[6:7] == "{"]
    progress = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert progress
    assert progress[-1]["processed"] == progress[-1]["total"] == plain["usage"]["prompt_tokens"]
    assert sum("timings" in chunk for chunk in chunks) > GREEDY["max_tokens"] // 2
    assert post(api, path, **asked)["choices"] == plain["choices"]


def test_an_answer_without_a_bound_fills_the_context(api: httpx.Client) -> None:
    digits = {"type": "array", "items": {"enum": [0]}, "minItems": 1000}
    asked = {"model": "demo", "max_tokens": -1, "json_schema": digits, "temperature": 0}
    answer = post(api, COMPLETIONS, **asked, prompt="Count", top_k=-1)
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert answer["usage"]["completion_tokens"] > 900


def test_what_is_left_out_is_named(api: httpx.Client) -> None:
    extra = {"verbosity": "low", "id_slot": 3, "user": "ann", "store": True, "metadata": {}}
    for stream in (False, True):
        answer = api.post(CHAT, json=GREEDY | ASKED[CHAT] | extra | {"stream": stream})
        assert answer.status_code == 200
        assert answer.headers["X-MyLLM-Ignored"] == "verbosity, id_slot"
    assert "X-MyLLM-Ignored" not in api.post(CHAT, json=GREEDY | ASKED[CHAT]).headers


def test_content_in_every_form(api: httpx.Client) -> None:
    """Null and parts of other APIs, on their way to the engine."""
    parts = [{"type": "input_text", "text": "Count to"}, "one hundred."]
    for content in (parts, [{"type": "text", "text": "Count to\none hundred."}]):
        messages = [
            {"role": "developer", "content": None, "name": None},
            {"role": "user", "content": content, "tool_calls": None},
        ]
        answer = post(api, CHAT, **GREEDY, messages=messages, tools=None, stream_options=None)
        assert answer["choices"][0]["message"]["content"]
