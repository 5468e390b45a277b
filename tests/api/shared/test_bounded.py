"""Every field of every request has a bound, and a wrong field costs no more than one error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import pytest
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from myllm.api.anthropic.schemas import CountTokensRequest
from myllm.api.dialects import DIALECTS
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.native.schemas import ChatRequest
from myllm.api.shared.bounded import Messages, Parts, Tools
from myllm.api.shared.completion_schemas import ChatCompletionRequest
from myllm.json_input import parse_json
from myllm.limits import MESSAGES, PARTS, TOOLS

ROUTES = [
    route
    for dialect in DIALECTS
    for router in dialect.routers()
    for route in router.routes
    if isinstance(route, APIRoute)
]
# Texts that the model reads or writes: the size of the body bounds them.
TEXTS = frozenset(
    {
        *("content", "text", "prompt", "input", "query", "documents", "instructions", "system"),
        *("suffix", "template", "data", "url", "images", "thinking", "description", "arguments"),
        *("input_prefix", "input_suffix", "input_extra", "grammar", "context"),
        *("prompt_string", "multimodal_data", "reasoning_content", "reasoning"),
        "texts",
    }
)
# Validators that count the entries before anything else is checked.
COUNTING = ("at_most.<locals>.check",)


def unbounded(schema: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the places in a core schema of pydantic that have no bound."""
    if isinstance(schema, list | tuple):
        for each in schema:
            yield from unbounded(each, path)
        return
    if not isinstance(schema, dict):
        return
    here = ".".join(path)
    match schema.get("type"):
        case "list" if not schema.get("fail_fast"):
            yield f"{here}: a list that collects errors"
        case "list" if "max_length" not in schema and "at_most" not in path:
            yield f"{here}: a list"
        case "dict" if schema.get("values_schema", {}).get("type") in (None, "any"):
            return  # any JSON, bounded by its nesting and the number of its values
        case "dict" if "max_length" not in schema and "at_most" not in path:
            yield f"{here}: an object"
        case "int" if not {"ge", "gt"} & set(schema) or not {"le", "lt"} & set(schema):
            yield f"{here}: a number"
        case "str" if "max_length" not in schema and not TEXTS & set(path):
            yield f"{here}: a text"
        case "model" if schema["config"].get("extra_fields_behavior") == "forbid":
            if schema["schema"].get("type") != "function-before":
                yield f"{here}: an object that collects unknown fields"
        case "function-before" if schema["function"]["function"].__qualname__ in COUNTING:
            path = (*path, "at_most")
    for key, value in schema.items():
        if key in ("metadata", "serialization", "json_schema_input_schema", "default", "cls"):
            continue
        if key == "fields":
            for name, field in value.items():
                yield from unbounded(field, (*path, name))
        else:
            yield from unbounded(value, path)


@pytest.mark.parametrize(
    "route", ROUTES, ids=lambda route: f"{' '.join(sorted(route.methods))} {route.path}"
)
def test_every_field_has_a_bound(route: APIRoute) -> None:
    dependant = route.dependant
    fields = [*dependant.body_params, *dependant.query_params]
    found = [
        where
        for field in fields
        for where in unbounded(
            TypeAdapter(field.field_info.rebuild_annotation()).core_schema, (field.name,)
        )
    ]
    assert not found


@pytest.mark.parametrize(
    "route", ROUTES, ids=lambda route: f"{' '.join(sorted(route.methods))} {route.path}"
)
def test_every_body_is_read_within_bounds(route: APIRoute) -> None:
    assert isinstance(route, CheckedRoute)


@pytest.mark.parametrize("request_of", [ChatRequest, ChatCompletionRequest])
def test_what_agents_send_is_within_bounds(request_of: Any) -> None:
    """1,000 messages, 200 tools with rich schemas, ten pictures of a megabyte."""
    argument = {"type": "array", "items": {"type": "object", "properties": {"a": {"enum": ["b"]}}}}
    schema = {"type": "object", "properties": {f"p{i}": argument for i in range(30)}}
    named = [{"name": f"mcp__server__{i}", "parameters": schema} for i in range(200)]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2**20}}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = [
        {"role": "user", "content": [{"type": "text", "text": "a[b].append([c, {}])\n" * 330}]},
        {"role": "assistant", "content": None, "tool_calls": [call] * 3},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    asked = {
        "model": "demo",
        "messages": [*turn * 330, {"role": "user", "content": [picture] * 10}],
        "tools": [{"type": "function", "function": each} for each in named],
    }
    request_of.model_validate(parse_json(orjson.dumps(asked)))


@pytest.mark.parametrize(
    ("kind", "limit"),
    [(Messages, MESSAGES), (Parts, PARTS), (Tools, TOOLS)],
    ids=["messages", "parts", "tools"],
)
def test_a_list_that_is_too_long_is_refused_before_its_items_are_checked(
    kind: Any, limit: int
) -> None:
    checked: list[int] = []
    check = TypeAdapter(kind[Annotated[int, BeforeValidator(lambda n: checked.append(n) or n)]])
    assert len(check.validate_python([1] * limit)) == len(checked) == limit
    checked.clear()
    with pytest.raises(ValidationError, match=f"must have {limit} entries at most, not"):
        check.validate_python([1] * (limit + 1))
    assert checked == []


def test_parts_inside_of_results_and_documents_count() -> None:
    texts = [{"type": "text", "text": "a"}] * (PARTS // 2)
    result = {"type": "tool_result", "tool_use_id": "t", "content": texts}
    document = {"type": "document", "source": {"type": "content", "content": texts}}
    for block in (result, document):
        message = {"role": "user", "content": [block]}
        asked = {"model": "demo", "messages": [message, message]}
        with pytest.raises(ValidationError, match=f"must have {PARTS} parts"):
            CountTokensRequest.model_validate(asked)
        CountTokensRequest.model_validate(asked | {"messages": [message]})
