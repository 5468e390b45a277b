"""Answers match the patterns of their schemas: an engine writes, and jsonschema checks them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from myllm.engine.engine import Engine
from tests import tooled
from tests.serving import Serving, serving, short_home

# Strings end as soon as possible, so that a toy model ends those without a longest length.
SHORT = {'"': 40.0}
# What a toy model would not write by itself.
WANTED = {"^a|b$": "b", r"^[\t ]+x": "x"}
EXAMPLES = {r"\d": "1", "foo": "foo"}
PATTERNS = [
    r"^\d{3}-\d{4}$", r"^\d+$", r"\d", "foo", r"^https?://", "^$", "", "^a|b$",
    r"^[\w.+-]{1,8}@[\w-]{1,6}\.[a-z]{2,3}$", r"^\S{1,9}$", r'^"x"$', r"^a\\b$", r"^[^,;]{1,6}$",
    "^é{1,3}$", r"^ab\.{2}$", "^a{2,4}?$", "^(a|)$", r"^[\s\S]{0,5}$", r"^\n\t$", "^a$|^b$",
    r"^#[0-9a-fA-F]{6}$", r"^(?P<year>\d{4})$", r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$",
    "^(?:red|green|blue)$", r"^[a-z](?:[a-z0-9-]{0,5}[a-z0-9])?$", r"^\+?[1-9]\d{6,9}$",
    r"^v\d{1,2}(?:\.\d{1,2}){0,2}$", r"^[A-Z]{2}\d{2}[A-Z0-9]{4}$", r"^[\]\[^\\\-\"/]{3}$",
    r"^.{1,5}$", r"^\w+( \w+){0,2}$", r"^(\d|[a-f]){8}$", r"^\$\d+\.\d{2}$", r"^[^\s]{1,4}$",
    r"^\D{1,3}$", r"^[\x00-\x1f]{2}$", r"^[\t ]+x", r"^\x41\u00e9$", r"^(a{2}|b\"){2}$",
    r'^a?b?\.?"{2}é?é\\{1,2}-{2}$', "^é{1,3}ü{2}$",
]  # fmt: skip


def schema_of(pattern: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"v": {"type": "string", "pattern": pattern}},
        "required": ["v"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_answer_matches(api: httpx.Client, pattern: str) -> None:
    schema = schema_of(pattern)
    bias = SHORT | ({WANTED[pattern]: 20.0} if pattern in WANTED else {})
    options = {"temperature": 0, "max_tokens": 200, "logit_bias": bias}
    prompt = "Hello"
    if pattern in EXAMPLES:
        prompt, options["logit_bias"] = f'{{"v": "{EXAMPLES[pattern]}"}}\n' * 4, {'"': 9.0}
    body = {"model": "demo", "prompt": prompt, "format": schema, "stream": False}
    answer = api.post("/api/generate", json=body | {"options": options})
    assert answer.status_code == 200, answer.text
    jsonschema.validate(json.loads(answer.json()["text"]), schema)


COMBINED: list[dict[str, Any]] = [
    {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {"type": "string", "anyOf": [{"format": "email"}, {"format": "uri"}]},
    {
        "type": "object",
        "required": ["kind"],
        "anyOf": [{"properties": {"kind": {"const": "a"}}}, {"properties": {"kind": {"const": 1}}}],
    },
    {
        "type": "object",
        "properties": {"a": {"type": "null"}},
        "allOf": [{"properties": {"b": {"type": "boolean"}}, "required": ["b"]}],
    },
    {"allOf": [{"type": "string", "pattern": "^[ab]*$"}, {"minLength": 1, "maxLength": 3}]},
    {"enum": ["a", "b"], "pattern": "^b$"},
    {
        "allOf": [{"$ref": "#/properties/base"}, {"properties": {"n": {"type": "null"}}}],
    },
    {"required": ["b"], "allOf": [{"type": "object", "properties": {"b": {"enum": [1]}}}]},
]


@pytest.mark.parametrize("part", COMBINED, ids=json.dumps)
def test_an_answer_fits_a_combined_schema(api: httpx.Client, part: dict[str, Any]) -> None:
    base = {"type": "object", "properties": {"id": {"const": 7}}, "required": ["id"]}
    schema = {
        "type": "object",
        "properties": {"v": part, "base": base},
        "required": ["v", "base"],
        "additionalProperties": False,
    }
    options = {"temperature": 0, "max_tokens": 400, "logit_bias": SHORT | {"}": 40.0, ":": 5.0}}
    body = {"model": "demo", "prompt": "Hi", "format": schema, "stream": False, "options": options}
    answer = api.post("/api/generate", json=body)
    assert answer.status_code == 200, answer.text
    jsonschema.validate(json.loads(answer.json()["text"]), schema)


LOOK_AHEAD = schema_of("^(?=.*[0-9]).+$")
BOUNDED = {"type": "object", "properties": {"n": {"type": "number", "minimum": 0}}}
HI = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/generate", {"prompt": "Hi", "format": LOOK_AHEAD}),
        ("/api/chat", {"messages": HI, "format": LOOK_AHEAD}),
        (
            "/v1/chat/completions",
            {
                "messages": HI,
                "response_format": {"type": "json_schema", "json_schema": {"schema": LOOK_AHEAD}},
            },
        ),
        (
            "/v1/responses",
            {
                "input": "Hi",
                "text": {"format": {"type": "json_schema", "name": "x", "schema": LOOK_AHEAD}},
            },
        ),
        ("/ollama/api/chat", {"messages": HI, "format": LOOK_AHEAD}),
        ("/ollama/api/generate", {"prompt": "Hi", "format": LOOK_AHEAD}),
        ("/completion", {"prompt": "Hi", "json_schema": LOOK_AHEAD}),
    ],
)
def test_what_cannot_be_enforced_is_refused(
    api: httpx.Client, path: str, fields: dict[str, Any]
) -> None:
    refused = api.post(path, json={"model": "demo", "stream": False} | fields)
    assert refused.status_code == 400
    assert "properties.v.pattern: '^(?=.*[0-9]).+$' cannot be enforced" in refused.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/generate", {"format": BOUNDED, "options": {"max_tokens": 4}}),
        ("/api/chat", {"format": BOUNDED, "options": {"max_tokens": 4}}),
        ("/ollama/api/generate", {"format": BOUNDED, "options": {"num_predict": 4}}),
        ("/ollama/api/generate", {"format": BOUNDED, "options": {"num_predict": 4}, "raw": True}),
        ("/v1/messages", {"output_config": {"format": {"type": "json_schema", "schema": BOUNDED}}}),
        ("/completion", {"json_schema": BOUNDED, "n_predict": 4}),
    ],
)
def test_what_an_answer_cannot_have_enforced_is_named(
    api: httpx.Client, path: str, fields: dict[str, Any], stream: bool
) -> None:
    body = {"model": "demo", "prompt": "Hi", "messages": HI, "max_tokens": 4, "stream": stream}
    answer = api.post(path, json=body | fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-myllm-ignored"].endswith("properties.n.minimum")


@pytest.fixture(scope="module")
def tooled_server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        tooled.add_model(home / "models", "tooled", tooled.TOOLS)
        with serving(home) as running:
            yield running


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_tool_cannot_have_enforced_is_named(tooled_server: Serving, stream: bool) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": LOOK_AHEAD}}
    body = {"model": "tooled", "messages": HI, "tools": [tool], "stream": stream, "max_tokens": 4}
    with tooled_server.client() as api:
        answer = api.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        named = answer.headers["x-myllm-ignored"]
        assert named == "tools[0].function.parameters.properties.v.pattern"
        own = {"name": "look", "input_schema": LOOK_AHEAD}
        answer = api.post("/v1/messages", json=body | {"tools": [own]})
        assert answer.headers["x-myllm-ignored"] == named
