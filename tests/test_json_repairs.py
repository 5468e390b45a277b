"""JSON that most parsers accept, and ours repairs."""

from __future__ import annotations

import json

import pytest

from myllm.errors import InvalidRequest
from myllm.json_input import is_json_type, parse_json

HALF = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'"\ud83d"', HALF),
        (rb'"a\uDE00b"', f"a{HALF}b"),
        (rb'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        (rb'"\ude00\ud83d"', HALF * 2),
        (rb'"\ud83d\ud83d\ude00"', HALF + "\N{GRINNING FACE}"),
        (rb'"\ud83d\u0041"', f"{HALF}A"),
        (rb'"\n\ud83d\n"', f"\n{HALF}\n"),
        (rb'{"\udc00": ["\ud800"]}', {HALF: [HALF]}),
    ],
)
def test_half_of_a_surrogate_pair_is_read_as_the_replacement_character(
    text: bytes, value: object
) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize("backslashes", range(1, 9))
def test_an_escaped_backslash_begins_no_escape(backslashes: int) -> None:
    run = b"\\" * backslashes
    text = b'["' + run + b'ud83d", "' + run + rb'ud83d\ude00", "\ud800"]'
    # json keeps the halves that it finds.
    assert parse_json(text) == [_repaired(each) for each in json.loads(text)]


def _repaired(text: str) -> str:
    return "".join(HALF if "\ud800" <= char <= "\udfff" else char for char in text)


@pytest.mark.parametrize("text", [rb'"\ud83d', rb'["\ud83d" x]', rb'"\ud83"', rb"\ud83d"])
def test_what_is_not_json_besides_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="The body is not valid JSON"):
        parse_json(text)


@pytest.mark.parametrize(
    "content_type",
    ["", " ", "application/json", "Application/JSON; charset=utf-8", "text/json",
     "application/vnd.api+json"],
)  # fmt: skip
def test_types_that_are_read_as_json(content_type: str) -> None:
    assert is_json_type(content_type)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/x-ndjson",
     "multipart/form-data; boundary=application/json", "text/plain; application/json"],
)  # fmt: skip
def test_types_that_are_not(content_type: str) -> None:
    assert not is_json_type(content_type)
