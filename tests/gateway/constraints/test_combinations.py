"""Combined schemas are said as engines read them, or they are refused."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from myllm.errors import InvalidRequest
from tests.gateway.constraints.test_enforced import of_answer, of_tool, text, wrapped


def obj(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


ANY_A = {"type": "object", "required": ["a"], "additionalProperties": True, "properties": {"a": {}}}
CAT, DOG = {"kind": {"const": "cat"}}, {"kind": {"const": "dog"}}
NULL, NUMBER = {"type": "null"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "after"),
    [
        ({"type": "object", "anyOf": [{"required": ["a"]}]}, {"type": "object", "anyOf": [ANY_A]}),
        (text(anyOf=[{"format": "email"}, NULL]), text(anyOf=[text(format="email")])),
        (
            {"type": "object", "required": ["kind"], "oneOf": [{"properties": CAT}, obj(**DOG)]},
            {
                "type": "object",
                "required": ["kind"],
                "oneOf": [obj("kind", **CAT), obj("kind", **DOG)],
            },
        ),
        ({"type": ["string", "null"], "anyOf": [text(), NULL]}, None),
        ({"type": "number", "oneOf": [NUMBER]}, None),
        ({"anyOf": [text(), NULL], "title": "T", "default": None, "description": "d"}, None),
        ({"type": "object", "properties": {"a": {}}, "allOf": [obj("b", b={})]},
         obj("b", a={}, b={})),
        ({"allOf": [text(pattern="^a*$"), text(minLength=1)]}, text(pattern="^a+$", minLength=1)),
        ({"required": ["b"], "allOf": [obj("a", a={}, b={})]}, obj("b", "a", a={}, b={})),
        ({"allOf": [{"allOf": [obj(a={})]}, obj(b={})]}, obj(a={}, b={})),
        ({"enum": ["a", "b"], "pattern": "^b$"}, {"enum": ["b"]}),
        ({"enum": ["a", "bb", 1], "minLength": 2}, {"enum": ["bb", 1], "minLength": 2}),
        (text(enum=["a", None, 1]), text(enum=["a"])),
        (text(const="a", enum=["a"]), None),
        (text(const="ab", pattern="b"), text(const="ab")),
        ({"type": "integer", "enum": [1, 2, 9], "maximum": 5}, None),
        ({"type": "object", "required": ["a"]}, ANY_A),
    ],
)  # fmt: skip
def test_it_is_said_as_engines_read_it(schema: Any, after: Any) -> None:
    if schema.get("enum") == [1, 2, 9]:
        after = schema | {"enum": [1, 2]}
    for read in (of_answer, of_tool):
        assert read(wrapped(schema)) == (wrapped(after or schema), "")


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"oneOf": [text()], "anyOf": [text()]}, "anyOf"),
        ({"minimum": 1, "anyOf": [NUMBER]}, "anyOf"),
        ({"minLength": 1, "oneOf": [text(), NULL]}, "oneOf"),
        ({"additionalProperties": False, "anyOf": [obj(a={})]}, "anyOf"),
        (text(anyOf=[NULL, NUMBER]), "anyOf"),
        ({"minimum": 10, "allOf": [{"type": "integer", "minimum": 0}]}, "allOf"),
        ({"minLength": 9, "allOf": [text(minLength=1)]}, "allOf"),
        ({"additionalProperties": False, "allOf": [obj(a={})]}, "allOf"),
        ({"additionalProperties": True, "allOf": [{"additionalProperties": False}, obj(a={})]},
         "allOf"),
        ({"type": "object", "properties": {"a": text()}, "allOf": [obj(a=NUMBER)]}, "allOf"),
        ({"allOf": [text(), NUMBER]}, "allOf"),
        ({"enum": ["a", "b"], "pattern": "^(?=b)"}, "pattern"),
        ({"enum": [{"a": 1}], "required": ["b"]}, "required"),
        ({"enum": [1], "type": "string"}, "type"),
        ({"const": "a", "allOf": [{"minLength": 5}], "minLength": 1}, "allOf"),
    ],
)  # fmt: skip
def test_what_an_engine_would_ignore(schema: Any, name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"json_schema.properties.x.{name}: "):
        of_answer(wrapped(schema))
    after, header = of_tool(wrapped(schema))
    assert name not in after["properties"]["x"]
    assert header == f"#.properties.x.{name}"


BASE = {"Base": obj("id", id=NUMBER), "Cat": obj("kind", **CAT), "Dog": obj("kind", **DOG)}


@pytest.mark.parametrize(
    ("schema", "after"),
    [
        ({"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
          "discriminator": {"propertyName": "kind"}}, None),
        ({"type": "object", "required": ["kind"],
          "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}, None),
        ({"anyOf": [{"$ref": "#/$defs/Base"}, NULL], "default": None}, None),
        ({"allOf": [{"$ref": "#/$defs/Base"}], "title": "T"},
         {"$ref": "#/$defs/Base", "title": "T"}),
        ({"type": "object", "allOf": [{"$ref": "#/$defs/Base"}]}, {"$ref": "#/$defs/Base"}),
        ({"allOf": [{"$ref": "#/$defs/Base"}, obj("n", n={})]},
         {"type": "object", "allOf": [{"$ref": "#/$defs/Base"}, obj("n", n={})]}),
    ],
)  # fmt: skip
def test_references_are_kept(schema: Any, after: Any) -> None:
    for read in (of_answer, of_tool):
        changed, header = read({**wrapped(schema), "$defs": BASE})
        assert (changed["properties"]["x"], header) == (after or schema, "")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "anyOf": [{"$ref": "#/$defs/Base"}]},
        {"type": "object", "required": ["z"], "anyOf": [{"$ref": "#/$defs/Base"}]},
        {"minimum": 1, "allOf": [{"$ref": "#/$defs/Base"}]},
        {"allOf": [{"$ref": "#/$defs/Base"}, obj(id=text())]},
        {"allOf": [{"$ref": "#/nowhere"}, obj(a={})]},
    ],
)
def test_what_a_reference_does_not_have(schema: Any) -> None:
    with pytest.raises(InvalidRequest, match="cannot be enforced"):
        of_answer({**wrapped(schema), "$defs": BASE})
    assert of_tool({**wrapped(schema), "$defs": BASE})[1].startswith("#.properties.x.")


class Cat(BaseModel):
    kind: Literal["cat"]
    born: datetime.date | None = None


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    owner: Cat | None = Field(None, description="who it belongs to")


class Order(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind", title="Pet")]
    any_pet: Cat | Dog | None = None
    code: str = Field(pattern=r"^\d{3}-\w+$", max_length=12)
    size: Literal["s", "m"] | int = "s"
    best: Cat = Field(description="the best one")
    pair: tuple[int, str] = (1, "a")
    more: dict[str, list[Dog]] = {}


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_schemas_of_pydantic_are_kept_whole(mode: Literal["validation", "serialization"]) -> None:
    schema = Order.model_json_schema(mode=mode)
    expected = Order.model_json_schema(mode=mode)
    expected["properties"]["code"]["pattern"] = "^[0-9]{3}-[0-9A-Z_a-z]{1,8}$"
    for read in (of_answer, of_tool):
        assert read(schema) == (expected, "")


def test_a_required_property_that_nothing_allows() -> None:
    schema = obj("z", a={}) | {"additionalProperties": False}
    with pytest.raises(InvalidRequest, match="'z' is required, but not in properties"):
        of_answer(schema)
    assert of_tool(schema) == (schema, "#.required")
