"""Bad requests get a sentence that says what to do, and change nothing."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.events import detail, post, stream

JSON = {"Content-Type": "application/json"}
HI = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('{"temperature": 3}', "temperature must be between 0.0 and 2.0"),
        ('{"temperature": NaN}', "The body is not valid JSON: "),
        ('{"temperature": 1e999}', "The body is not valid JSON: "),
        ('{"temperature": "NaN"}', "temperature must be between 0.0 and 2.0"),
        ('{"temperature": "hot"}', "temperature must be a number"),
        ('{"top_p": -0.1}', "top_p must be between 0.0 and 1.0"),
        ('{"top_k": -1}', "top_k must be between 0 and 2147483647"),
        ('{"top_k": 1.5}', "top_k must be a whole number"),
        ('{"max_tokens": 0}', "max_tokens must be between 1 and 2147483647"),
        ('{"repeat_penalty": -1}', "repeat_penalty must be 0.0 or more"),
        ('{"presence_penalty": 2.1}', "presence_penalty must be between -2.0 and 2.0"),
        ('{"stop": "x"}', "stop must be a list"),
        ('{"temprature": 1}', "Unknown option 'temprature'; did you mean 'temperature'?"),
        ('{"num_predict": 1}', "Unknown option 'num_predict'; did you mean "),
    ],
)
def test_options_out_of_range(api: httpx.Client, options: str, words: str) -> None:
    body = f'{{"model": "demo", "prompt": "x", "options": {options}}}'
    answer = api.post("/api/generate", content=body, headers=JSON)
    assert detail(answer, 400).startswith(words)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/generate", {"model": "demo"}, "prompt is required"),
        ("/api/generate", {"model": "demo", "prompt": ""}, "prompt must not be empty"),
        ("/api/generate", {"prompt": "x"}, "model is required"),
        ("/api/generate", {"model": "demo", "prompt": "x", "stream": 7}, "stream must be true or"),
        (
            "/api/generate",
            {"model": "demo", "prompt": "x", "keep_alive": {}},
            "keep_alive must be seconds, or a text such as",
        ),
        (
            "/api/generate",
            {"model": "demo", "prompt": "x", "keep_alive": 10**400},
            "The body is not valid JSON: number is infinity",
        ),
        ("/api/chat", {"model": "demo", "messages": []}, "messages must not be empty"),
        ("/api/chat", {"model": "demo", "messages": "x"}, "messages must be a list"),
        ("/api/chat", {"model": "demo", "messages": [1]}, "messages[0] must be an object"),
        (
            "/api/chat",
            {"model": "demo", "messages": [{"role": "bot", "content": "x"}]},
            "messages[0].role must be one of 'system', 'developer', 'user', 'assistant', "
            "'tool' or 'function'",
        ),
        (
            "/api/chat",
            {"model": "demo", "messages": [*HI, {"role": "user", "content": ""}]},
            "messages[1].content must not be empty",
        ),
        (
            "/api/chat",
            {"model": "demo", "messages": HI, "session_id": "../etc"},
            "session_id must be 1 to 128 characters",
        ),
        ("/api/embeddings", {"model": "demo", "input": ""}, "input must not be empty"),
        ("/api/embeddings", {"model": "demo", "input": []}, "input must not be empty"),
        (
            "/api/generate",
            {"model": "demo", "prompt": "x", "format": {"type": "nonsense"}},
            "The engine refused the request",
        ),
    ],
)
def test_wrong_bodies(api: httpx.Client, path: str, body: Any, words: str) -> None:
    assert detail(api.post(path, json=body), 400).startswith(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "The body must be a JSON object"),
        (b"[1]", "The body must be a JSON object"),
        (b'{"model": ', "The body is not valid JSON"),
        (b'{"model": "demo", "prompt": "\xff"}', "The body is not valid JSON in UTF-8"),
        (bytes(range(128, 256)), "The body is not valid JSON in UTF-8"),
        (b"[" * 10_000, "The body is not valid JSON"),
    ],
)
def test_bodies_that_are_no_json(api: httpx.Client, content: bytes, words: str) -> None:
    answer = api.post("/api/generate", content=content, headers=JSON)
    assert detail(answer, 400).startswith(words)


def test_another_content_type(api: httpx.Client) -> None:
    body = json.dumps({"model": "demo", "prompt": "x"})
    answer = api.post("/api/generate", content=body, headers={"Content-Type": "text/plain"})
    assert detail(answer, 400) == "Content-Type must be application/json, not 'text/plain'"


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "x", "stream": False}),
        ("/api/sessions/none/fork", {"message": 1}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 1}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/embeddings", {"input": "x"}),
        ("/tokenize", {"content": "x"}),
    ],
)
def test_json_without_a_content_type(api: httpx.Client, path: str, body: dict[str, object]) -> None:
    content = json.dumps({"model": "demo"} | body).encode()
    plain = api.post(path, content=content)
    assert "content-type" not in plain.request.headers
    typed = api.post(path, content=content, headers=JSON)
    assert (plain.status_code, plain.json().keys()) == (typed.status_code, typed.json().keys())
    form = api.post(path, content=content, headers=FORM)
    assert form.status_code == 400
    assert "Content-Type must be application/json, not 'application/x-www" in form.text


@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions", "/v1/messages"])
def test_half_of_a_surrogate_pair_is_read(api: httpx.Client, path: str) -> None:
    half = b'"cut \\ud83d"'
    content = b'{"model": "demo", "prompt": %s, "stream": false, "max_tokens": 1,' % half
    content += b' "messages": [{"role": "user", "content": %s}]}' % half
    assert api.post(path, content=content, headers=JSON).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_20_mib(api: httpx.Client, chunked: bool) -> None:
    content = b'{"model": "demo", "prompt": "' + b"x" * (20 * 2**20) + b'"}'
    body: Any = iter([content]) if chunked else content
    answer = api.post("/api/generate", content=body, headers=JSON)
    assert detail(answer, 413) == "The body is larger than 16 MiB"
    assert post(api, "/api/chat", model="demo", messages=HI, stream=False)["message"]["content"]


@pytest.mark.parametrize("name", ["gpt-4", "../demo", "demo/../demo", "", "a" * 200, "dem\u0000o"])
def test_a_model_that_is_not_there(api: httpx.Client, name: str) -> None:
    answer = api.post("/api/chat", json={"model": name, "messages": HI})
    assert detail(answer, 404) == f"Model '{name}' not found. Available models: demo"


def test_a_prompt_that_is_too_long(api: httpx.Client) -> None:
    words = "word " * 5000
    for path, content in (
        ("/api/generate", {"prompt": words}),
        ("/api/chat", {"messages": [{"role": "user", "content": words}]}),
    ):
        for streamed in (True, False):
            answer = api.post(path, json={"model": "demo", "stream": streamed, **content})
            text = detail(answer, 400)
            assert text.startswith("Prompt too long for context window (2048 tokens): ")
    answer = api.post("/api/embeddings", json={"model": "demo", "input": words})
    assert detail(answer, 400).startswith("Input too long for embeddings (2048 tokens): ")


def test_nothing_is_stored_for_a_request_that_failed(api: httpx.Client) -> None:
    words = [{"role": "user", "content": "word " * 5000}]
    body = {"model": "demo", "messages": words, "session_id": "failed"}
    assert api.post("/api/chat", json=body).status_code == 400
    _, last = stream(api, "/api/chat", model="demo", messages=HI, session_id="failed")
    _, alone = stream(api, "/api/chat", model="demo", messages=HI)
    assert last["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]


def test_unknown_routes_and_methods(api: httpx.Client) -> None:
    assert detail(api.get("/nowhere"), 404) == "No such route: GET /nowhere; see /docs"
    assert detail(api.put("/api/chat"), 405) == "/api/chat does not take PUT; see /docs"


def test_unknown_fields_beside_the_options_are_ignored(api: httpx.Client) -> None:
    post(api, "/api/chat", model="demo", messages=HI, stream=False, user="me", raw=[1])


def test_a_span_that_no_calendar_has_is_for_ever(api: httpx.Client) -> None:
    post(api, "/api/chat", model="demo", messages=HI, stream=False, keep_alive=1e20)
    instances = api.get("/api/instances").json()["instances"]
    [chats] = [each for each in instances if each["role"] == "generate"]
    assert chats["expires_at"] is None
    assert api.get("/ollama/api/ps").status_code == 200


def test_a_call_with_a_number_that_is_too_large_for_engines_is_text(api: httpx.Client) -> None:
    call = {"function": {"name": "weather", "arguments": {"n": 10**30}}}
    messages = [*HI, {"role": "assistant", "content": "", "tool_calls": [call]}, *HI]
    asked = {"model": "demo", "messages": messages, "stream": False}
    assert api.post("/ollama/api/chat", json=asked).status_code == 200
    block = {"type": "tool_use", "id": "a", "name": "weather", "input": {"n": 10**30}}
    messages = [*HI, {"role": "assistant", "content": [block]}]
    asked = {"model": "demo", "messages": messages, "max_tokens": 4}
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        assert api.post(path, json=asked).status_code == 200
