"""Batches of about half a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from myllm.supervisor.batching import SMALLEST, PromptSpeeds, batch_for, first_batch


@pytest.mark.parametrize(
    ("speed", "size"),
    [(1.0, 16), (60.0, 16), (110.0, 32), (130.0, 32), (350.0, 128), (6000.0, 2048), (1e6, 2048)],
)
def test_two_batches_pass_within_a_second(speed: float, size: int) -> None:
    assert batch_for(speed) == size
    assert size == SMALLEST or 2 * size / speed < 1


@pytest.mark.parametrize(
    ("parameters", "cores", "gpu", "size"),
    [
        (2_900_000, 2, False, 128),
        (1_100_000_000, 2, False, 32),
        (1_100_000_000, 16, False, 128),
        (70_000_000_000, 16, False, 16),
        (70_000_000_000, 16, True, 2048),
        (0, 1, False, 128),
    ],
)
def test_the_first_size_is_a_guess(parameters: int, cores: int, gpu: bool, size: int) -> None:
    assert first_batch(parameters, cores, gpu) == size


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
