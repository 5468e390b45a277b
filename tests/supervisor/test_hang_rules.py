"""The rules by which an engine hangs, without any engine."""

from __future__ import annotations

import pytest

from myllm.supervisor.hang_rules import Signs, Vitals

TIMEOUT_S, EVERY_S = 60.0, 2.0
# What a batch of 512 tokens takes at 25 tokens per second.
BATCH_S = 20.48


def hang(signs: Signs, for_s: float, batch_s: float = 0.1, loading: bool = False) -> str | None:
    """What is said of an engine that has shown nothing but `signs` for so long."""
    vitals = Vitals()
    for _ in range(round(for_s / EVERY_S)):
        vitals.look(EVERY_S, signs)
    return vitals.hang(TIMEOUT_S, batch_s, loading)


@pytest.mark.parametrize("signs", [Signs(), Signs(worked=True)])
def test_one_that_does_not_answer_hangs_whether_it_works_or_not(signs: Signs) -> None:
    assert hang(signs, TIMEOUT_S) is None
    assert "no answer for 62 s" in (hang(signs, TIMEOUT_S + EVERY_S) or "")


def test_one_that_answers_but_does_nothing_hangs() -> None:
    signs = Signs(answered=True)
    assert hang(signs, TIMEOUT_S) is None
    assert "no work for 62 s, though it answers" in (hang(signs, TIMEOUT_S + EVERY_S) or "")


def test_where_a_batch_takes_long_ten_of_them_are_waited_for() -> None:
    signs = Signs(answered=True)
    assert hang(signs, 10 * BATCH_S - EVERY_S, BATCH_S) is None
    assert hang(signs, 10 * BATCH_S + EVERY_S, BATCH_S) is not None


@pytest.mark.parametrize(
    "signs",
    [
        Signs(told=True),
        Signs(answered=True, worked=True),
        Signs(answered=True, moved=True),
        Signs(carried=True),
    ],
)
def test_what_is_no_hang_however_long_it_takes(signs: Signs) -> None:
    assert hang(signs, 100 * TIMEOUT_S) is None


def test_one_that_loads_has_to_work_and_not_to_answer() -> None:
    assert hang(Signs(worked=True), 10 * TIMEOUT_S, loading=True) is None
    assert hang(Signs(carried=True), 10 * TIMEOUT_S, loading=True) is None
    assert "while loading" in (hang(Signs(), 2 * TIMEOUT_S, loading=True) or "")


def test_one_sign_starts_the_clocks_anew_and_so_does_having_nothing_to_do() -> None:
    vitals = Vitals()
    vitals.look(TIMEOUT_S, Signs())
    vitals.look(EVERY_S, Signs(told=True))
    vitals.look(TIMEOUT_S, Signs())
    assert vitals.hang(TIMEOUT_S, 0, loading=False) is None
    vitals.rest()
    vitals.look(TIMEOUT_S, Signs())
    assert vitals.hang(TIMEOUT_S, 0, loading=False) is None
