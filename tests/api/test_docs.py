"""What /docs shows of answers is what the server answers."""

from __future__ import annotations

from typing import Any

import httpx

from tests.api.events import parse, post, stream

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def answer_of(api: httpx.Client, method: str, path: str, media: str = "application/json") -> Any:
    """The described answer: its schema, or the example of a stream."""
    described = api.get("/openapi.json").json()
    content = described["paths"][path][method]["responses"]["200"]["content"][media]
    if "example" in content:
        return content["example"]
    return described["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]


def check(schema: Any, answer: Any) -> None:
    """The example has what a real answer has, and nothing is answered that is not described."""
    told = {name for name, value in answer.items() if value is not None}
    assert schema["example"].keys() == told
    assert answer.keys() <= schema["properties"].keys()


def test_a_chat_s_stream_ends_as_its_example_does(api: httpx.Client) -> None:
    example = answer_of(api, "post", "/api/chat", "text/event-stream")
    *shown, last = [parse(line) for line in example.splitlines() if line]
    tokens, real = stream(api, "/api/chat", model="demo", messages=FRANCE)
    assert last | {"session_id": ""} == real | {"session_id": ""}
    assert [event["token"] for event in shown] == tokens[: len(shown)]


def test_whole_answers(api: httpx.Client) -> None:
    chat = answer_of(api, "post", "/api/chat")
    check(chat, post(api, "/api/chat", model="demo", messages=FRANCE, stream=False))
    embeddings = answer_of(api, "post", "/api/embeddings")
    check(embeddings, post(api, "/api/embeddings", model="demo", input="Hello, world!"))


def test_models(api: httpx.Client) -> None:
    models = api.get("/api/models").json()
    listed = answer_of(api, "get", "/api/models")
    check(listed, models)
    [shown], [demo] = listed["example"]["models"], models["models"]
    assert shown == demo | {"loaded": shown["loaded"]}
    check(answer_of(api, "get", "/api/models/{name}"), api.get("/api/models/demo").json())
