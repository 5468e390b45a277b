"""The rules by which an engine hangs, without any engine."""

from __future__ import annotations

import pytest

from myllm.supervisor.hang_rules import EngineActivity, HangClocks

TIMEOUT_S, EVERY_S = 60.0, 2.0
# What a batch of 512 tokens takes at 25 tokens per second.
BATCH_S = 20.48


def hang(
    activity: EngineActivity, for_s: float, batch_s: float = 0.1, loading: bool = False
) -> str | None:
    """Return what the rules report about an engine that shows only `activity` for `for_s` s."""
    clocks = HangClocks()
    for _ in range(round(for_s / EVERY_S)):
        clocks.advance(EVERY_S, activity)
    return clocks.find_hang(TIMEOUT_S, batch_s, loading)


@pytest.mark.parametrize("activity", [EngineActivity(), EngineActivity(worked=True)])
def test_one_that_does_not_answer_hangs_whether_it_works_or_not(activity: EngineActivity) -> None:
    assert hang(activity, TIMEOUT_S) is None
    assert "no answer for 62 s" in (hang(activity, TIMEOUT_S + EVERY_S) or "")


def test_one_that_answers_but_does_nothing_hangs() -> None:
    activity = EngineActivity(answered=True)
    assert hang(activity, TIMEOUT_S) is None
    assert "no work for 62 s, though it answers" in (hang(activity, TIMEOUT_S + EVERY_S) or "")


def test_where_a_batch_takes_long_ten_of_them_are_waited_for() -> None:
    activity = EngineActivity(answered=True)
    assert hang(activity, 10 * BATCH_S - EVERY_S, BATCH_S) is None
    assert hang(activity, 10 * BATCH_S + EVERY_S, BATCH_S) is not None


@pytest.mark.parametrize(
    "activity",
    [
        EngineActivity(reported=True),
        EngineActivity(answered=True, worked=True),
        EngineActivity(answered=True, progressed=True),
        EngineActivity(did_io=True),
    ],
)
def test_what_is_no_hang_however_long_it_takes(activity: EngineActivity) -> None:
    assert hang(activity, 100 * TIMEOUT_S) is None


def test_one_that_loads_has_to_work_and_not_to_answer() -> None:
    assert hang(EngineActivity(worked=True), 10 * TIMEOUT_S, loading=True) is None
    assert hang(EngineActivity(did_io=True), 10 * TIMEOUT_S, loading=True) is None
    assert "while loading" in (hang(EngineActivity(), 2 * TIMEOUT_S, loading=True) or "")


def test_one_sign_starts_the_clocks_anew_and_so_does_having_nothing_to_do() -> None:
    clocks = HangClocks()
    clocks.advance(TIMEOUT_S, EngineActivity())
    clocks.advance(EVERY_S, EngineActivity(reported=True))
    clocks.advance(TIMEOUT_S, EngineActivity())
    assert clocks.find_hang(TIMEOUT_S, 0, loading=False) is None
    clocks.reset()
    clocks.advance(TIMEOUT_S, EngineActivity())
    assert clocks.find_hang(TIMEOUT_S, 0, loading=False) is None
