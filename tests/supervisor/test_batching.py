"""Batches of about half a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from myllm.supervisor.batching import PromptSpeeds, batch_for


@pytest.mark.parametrize(
    ("speed", "gpu", "size"),
    [
        (None, False, 128),
        (None, True, 2048),
        (110.0, False, 32),
        (300.0, False, 128),
        (6000.0, False, 2048),
        (1.0, False, 32),
        (1e6, True, 2048),
    ],
)
def test_the_size_follows_the_speed(speed: float | None, gpu: bool, size: int) -> None:
    assert batch_for(speed, gpu) == size


def test_speeds_are_remembered(tmp_path: Path) -> None:
    file = tmp_path / "state" / "speeds.json"
    speeds = PromptSpeeds(file)
    speeds.measured("short", tokens=10, seconds=1)  # says more about overhead than speed
    speeds.measured("model", tokens=1000, seconds=10)
    speeds.save()
    again = PromptSpeeds(file)
    assert again.get("model") == 100
    assert again.get("short") is None
    assert list(file.parent.iterdir()) == [file]


def test_one_slow_moment_does_little(tmp_path: Path) -> None:
    speeds = PromptSpeeds(tmp_path / "speeds.json")
    speeds.measured("model", tokens=1000, seconds=1)
    speeds.measured("model", tokens=1000, seconds=10)
    assert speeds.get("model") == pytest.approx(730)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": "x"}', b"\xff"])
def test_a_damaged_file_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "speeds.json"
    file.write_bytes(content)
    assert PromptSpeeds(file).get("a") is None
