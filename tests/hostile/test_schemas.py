"""Schemas, patterns, grammars and samplers that would keep an engine busy for ever, or crash it.

Every way to an engine refuses them, and accepts what real agents send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from myllm.engine.engine import Engine
from myllm.gateway.constraints import checks, repetitions
from tests import tooled
from tests.hostile.attacks import others_are_served
from tests.serving import Serving, serving, short_home

REAL = {
    file.stem: json.loads(file.read_text())["schema"]
    for file in sorted((Path(__file__).parent / "schemas").glob("*.json"))
}
DEEP = 60_000
SAID = [{"role": "user", "content": "Hello"}]
# Strings and lists end as soon as possible, so that a toy model writes whole documents.
SHORT = {'"': 6.0, "}": 6.0, "]": 6.0, '"}': 6.0, '"]': 6.0}


# Only the names: twenty whole tools do not fit the toy's context.
SHORT_TOOLS = tooled.TOOLS.replace("tool | tojson", "tool.function.name")


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        tooled.add_model(home / "models", "tooled", SHORT_TOOLS)
        with serving(home, threads=1) as running:
            yield running


def test_there_are_twenty_schemas_of_real_agents() -> None:
    assert len(REAL) == 20


@pytest.mark.parametrize("name", REAL)
def test_real_schemas_shape_answers(api: httpx.Client, name: str) -> None:
    options = {"temperature": 0, "max_tokens": 600, "logit_bias": SHORT}
    body = {"model": "demo", "prompt": "Hello", "format": REAL[name], "stream": False}
    answer = api.post("/api/generate", json=body | {"options": options})
    assert answer.status_code == 200, answer.text
    jsonschema.validate(json.loads(answer.json()["text"]), REAL[name])


def tools(schema: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "act", "parameters": schema}}]


def json_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


WAYS_OF_SCHEMAS: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "generate": ("/api/generate", lambda s: {"prompt": "Hello", "stream": False, "format": s}),
    "chat": ("/api/chat", lambda s: {"messages": SAID, "stream": False, "format": s}),
    "tools of a chat": ("/api/chat", lambda s: {"messages": SAID, "tools": tools(s)}),
    "response_format": (
        "/v1/chat/completions",
        lambda s: {"messages": SAID, "response_format": json_schema(s)},
    ),
    "json_object": (
        "/v1/chat/completions",
        lambda s: {
            "messages": SAID,
            "response_format": {"type": "json_object", "schema": s},
            "stream": True,
        },
    ),
    "OpenAI's tools": ("/v1/chat/completions", lambda s: {"messages": SAID, "tools": tools(s)}),
    "n": ("/v1/chat/completions", lambda s: {"messages": SAID, "tools": tools(s), "n": 4}),
    "json_schema": ("/v1/completions", lambda s: {"prompt": ["a", "b"], "json_schema": s}),
    "responses": (
        "/v1/responses",
        lambda s: {
            "input": "Hello",
            "text": {"format": {"type": "json_schema", "name": "answer", "schema": s}},
        },
    ),
    "responses' tools": (
        "/v1/responses",
        lambda s: {
            "input": "Hello",
            "tools": [{"type": "function", "name": "act", "parameters": s}],
        },
    ),
    "messages": (
        "/v1/messages",
        lambda s: {
            "messages": SAID,
            "max_tokens": 600,
            "tools": [{"name": "act", "input_schema": s}],
        },
    ),
    "count_tokens": (
        "/v1/messages/count_tokens",
        lambda s: {"messages": SAID, "tools": [{"name": "act", "input_schema": s}]},
    ),
    "Ollama's generate": (
        "/ollama/api/generate",
        lambda s: {"prompt": "Hello", "stream": False, "format": s},
    ),
    "Ollama's raw": (
        "/ollama/api/generate",
        lambda s: {"prompt": "Hello", "raw": True, "stream": False, "format": s},
    ),
    "Ollama's chat": ("/ollama/api/chat", lambda s: {"messages": SAID, "format": s}),
    "Ollama's tools": ("/ollama/api/chat", lambda s: {"messages": SAID, "tools": tools(s)}),
    "completion": ("/completion", lambda s: {"prompt": "Hello", "json_schema": s}),
    "llama.cpp's chat": ("/chat/completions", lambda s: {"messages": SAID, "json_schema": s}),
    "apply-template": ("/apply-template", lambda s: {"messages": SAID, "tools": tools(s)}),
    "upstream": (
        "/upstream/tooled/apply-template",
        lambda s: {"messages": SAID, "json_schema": s},
    ),
    "infill": (
        "/infill",
        lambda s: {"input_prefix": "a", "input_suffix": "b", "json_schema": s},
    ),
    "infill upstream": (
        "/upstream/tooled/infill",
        lambda s: {"input_prefix": "a", "input_suffix": "b", "json_schema": s},
    ),
}


@pytest.mark.parametrize("way", WAYS_OF_SCHEMAS)
def test_every_way_to_an_engine_limits_schemas(
    server: Serving, api: httpx.Client, way: str
) -> None:
    path, body = WAYS_OF_SCHEMAS[way]
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^((a?){0,500}){0,500}$"}},
    }
    with others_are_served(server):
        refused = api.post(path, json={"model": "tooled", **body(schema)})
    assert refused.status_code == 400, refused.text
    assert "the limit is" in refused.text
    assert "pattern" in refused.text


@pytest.mark.parametrize(
    "way", [way for way, (_, body) in WAYS_OF_SCHEMAS.items() if "tools" in body({})]
)
def test_twenty_tools_of_real_agents_pass_at_once(api: httpx.Client, way: str) -> None:
    path, body = WAYS_OF_SCHEMAS[way]
    one = json.dumps(body({"its": "schema"})["tools"][0])
    schemas = {name: json.dumps(schema) for name, schema in REAL.items()}
    offered = [
        json.loads(one.replace('{"its": "schema"}', schema).replace('"act"', f'"{name}"'))
        for name, schema in schemas.items()
    ]
    request = {"model": "tooled", "stream": False, **body({}), "tools": offered}
    if way == "n":
        request["n"] = 2
    answer = api.post(path, json=request)
    assert answer.status_code == 200, answer.text


GRAMMARS = {
    "parentheses": (f"root ::= {'(' * 16_000}'a'{')' * 16_000}", "nested 16,000 deep"),
    "long": (f"root ::= {'(' * DEEP}'a'{')' * DEEP}", "characters"),
    "doubling": (
        "root ::= a0\n"
        + "".join(f"a{n} ::= a{n + 1} a{n + 1}\n" for n in range(60))
        + 'a60 ::= "x"?',
        "optional items in a row",
    ),
    "products": ("root ::= (([a-z]{1,99}){1,99}){1,99}", "multiply to 970,299"),
    "products over rules": (
        "root ::= a{1,99}\na ::= b{1,99}\nb ::= [a-z]{1,99}",
        "multiply to 970,299",
    ),
    "nested": ("root ::= (((([a-z]+)+)+)+)+", "repetitions of repetitions 5 deep"),
    "bomb": (f'root ::= "{"a" * 1000}"{{2000}}', "symbols long"),
    "rules": ("".join(f"r{n}::=a\n" for n in range(6_000)), "6,000 rules"),
}


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize(
    "path", ["/completion", "/v1/completions", "/v1/chat/completions", "/infill"]
)
def test_grammars(server: Serving, api: httpx.Client, name: str, path: str) -> None:
    grammar, says = GRAMMARS[name]
    body = {"prompt": "a", "messages": SAID, "input_prefix": "a", "input_suffix": "b"}
    with others_are_served(server):
        refused = api.post(path, json={"model": "demo", "grammar": grammar, **body})
    assert refused.status_code == 400
    assert says in refused.text
    assert "the limit is" in refused.text


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


CIRCLE = {"b": {"$ref": "#/$defs/c"}, "c": {"$ref": "#/$defs/b"}}
SCHEMAS: dict[str, tuple[Any, str]] = {
    "depth": (nested(51), "levels deep"),
    "depth beyond JSON's": (nested(200), "lists and objects inside each other"),
    "a name": ({"properties": {"a" * 100_000: {}}}, "name of 100,000 characters"),
    "properties": ({"properties": {f"a{n}": {} for n in range(501)}}, "501 properties"),
    "properties in all": (
        {"anyOf": [{"properties": {f"a{n}": {} for n in range(500)}} for _ in range(21)]},
        "properties in all",
    ),
    "enum": ({"enum": list(range(1_001))}, "an enum of 1,001 values"),
    "enums in all": ({"anyOf": [{"enum": list(range(1_000))}] * 11}, "values in all"),
    "lengths": ({"anyOf": [{"maxLength": 2_000}] * 251}, "add up to 502,000"),
    "a pattern": ({"pattern": "a" * 4_097}, "a pattern of 4,097 characters"),
    "a circle": ({"allOf": [{"$ref": "#/$defs/b"}], "$defs": CIRCLE}, "leads to itself"),
    "a circle elsewhere": (
        {"properties": {"b": {"anyOf": [{"$ref": "#/properties/b/anyOf/0"}]}}},
        "leads to itself",
    ),
    "values": ({"examples": [1] * 100_001}, "values; the limit is 100,000"),
    "bytes": ({"description": "a" * 5 * 2**20}, "bytes; the limit is 4,194,304"),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas(server: Serving, api: httpx.Client, name: str) -> None:
    schema, says = SCHEMAS[name]
    body = {"model": "demo", "messages": SAID, "response_format": json_schema(schema)}
    with others_are_served(server):
        refused = api.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400, refused.text
    assert says in refused.text


@pytest.mark.parametrize(
    "more",
    [
        {"dry_sequence_breakers": [f"b{n}" for n in range(33)]},
        {"dry_sequence_breakers": ["b" * 65]},
        {"samplers": ["top_k"] * 33},
    ],
)
def test_samplers(server: Serving, api: httpx.Client, more: dict[str, Any]) -> None:
    with others_are_served(server):
        refused = api.post("/completion", json={"model": "demo", "prompt": "a", **more})
    assert refused.status_code == 400
    assert re.search("the limit is|at most", refused.text)


REAL_PATTERNS = [
    r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$",
    r"^P(?:\d+Y)?(?:\d+M)?(?:\d+W)?(?:\d+D)?(?:T(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?$",
    r"^(?!.*\.\.)[\w.+-]{1,64}@([\w-]{1,63}\.){1,8}[A-Za-z]{2,63}$",
    r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.]){1,127}[a-z]{2,63}$",
    r"^(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+)?$",
    r"^(([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])[.]){3}([0-9]|25[0-5])$",
    r"^([a-z]+ ?){1,20}$",
    r"^\{\{[a-z_]{1,40}\}\}$",
    r"^[a-z](,[a-z]){0,99}$",
    r"^.{0,10000}$",
]


@pytest.mark.parametrize("pattern", REAL_PATTERNS)
async def test_real_patterns_pass(pattern: str) -> None:
    await checks.check({"json_schema": {"type": "string", "pattern": pattern}})


async def test_the_json_grammar_of_llama_cpp_passes() -> None:
    await checks.check({"grammar": JSON_GRAMMAR})


JSON_GRAMMAR = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    "text", ["(", '"\\"', "[\\]", "a", "{", "{9", "#", "a ::= b\n", "a ", "::=", "a \n", "\\", "|"]
)
def test_measuring_any_text_takes_linear_time(text: str) -> None:
    """A text ten times as long takes about ten times the time."""
    for measure in (repetitions.of_grammar, repetitions.of_pattern):
        measure(text * 20_000)
