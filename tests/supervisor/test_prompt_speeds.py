"""Prompt speeds that outlive a restart, and what a busy machine may not do to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from myllm.supervisor.prompt_speeds import Known, PromptSpeeds

KEY = "model | engine | CPU | 2 threads"
CALM = Known("measured", {64: 803.0, 128: 861.0, 256: 1050.0, 512: 1059.0})
BUSY = Known("busy", {64: 200.0, 128: 90.0, 256: 80.0, 512: 70.0})


@pytest.fixture
def speeds(tmp_path: Path) -> PromptSpeeds:
    return PromptSpeeds(tmp_path / "state" / "speeds.json")


def test_a_comparison_is_remembered_over_restarts(tmp_path: Path) -> None:
    file = tmp_path / "state" / "speeds.json"
    speeds = PromptSpeeds(file)
    assert speeds.batch(KEY, 512) == 512
    assert speeds.best(KEY) is None
    speeds.compared(KEY, CALM)
    speeds.save()
    again = PromptSpeeds(file)
    assert again.batch(KEY, 512) == 256
    assert again.best(KEY) == 1059
    assert not again.wants_comparison(KEY)
    assert again.wants_comparison("the same on another machine")
    assert list(file.parent.iterdir()) == [file]


def test_a_busy_machine_decides_nothing_and_the_comparison_is_repeated(
    speeds: PromptSpeeds,
) -> None:
    speeds.compared(KEY, BUSY)
    assert speeds.batch(KEY, 512) == 512
    assert speeds.wants_comparison(KEY)
    assert not speeds.learns(KEY)
    assert speeds.best(KEY) == 200, "better than a guess"
    speeds.compared(KEY, Known("busy", {64: 100.0}))
    assert speeds.best(KEY) == 200
    speeds.compared(KEY, CALM)
    assert speeds.batch(KEY, 512) == 256
    assert not speeds.wants_comparison(KEY)


def test_a_slow_model_learns_from_real_prompts(speeds: PromptSpeeds) -> None:
    speeds.learn(KEY, 512, 2000, 20)
    assert speeds.best(KEY) is None, "not known to be slow"
    speeds.compared(KEY, Known("slow", {64: 80.0}))
    assert speeds.learns(KEY)
    assert speeds.batch(KEY, 512) == 512, "smaller sizes alone are no comparison"
    speeds.learn(KEY, 512, 150, 1.6)
    speeds.learn(KEY, 512, 1100, 12)
    speeds.learn(KEY, 512, 260, 2.9)
    assert speeds.batch(KEY, 512) == 128
    speeds.learn(KEY, 512, 1100, 120)
    assert speeds.best(KEY) == pytest.approx(150 / 1.6), "a slow moment changes nothing"


@pytest.mark.parametrize(
    ("tokens", "learned"),
    [(63, False), (64, True), (81, False), (640, True), (641, False), (1023, False), (1024, True)],
)
def test_only_prompts_that_show_the_speed_of_one_size_count(
    speeds: PromptSpeeds, tokens: int, learned: bool
) -> None:
    speeds.compared(KEY, Known("slow", {}))
    speeds.learn(KEY, 512, tokens, 10)
    assert (speeds.best(KEY) is not None) == learned


def test_a_comparison_is_final(speeds: PromptSpeeds) -> None:
    speeds.compared(KEY, CALM)
    speeds.learn(KEY, 256, 2000, 0.1)
    assert speeds.best(KEY) == 1059


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b"\xff",
        b'{"a": 128.5}',
        b'{"a": {"status": "measured"}}',
        b'{"a": {"status": "fine", "tokens_per_s": {"64": 1}}}',
        b'{"a": {"status": "measured", "tokens_per_s": {"x": 1}}}',
        b'{"a": {"status": "measured", "tokens_per_s": {"64": 0}}}',
    ],
)
def test_a_damaged_file_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "speeds.json"
    file.write_bytes(content)
    assert PromptSpeeds(file).batch("a", 512) == 512
