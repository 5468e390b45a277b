"""JSON from outside is parsed within bounds, and its values are counted before."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from myllm import json_input
from myllm.errors import InvalidRequest
from myllm.json_input import check_values, parse_json
from myllm.limits import CONTAINERS, KEYS, NESTING, VALUES

# Texts that look like JSON, or whose ends are hard to find.
TEXTS = (
    "[]" * CONTAINERS,
    '{"a":1},' * CONTAINERS,
    "," * (VALUES + 1),
    "\\" * 100_001,
    '"' * 100_000,
    '\\"' * 100_000,
    '"\\' * 100_000,
    "é€𝄞,[" * 100_000,
    "\n\t\u0001," * 100_000,
)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("shift", range(4))
def test_what_texts_contain_does_not_count(text: str, shift: int) -> None:
    value = {"x" * shift: text, "b": [text, {text: text}]}
    assert parse_json(orjson.dumps(value)) == value


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("shift", range(4))
def test_values_after_such_a_text_do_count(text: str, shift: int) -> None:
    many: list[Any] = [{}] * CONTAINERS
    with pytest.raises(InvalidRequest, match=f"more than {CONTAINERS} lists and objects"):
        parse_json(orjson.dumps(["x" * shift, text, many]))


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_a_text_may_be_cut_anywhere(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_input, "_STEP", step)
    monkeypatch.setattr(json_input, "_FEW", 0)
    monkeypatch.setattr(json_input, "VALUES", 5)
    five = ['\\"', '"\\', '\\\\"[,', '"', "\\"]
    check_values(orjson.dumps(five), "it")
    with pytest.raises(InvalidRequest, match="more than 5 values"):
        check_values(orjson.dumps([*five, ""]), "it")


@pytest.mark.parametrize(
    "most",
    [[1] * (VALUES - 1), ["a"] * (VALUES - 1), [[1, 2]] * (CONTAINERS - 1), {"a": [0] * 299_000}],
    ids=["numbers", "texts", "lists", "one list"],
)
def test_as_many_values_as_the_limits_allow(most: Any) -> None:
    assert parse_json(orjson.dumps(most)) == most


@pytest.mark.parametrize("value", ["1", '"a"', "[1,2]", "null"])
def test_too_many_values(value: str) -> None:
    text = f"[{','.join([value] * (VALUES + 1))}]"
    with pytest.raises(InvalidRequest, match=r"it has more than \d+ (values|lists and objects)"):
        parse_json(text.encode(), "it")


@pytest.mark.parametrize("objects", [1, 1_000, 25_000])
def test_too_many_fields_of_objects(objects: int) -> None:
    """Each costs as much as three numbers, whichever object it is in."""
    most = [{f"k{key}": 1 for key in range(KEYS // objects)}] * objects
    assert parse_json(orjson.dumps(most)) == most
    with pytest.raises(InvalidRequest, match=f"more than {KEYS} fields of objects"):
        parse_json(orjson.dumps([*most, {"one": "more"}]))


def test_too_deep() -> None:
    parse_json(b"[" * NESTING + b"]" * NESTING)
    with pytest.raises(InvalidRequest, match=f"more than {NESTING}"):
        parse_json(b"[" * (NESTING + 1) + b"]" * (NESTING + 1))
