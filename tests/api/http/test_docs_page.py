"""The OpenAPI document and its page: they match the real answers, also behind proxies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from myllm.engine.engine import Engine
from tests.api.events import parse, post, stream
from tests.serving import serving

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def answer_of(api: httpx.Client, method: str, path: str, media: str = "application/json") -> Any:
    """Return the documented answer: its schema, or the example of a stream."""
    described = api.get("/openapi.json").json()
    content = described["paths"][path][method]["responses"]["200"]["content"][media]
    if "example" in content:
        return content["example"]
    return described["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]


def check(schema: Any, answer: Any) -> None:
    """Check that the example has the fields of a real answer, all of which are documented."""
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


def linked_from(page: httpx.Response) -> list[str]:
    """Return the addresses on a page, resolved as a browser does."""
    found = re.findall(r"""(?:src="|href="|url: ')([^"']+)""", page.text)
    return [urljoin(str(page.url), address) for address in found]


def test_the_page_needs_no_network(api: httpx.Client) -> None:
    assert api.get("/").json()["docs"] == "/docs"
    addresses = linked_from(api.get("/docs"))
    assert len(addresses) == 4
    for address in addresses:
        assert address.startswith(str(api.base_url))
        assert len(api.get(address).content) > 100
    assert api.get("/swagger/secrets.txt").status_code == 404
    paths = api.get("/openapi.json").json()["paths"]
    assert {"/api/generate", "/api/chat", "/api/embeddings", "/api/models", "/health"} <= set(paths)


def test_every_field_and_parameter_is_described(api: httpx.Client) -> None:
    described = api.get("/openapi.json").json()
    schemas = described["components"]["schemas"]

    def is_described(field: dict[str, Any]) -> bool:
        """By itself, or by the schema that it names."""
        named = schemas.get(field.get("$ref", "").rpartition("/")[2], {})
        return bool(field.get("description") or named.get("description"))

    fields = [
        (f"{name}.{field}", content)
        for name, schema in schemas.items()
        for field, content in schema.get("properties", {}).items()
    ]
    parameters = [
        (f"{method} {path} {each['name']}", each)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        for each in operation.get("parameters", ())
    ]
    assert len(fields) > 500
    assert len(parameters) > 30
    assert [name for name, content in [*fields, *parameters] if not is_described(content)] == []


def test_below_a_path_of_a_proxy(engine: Engine, home: Path) -> None:
    """Both if the proxy passes its path on, like Traefik, and if it strips it, like Caddy."""
    with serving(home, root_path="llm/") as server, server.client() as api:
        for prefix in ("/llm", ""):
            page = api.get(f"{prefix}/docs")
            assert all(api.get(address).status_code == 200 for address in linked_from(page))
            assert api.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/llm"}]
            assert api.get(f"{prefix}/").json()["docs"] == "/llm/docs"
            chat = {"model": "demo", "messages": FRANCE, "stream": False}
            assert api.post(f"{prefix}/api/chat", json=chat).status_code == 200
        assert api.get("/llmx/docs").status_code == 404
