"""Schemas say afterwards only what engines enforce, or are refused."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from myllm.errors import InvalidRequest
from myllm.gateway.constraints.checks import check
from myllm.gateway.constraints.enforced import enforced
from myllm.gateway.conversation.ignored import HEADER, Ignored

SCHEMAS = sorted((Path(__file__).parents[2] / "hostile" / "schemas").glob("*.json"))


def changed(field: str, value: Any) -> tuple[Any, str]:
    """What becomes of a field, and the names in the header; the original stays as it is."""
    ignored, before = Ignored(), copy.deepcopy(value)
    after = asyncio.run(enforced({field: value, "prompt": "x"}, ignored)).get(field, value)
    assert value == before
    return after, ignored.headers().get(HEADER, "")


def of_answer(schema: Any) -> tuple[Any, str]:
    return changed("json_schema", schema)


def of_tool(schema: Any) -> tuple[Any, str]:
    tools = [{"function": {"name": "a"}}, {"function": {"name": "b", "parameters": schema}}]
    after, header = changed("tools", tools)
    return after[1]["function"]["parameters"], header.replace("tools[1].function.parameters", "#")


def text(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


def wrapped(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}}


def test_a_pattern_is_translated_wherever_engines_read_it() -> None:
    one, other = text(pattern=r"^\d$"), text(pattern="^[0-9]$")
    for place in ("{}", '{"anyOf": [{}]}', '{"items": {}}', '{"items": [{}]}', '{"oneOf": [{}]}',
                  '{"prefixItems": [{}]}', '{"additionalProperties": {}}',
                  '{"properties": {"pattern": {}}}'):  # fmt: skip
        before, after = (json.loads(place.replace("{}", json.dumps(each))) for each in (one, other))
        assert of_answer(before) == (after, "")
        assert of_tool(before) == (after, "")


def test_a_pattern_behind_references_is_translated_once() -> None:
    node = {"properties": {"a": text(pattern='^"$'), "next": {"$ref": "#/$defs/node"}}}
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node, "unused": text(pattern="(?=a)")}}
    after, _ = of_answer(schema)
    assert after["$defs"]["node"]["properties"]["a"]["pattern"] == r"^\\" + '"$'
    assert after["$defs"]["unused"]["pattern"] == "(?=a)"
    own = {"properties": {"a": text(pattern='^"$'), "b": {"$ref": "#/properties/a"}}}
    assert of_answer(own)[0]["properties"]["a"]["pattern"] == r"^\\" + '"$'


@pytest.mark.parametrize(
    "values",
    [
        {"enum": [{"pattern": "(?=a)"}]},
        {"const": {"not": {}}},
        {"type": "object", "default": {"if": 1}, "properties": {}},
        {"type": "object", "properties": {"not": text(), "if": {"type": "number"}}},
        {"type": "object", "pattern": "(?=a)"},
        {"$ref": "#/nowhere"},
    ],
)
def test_what_is_no_schema_stays(values: Any) -> None:
    assert of_answer(values) == (values, "")
    assert of_tool(values) == (values, "")


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (text(pattern="^(?=a)"), "pattern"),
        ({"not": text()}, "not"),
        ({"type": "object", "if": {}, "then": {}}, "if"),
        ({"type": "object", "patternProperties": {"^x": {}}}, "patternProperties"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"properties": {"a": {}}, "anyOf": [{"required": ["a"]}]}, "anyOf"),
    ],
)
def test_what_decides_and_is_not_enforced(schema: Any, name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"json_schema.properties.x.{name}: .*cannot be enf"):
        of_answer(wrapped(schema))
    rest = {each: schema[each] for each in schema if each != name}
    assert of_tool(wrapped(schema)) == (wrapped(rest), f"#.properties.x.{name}")


def test_the_error_names_the_pattern_and_the_field() -> None:
    value = {"type": "json_schema", "json_schema": {"schema": wrapped(text(pattern=r"\bfoo"))}}
    with pytest.raises(InvalidRequest) as refused:
        changed("response_format", value)
    where = "response_format.json_schema.schema.properties.x.pattern"
    assert refused.value.detail.startswith(rf"{where}: '\bfoo' cannot be enforced: '\b'")


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({"type": "number", "minimum": 0, "maximum": 1}, ["minimum", "maximum"]),
        ({"type": "integer", "minimum": 0, "maximum": 1}, []),
        ({"type": "integer", "multipleOf": 5}, ["multipleOf"]),
        ({"type": "array", "uniqueItems": True}, ["uniqueItems"]),
        ({"type": "object", "propertyNames": {"type": "string"}}, []),
        ({"type": "object", "propertyNames": {"enum": ["a"]}}, ["propertyNames"]),
    ],
)
def test_what_narrows_and_is_not_enforced_is_named(schema: Any, names: list[str]) -> None:
    for read in (of_answer, of_tool):
        after, header = read(wrapped(schema))
        assert after == wrapped(schema)
        assert [name.rsplit(".", 1)[1] for name in header.split(", ") if name] == names


def test_the_same_is_said_in_words_that_engines_know() -> None:
    name = text(pattern=r"^\d$")
    single = {"allOf": [{"$ref": "#/$defs/Name"}], "title": "T"}
    after, _ = of_answer({"properties": {"x": single}, "$defs": {"Name": name}})
    assert after["properties"]["x"] == {"$ref": "#/$defs/Name", "title": "T"}
    assert after["$defs"]["Name"]["pattern"] == "^[0-9]$"
    assert of_answer({"anyOf": [{"not": {}}, text()]}) == ({"anyOf": [text()]}, "")


def test_lengths_besides_a_pattern() -> None:
    assert of_answer(text(pattern="^[a-z]+$", maxLength=5))[0]["pattern"] == "^[a-z]{1,5}$"
    assert of_answer(text(pattern="^a+b$", maxLength=5.0))[0] == text(
        pattern="^a{1,4}b$", maxLength=5
    )
    many = text(pattern="^a+b+c+$", maxLength=50, minLength=3)
    with pytest.raises(InvalidRequest, match="a length besides a pattern with too many ways"):
        of_answer(many)
    after, header = of_tool(wrapped(many))
    assert (after["properties"]["x"]["pattern"], header) == ("^a+b+c+$", "#.properties.x.maxLength")


def test_whole_numbers_are_read_as_such() -> None:
    schema = {"items": text(minLength=5.0), "minItems": 2.0, "maxItems": 1e1}
    assert json.dumps(of_answer(schema)[0]) == json.dumps(
        {"items": text(minLength=5), "minItems": 2, "maxItems": 10}
    )


@pytest.mark.parametrize(
    "pattern", [f"^{'?'.join('abcdefghijklmnopqrst')}?$", "^(a?){17}$", "^" + "é?" * 40 + "$"]
)
def test_a_pattern_counts_no_more_than_it_did(pattern: str) -> None:
    for read in (of_answer, of_tool):
        after, header = read(text(pattern=pattern))
        asyncio.run(check({"json_schema": after}))
        assert header == ""


def test_a_pattern_that_is_too_much_for_an_engine() -> None:
    pattern = "^" + r"\S\s" * 40 + "$"
    with pytest.raises(InvalidRequest) as refused:
        of_answer(wrapped(text(pattern=pattern)))
    assert refused.value.detail.startswith(f"json_schema.properties.x.pattern: '{pattern}' cannot")
    assert "spelled for an engine it" in refused.value.detail
    assert of_tool(wrapped(text(pattern=pattern))) == (wrapped(text()), "#.properties.x.pattern")


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: file.stem)
def test_real_schemas_are_kept_whole(file: Path) -> None:
    schema = json.loads(file.read_text())["schema"]
    for read in (of_answer, of_tool):
        after, header = read(schema)
        assert header == ""
        assert _without_patterns(after) == _without_patterns(schema)


def _without_patterns(schema: Any) -> str:
    return re.sub(r'"pattern": "([^"\\]|\\.)*"', "", json.dumps(schema))
