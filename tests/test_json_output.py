"""JSON is written as orjson writes it, but in pieces where that takes long."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from myllm import json_output
from myllm.json_output import dump_in_steps, dumped, is_large


@dataclass
class Said:
    role: str
    content: str


LONG = {
    "plain": "word " * 100_000,
    "quotes": '"' * 300_000,
    "backslashes": "\\" * 300_001,
    "controls": "\x00\n\u2028" * 100_000,
    "letters": "aé語😀" * 70_000,
    "the last one differs": "a" * 300_000 + "😀",
}
VALUES: dict[str, Any] = {
    "nothing": {},
    "short": {"a": [1, 2.5, None, True, "é"], "b": {"c": ()}},
    "numbers": {"tokens": list(range(100_000))},
    "vectors": [[0.1] * 500] * 50,
    "mixed": [[1, "a", {"b": [None]}] * 3_000],
    "dataclasses": [Said("user", "word " * 100_000)] * 2,
    "large integers": [2**63] * 5_000,
    **{name: {"content": [{"text": text}]} for name, text in LONG.items()},
}


@pytest.mark.parametrize("name", VALUES)
async def test_the_same_as_in_one_piece(name: str) -> None:
    value = VALUES[name]
    assert await dumped(value) == dump_in_steps(value) == orjson.dumps(value)


@pytest.mark.parametrize("name", LONG)
def test_the_options_of_the_encoder(name: str) -> None:
    unknown, sort = {"z": {1, 2}, "a": LONG[name]}, orjson.OPT_SORT_KEYS
    assert dump_in_steps(unknown, repr, sort) == orjson.dumps(unknown, repr, sort)


@pytest.mark.parametrize("value", [object(), {"a": ["x" * 300_000, object()]}, "\ud800" * 300_000])
async def test_what_cannot_be_written(value: Any) -> None:
    with pytest.raises(TypeError):
        await dumped(value)


@pytest.mark.parametrize(
    "name", [*LONG, "numbers", "vectors", "mixed", "dataclasses", "large integers"]
)
async def test_large_values_are_written_piece_by_piece_in_a_thread(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder keeps Python's lock, so that a thread alone would not be enough."""
    at_once: list[int] = []
    dumps = orjson.dumps

    def noted(value: Any, *more: Any) -> bytes:
        assert threading.current_thread() is not threading.main_thread()
        if not has_written_parts(value):
            at_once.append(len(dumps(value, *more)))
        return dumps(value, *more)

    monkeypatch.setattr(json_output.orjson, "dumps", noted)
    assert is_large(VALUES[name])
    await dumped(VALUES[name])
    assert max(at_once) <= 6 * 2**16 + 2


def has_written_parts(value: Any) -> bool:
    """Whether the encoder only joins `value`, since what takes long in it is written already."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(map(has_written_parts, value))
    return isinstance(value, orjson.Fragment)


@pytest.mark.parametrize("name", ["nothing", "short"])
def test_small_values_need_no_thread(name: str) -> None:
    assert not is_large(VALUES[name])
    assert not is_large({"messages": [Said("user", "hello")] * 100})
