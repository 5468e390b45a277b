"""What an engine repeats of the message that it continues."""

from __future__ import annotations

import pytest

from myllm.gateway.generation.deltas import BegunFilter, Delta


def shown(begun: str, *texts: str) -> list[str]:
    filtered = BegunFilter(begun)
    made = [filtered.unrepeated(Delta(text=text)).text for text in texts]
    return [*made, filtered.unrepeated(Delta(finish_reason="stop")).text]


@pytest.mark.parametrize(
    ("begun", "texts", "expected"),
    [
        ("", ["a", "b"], ["a", "b", ""]),
        ("One", ["One", " two"], ["", " two", ""]),
        ("One", ["O", "ne two"], ["", " two", ""]),
        ("One", ["One"], ["", ""]),
        ("One", ["Two"], ["Two", ""]),  # nothing is repeated
        ("One", ["O", "ff"], ["", "Off", ""]),
        ("One", ["O"], ["", "O"]),
        ("One", [], [""]),
    ],
)
def test_what_is_repeated_is_not_sent_again(
    begun: str, texts: list[str], expected: list[str]
) -> None:
    assert shown(begun, *texts) == expected
