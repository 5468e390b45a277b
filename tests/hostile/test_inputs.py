"""The server refuses excessive bodies before they cost anything, with one short sentence."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from myllm import limits
from tests.hostile.attacks import others_are_served
from tests.serving import Serving

MORE = pytest.mark.more
JSON = {"Content-Type": "application/json"}
HI = [{"role": "user", "content": "Hello"}]
# One path for each way in which the server reads bodies, and for each dialect.
CHATS = (
    "/api/chat",
    "/v1/chat/completions",
    "/v1/messages",
    "/ollama/api/chat",
    "/chat/completions",
    "/apply-template",
)
OTHERS = {
    "/v1/responses": "input",
    "/v1/embeddings": "input",
    "/v1/completions": "prompt",
    "/ollama/api/embed": "input",
    "/api/embeddings": "input",
    "/v1/rerank": "documents",
    "/embedding": "content",
    "/completion": "prompt",
    "/tokenize": "content",
    "/detokenize": "tokens",
}
FIELDS = dict.fromkeys(CHATS, "messages") | OTHERS


def refused(answer: httpx.Response, status: int = 400) -> str:
    """The text of an error, which must repeat no long input."""
    assert answer.status_code == status, answer.text[:300]
    assert len(answer.text) < limits.ERROR_CHARS + 500
    return answer.text


def post(server: Serving, path: str, content: bytes) -> httpx.Response:
    with server.client() as client:
        return client.post(path, content=content, headers=JSON)


def body(path: str, values: str) -> bytes:
    """A request to `path` whose main field is a list of `values`."""
    rest = '"max_tokens": 5, "query": "x"'
    return f'{{"model": "demo", {rest}, "{FIELDS[path]}": [{values}]}}'.encode()


@pytest.mark.parametrize("path", FIELDS)
def test_a_list_of_wrong_items_costs_one_error(server: Serving, path: str) -> None:
    """With an error for each item, two megabytes took seven seconds and 1.6 GB."""
    wrong = ",".join(["1.5"] * 250_000)
    with others_are_served(server):
        refused(post(server, path, body(path, wrong)))


@pytest.mark.parametrize("path", FIELDS)
def test_a_list_of_too_many_small_values(server: Serving, path: str) -> None:
    with others_are_served(server):
        text = refused(post(server, path, body(path, "[]," * 5_000_000 + "[]")))
    assert str(limits.CONTAINERS) in text


@pytest.mark.parametrize("path", FIELDS)
def test_a_list_of_a_few_too_many_small_values(server: Serving, path: str) -> None:
    with others_are_served(server):
        text = refused(post(server, path, body(path, '"",' * limits.VALUES + '""')))
    assert str(limits.VALUES) in text


@pytest.mark.parametrize("path", FIELDS)
def test_a_list_of_a_few_too_many_objects(server: Serving, path: str) -> None:
    with others_are_served(server):
        text = refused(post(server, path, body(path, '{"a":1},' * limits.CONTAINERS + "{}")))
    assert str(limits.CONTAINERS) in text


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("depth", [limits.NESTING, 2_000_000])
def test_nesting(server: Serving, path: str, depth: int) -> None:
    with others_are_served(server):
        refused(post(server, path, body(path, "[" * depth + "]" * depth)))


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": ["a"] * 2000, "n": 128},
        {"prompt": ["a"] * (limits.ANSWERS // 2 + 1), "n": 2},
        {"prompt": ["a"] * (limits.ANSWERS + 1)},
        {"prompt": [[1]] * (limits.ANSWERS + 1)},
        {"prompt": ["a"], "n": 10**30},
    ],
)
def test_prompts_times_n(server: Serving, asked: dict[str, Any]) -> None:
    """Each answer is a request to the engine: 2,000 times 128 blocked other clients for 38 s."""
    with others_are_served(server):
        content = json.dumps({"model": "demo", **asked}).encode()
        refused(post(server, "/v1/completions", content))


@pytest.mark.parametrize(
    ("path", "asked", "words"),
    [
        ("/api/chat", {"messages": HI * (limits.MESSAGES + 1)}, "messages must have 10000 entries"),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 5}] * 5000},
            "messages must have 20000 parts, images and tool calls at most, not 25000",
        ),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{}]}]}]},
            "messages",
        ),
        ("/v1/embeddings", {"input": ["a"] * 20_000}, "input must have 2048 entries at most"),
        ("/api/embeddings", {"input": ["a"] * 20_000}, "input must have 2048 entries at most"),
        ("/ollama/api/embed", {"input": ["a"] * 20_000}, "input must have 2048 entries at most"),
        ("/v1/rerank", {"query": "x", "documents": ["a"] * 9999}, "documents must have 2048"),
        ("/api/chat", {"messages": HI, "tools": [{}] * 1001}, "tools"),
        ("/v1/completions", {"prompt": "x", "stop": ["a"] * 129}, "stop must have 128 entries"),
        ("/v1/completions", {"prompt": "x", "stop": "a" * 1025}, "stop must have 1024 characters"),
        (
            "/v1/completions",
            {"prompt": "x", "logit_bias": {str(i): "x" for i in range(50_000)}},
            "logit_bias must have 4096 entries at most",
        ),
        (
            "/api/generate",
            {"prompt": "x", "options": {str(i): 1 for i in range(50_000)}},
            "options must have 64 entries at most",
        ),
        (
            "/api/generate",
            {"prompt": "x", "options": {"temprature" * 100_000: 1}},
            "Unknown option",
        ),
        ("/api/generate", {"prompt": "x", "keep_alive": "1" * 1_000_000}, "keep_alive must be"),
        ("/api/generate", {"prompt": "x", "options": {"max_tokens": 10**30}}, "max_tokens must be"),
        ("/completion", {"prompt": "x", "dry_sequence_breakers": ["a"] * 200_000}, "dry_sequence"),
        ("/completion", {"prompt": "x", "samplers": ["top_k"] * 200_000}, "samplers must have 32"),
    ],
)
def test_each_limit_has_a_short_message(
    server: Serving, path: str, asked: dict[str, Any], words: str
) -> None:
    with others_are_served(server):
        text = refused(post(server, path, json.dumps({"model": "demo", **asked}).encode()))
    assert words in text


@pytest.mark.parametrize("path", FIELDS)
def test_a_name_of_a_megabyte_is_not_repeated(server: Serving, path: str) -> None:
    content = json.dumps({"model": "m" * 2**20, FIELDS[path]: ["x"], "max_tokens": 5, "query": "x"})
    with others_are_served(server):
        refused(post(server, path, content.encode()))


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" * 400, "1" * 1_000_000])
def test_numbers_that_json_does_not_have(server: Serving, path: str, number: str) -> None:
    """Also where a schema accepts any value: the JSON encoder behind it would fail."""
    content = body(path, '{"role": "user", "content": "x"}')[:-1]
    content += f', "tools": [{{"x": {number}}}], "format": {{"maximum": {number}}}}}'.encode()
    with others_are_served(server):
        assert "not valid JSON" in refused(post(server, path, content))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/ollama/api/chat", "/api/chat"])
def test_an_integer_beyond_64_bits_becomes_a_float(server: Serving, path: str) -> None:
    function = {"name": "f", "parameters": {"type": "object", "default": 10**30}}
    asked = {"model": "demo", "messages": HI, "stream": False, "max_tokens": 3}
    tools = [{"type": "function", "function": function}]
    answer = post(server, path, json.dumps(asked | {"tools": tools}).encode())
    assert answer.status_code in (200, 400), answer.text[:300]


@pytest.mark.parametrize(
    "path",
    [
        "/api/sessions?search=" + "a" * 600,
        "/api/sessions?model=" + "a" * 2000,
        "/api/sessions?cursor=" + "a" * 2000,
        "/api/sessions?limit=" + "9" * 2000,
        "/api/sessions?" + "&".join(["search=a"] * 5000),
    ],
)
def test_queries(server: Serving, path: str) -> None:
    with others_are_served(server), server.client() as client:
        answer = client.get(path)
        if path.count("&") == 0:
            refused(answer)


@pytest.mark.parametrize("path", ["/api/models/", "/v1/models/", "/api/sessions/", "/nothing/"])
def test_long_paths(server: Serving, path: str) -> None:
    with others_are_served(server), server.client() as client:
        answer = client.get(path + "a" * 30_000)
        assert answer.status_code in (400, 404, 414)
        assert len(answer.text) < limits.ERROR_CHARS + 500


def exported(messages: str) -> bytes:
    about = '"version": 1, "id": "it", "model": "demo", "title": "t"'
    return f'{{{about}, "messages": [{messages}]}}'.encode()


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (",".join(['{"role": "user", "content": "x"}'] * 10_001), "10000 are taken at most"),
        ("{}," * 50_000 + "{}", "10000 are taken at most"),
        ("[]," * 5_000_000 + "[]", str(limits.CONTAINERS)),
        ("[" * 200 + "]" * 200, str(limits.NESTING)),
        ('{"role": "user", "content": "x", "parts": [{"a": NaN}]}', "not valid JSON"),
        (
            '{"role": "assistant", "content": "x", "tool_calls": ['
            + ",".join(['{"function": {"name": "f"}}'] * 20_001)
            + "]}",
            "parts, images and tool calls",
        ),
    ],
)
def test_imported_sessions(server: Serving, messages: str, words: str) -> None:
    with others_are_served(server):
        text = refused(post(server, "/api/sessions/import", exported(messages)))
    assert words in text


def test_an_imported_page_of_too_many_messages(server: Serving) -> None:
    text = "<!-- myllm message: {} -->\n### User\n\n\n\n" * 10_001
    with others_are_served(server), server.client() as client:
        headers = {"Content-Type": "text/markdown"}
        answer = client.post("/api/sessions/import", content=text, headers=headers)
    assert "10000 are taken at most" in refused(answer)


@pytest.mark.parametrize(
    "form",
    [b"model=demo&" + b"a=b&" * 2_000_000, b"&" * 15_000_000, b"model=" + b"m" * 15_000_000],
)
def test_forms(server: Serving, form: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    with others_are_served(server), server.client() as client:
        refused(client.post("/v1/audio/transcriptions", content=form, headers=headers))


@pytest.mark.parametrize(
    "content",
    [
        b"--x\r\n\r\n" * 1_500_000,
        b"\r\n" * 7_000_000,
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 200_000,
        b"--x\r\n" + b"A: b\r\n" * 2_000_000,
        b"--x\r\nContent-Disposition: " + b"a; " * 4_000_000,
    ],
)
def test_forms_of_many_parts(server: Serving, content: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with others_are_served(server), server.client() as client:
        refused(client.post("/v1/audio/transcriptions", content=content, headers=headers))


def test_large_requests_of_agents_are_accepted(server: Serving) -> None:
    """1,000 messages pass every check except the size of the model's context."""
    turns = [{"role": "user", "content": "Hello, " * 30}, {"role": "assistant", "content": "Hi"}]
    asked = {"model": "demo", "messages": [*turns * 500, *HI], "max_tokens": 3}
    with others_are_served(server):
        text = refused(post(server, "/v1/chat/completions", json.dumps(asked).encode()))
        assert "context" in text


@pytest.mark.parametrize(
    "path",
    [
        # On the other routes the engine reads all of it, which takes half a minute.
        path if path in ("/api/chat", "/apply-template") else pytest.param(path, marks=MORE)
        for path in CHATS
    ],
)
def test_the_largest_conversation_does_not_keep_other_clients_waiting(
    server: Serving, path: str
) -> None:
    turns = [{"role": r, "content": "Hello there! " * 62} for r in ("user", "assistant")]
    asked = {"model": "demo", "messages": turns * (limits.MESSAGES // 2), "max_tokens": 3}
    with others_are_served(server):
        answer = post(server, path, json.dumps(asked).encode())
    assert answer.status_code in (200, 400), answer.text[:300]
