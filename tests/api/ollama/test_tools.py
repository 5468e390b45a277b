"""Tools as Go programs write them."""

from __future__ import annotations

from myllm.api.ollama.tools import in_small_letters

PARAMETERS = {
    "type": "object",
    "required": ["City"],
    "properties": {
        "City": {"type": ["string"], "enum": [{"Type": 1}], "description": "Where."},
        "Type": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    },
}


def test_capitalised_names_are_read_as_small_ones() -> None:
    tool = {
        "Type": "function",
        "Function": {
            "Name": "weather",
            "Description": "Of a city.",
            "Parameters": {
                "Type": "object",
                "Defs": None,
                "Required": ["City"],
                "Properties": {
                    "City": {"Type": ["string"], "Enum": [{"Type": 1}], "Description": "Where."},
                    "Type": {"AnyOf": [{"Type": "string"}, {"Type": "integer"}]},
                },
            },
        },
    }
    [made] = in_small_letters([tool])
    assert made["type"] == "function"
    assert (made["function"]["name"], made["function"]["description"]) == ("weather", "Of a city.")
    assert made["function"]["parameters"] == PARAMETERS | {"Defs": None}


def test_small_names_stay_as_they_are() -> None:
    for tools in ([{"type": "function", "function": {"Name": "x"}}], ["text", 5], None, "text"):
        assert in_small_letters(tools) == tools
