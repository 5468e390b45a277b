"""`config.json`: the values of each key, the refusals, and the generated documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from myllm.errors import InvalidModel
from myllm.models.config import EngineOptions, ModelConfig
from myllm.models.config_file import read_config
from scripts import config_reference

HUGE = "1" + 400 * "0"
NULL = ("null",)
SWITCH = ("true", "false")
INTEGERS = (
    *("-2", "-1", "0", "1", "2", "64", "65", "1024", "1025", "100000", "100001"),
    *("1073741824", "1073741825", "4294967295", "4294967296"),
)
FRACTIONS = ("-2.1", "-2.0", "0.5", "2.0", "2.5", "5.0", "1e308")
TEXTS = ('"x"', '"é"', '"a/b:c"', '"soon"', '"inf"', '"nan"')
BLANKS = ('""', '" "', '"\\u001c\\t"')
DURATIONS = ('"5m"', '" 1H30m "', '"-1"', '"0.5"')
NAMES = ("[]", '["a"]', '["gpt-4o", "a/b:c"]')
WORDS = ('["a b"]', '["-a"]', '["a\\n"]', '["é"]')
NO_WORDS = ('[""]', '["a", 1]', "[null]", '[["a"]]')
VALUES = (
    *NULL, *SWITCH, *INTEGERS, *FRACTIONS, "1e999", HUGE, *TEXTS, *BLANKS, *DURATIONS,
    *NAMES, *WORDS, *NO_WORDS, "{}", '{"a": 1}',
)  # fmt: skip
"""Values in JSON; each test tries all of them."""


def whole(low: int, high: int) -> tuple[str, ...]:
    return tuple(number for number in INTEGERS if low <= int(number) <= high)


def numbers(low: float, high: float) -> tuple[str, ...]:
    return tuple(each for each in (*INTEGERS, *FRACTIONS) if low <= float(each) <= high)


ANY_TEXT = (*TEXTS, *DURATIONS)
ACCEPTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "name": ("a text that is not empty", ANY_TEXT),
    "family": ("a text that is not empty", ANY_TEXT),
    "quantization": ("a text that is not empty", ANY_TEXT),
    "context_size": ("a whole number between 1 and 1073741824", whole(1, 1 << 30)),
    "template": ("a text that is not empty", ANY_TEXT),
    "description": ("a text that is not empty", ANY_TEXT),
    "aliases": ("a list of names such as gpt-4o-mini", NAMES),
    "matryoshka": ("true or false", SWITCH),
    "source": ("a text that is not empty", ANY_TEXT),
    "parameters": ("a JSON object", ("{}",)),
    "engine": ("a JSON object", ("{}",)),
    "parameters.temperature": ("a number between 0.0 and 2.0", numbers(0, 2)),
    "parameters.top_p": ("a number between 0.0 and 1.0", numbers(0, 1)),
    "parameters.top_k": ("a whole number between 0 and 1073741824", whole(0, 1 << 30)),
    "parameters.min_p": ("a number between 0.0 and 1.0", numbers(0, 1)),
    "parameters.max_tokens": ("a whole number between 1 and 1073741824", whole(1, 1 << 30)),
    "parameters.stop": ("a list of at most 64 texts that are not empty", (*NAMES, *WORDS)),
    "parameters.repeat_penalty": ("a number of at least 0.0", numbers(0, 1e308)),
    "parameters.presence_penalty": ("a number between -2.0 and 2.0", numbers(-2, 2)),
    "parameters.frequency_penalty": ("a number between -2.0 and 2.0", numbers(-2, 2)),
    "parameters.seed": ("a whole number between -1 and 4294967295", whole(-1, (1 << 32) - 1)),
    "engine.slots": ("a whole number between 1 and 64", whole(1, 64)),
    "engine.threads": ("a whole number between 1 and 1024", whole(1, 1024)),
    "engine.gpu_layers": ("a whole number between 0 and 100000", whole(0, 100_000)),
    "engine.keep_alive": (
        'seconds, or a text such as "5m"; 0: unload after the answer, -1: never',
        (*INTEGERS, *FRACTIONS, *DURATIONS),
    ),
    "engine.pinned": ("true or false", SWITCH),
    "engine.preload": ("true or false", SWITCH),
}
"""For every key: the words of a refusal, and the accepted values besides null."""

EDITORS_DIFFER = {"2.0", "5.0", "1e999", HUGE, '" 1H30m "', '["a\\n"]'}
"""In JSON Schema 2.0 is an integer, numbers have no maximum and patterns respect case; in Python
`$` also matches before a final line break."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def content(key: str, value: str) -> str:
    section, _, name = key.rpartition(".")
    inside = f'{{"{name}": {value}}}'
    return f'{{"{section}": {inside}}}' if section else inside


def problem(file: Path, text: str) -> str | None:
    """What a refusal says after the file's path; None if the file is accepted."""
    file.write_text(text)
    try:
        read_config(file)
    except InvalidModel as failure:
        path, _, said = failure.detail.partition(": ")
        return said if path == str(file) else f"{path} is another file"
    return None


def test_the_corpus_has_every_key() -> None:
    keys = config_reference.schemas_by_name()
    assert list(ACCEPTED) == list(keys)


@pytest.mark.parametrize("key", ACCEPTED)
def test_each_key_accepts_its_values_and_a_refusal_names_them(file: Path, key: str) -> None:
    allowed, accepted = ACCEPTED[key]
    for value in VALUES:
        found = problem(file, content(key, value))
        if key in ("parameters", "engine") and value == '{"a": 1}':
            assert found is not None
            assert found.startswith(f"{key}.a is unknown; known are ")
        else:
            expected = None if value in (*NULL, *accepted) else f"{key} must be {allowed}"
            assert found == expected, value


def test_limits_of_lists_and_names(file: Path) -> None:
    stops, names = '["a"' + 63 * ', "a"', '["' + 128 * "a"
    assert problem(file, content("parameters.stop", f"{stops}]")) is None
    assert problem(file, content("parameters.stop", f'{stops}, "a"]')) is not None
    assert problem(file, content("aliases", f"{stops}, {stops}]]")) is not None
    assert problem(file, content("aliases", f'{names}"]')) is None
    assert problem(file, content("aliases", f'{names}a"]')) is not None


def test_values_keep_their_spelling_and_order(file: Path) -> None:
    parameters = '{"top_p": 1, "temperature": 0.0, "seed": null, "stop": ["b", "a"], "top_k": 5}'
    file.write_text(f'{{"parameters": {parameters}, "aliases": ["b", "a"]}}')
    config = read_config(file)
    kept = '{"top_p": 1, "temperature": 0.0, "stop": ["b", "a"], "top_k": 5}'
    assert json.dumps(config.parameters) == kept
    assert config.aliases == ("b", "a")


def test_null_counts_as_left_out(file: Path) -> None:
    every = {key: None for key in ACCEPTED if "." not in key}
    file.write_text(json.dumps(every))
    assert read_config(file) == ModelConfig()
    file.write_text('{"engine": {"slots": null, "pinned": null, "keep_alive": null}}')
    assert read_config(file).engine == EngineOptions()


@pytest.mark.parametrize("section", ["parameters", "engine"])
def test_an_unknown_key_of_a_section_is_refused_even_with_null(file: Path, section: str) -> None:
    for value in ("1", "null"):
        found = problem(file, content(f"{section}.slot", value))
        assert found is not None
        assert found.startswith(f"{section}.slot is unknown; known are ")


def test_durations_become_seconds(file: Path) -> None:
    for value, seconds in (('"1h30m"', 5400.0), ("90", 90.0), ('"-1"', -1.0), ("0", 0.0)):
        file.write_text(content("engine.keep_alive", value))
        assert read_config(file).engine.keep_alive == seconds


@pytest.mark.parametrize("key", ACCEPTED)
def test_the_schema_for_editors_accepts_what_is_accepted(file: Path, key: str) -> None:
    schema: dict[str, Any] = json.loads(config_reference.SCHEMA_FILE.read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    for value in set(VALUES) - EDITORS_DIFFER:
        text = content(key, value)
        assert validator.is_valid(json.loads(text)) is (problem(file, text) is None), value


def test_the_documentation_is_up_to_date() -> None:
    page = config_reference.PAGE.read_text("utf-8")
    written = (page, config_reference.SCHEMA_FILE.read_text("utf-8"))
    now = (config_reference.with_table(page), config_reference.schema_text())
    assert written == now, "run scripts/config_reference.py"
