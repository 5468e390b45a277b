"""The window of tokens, compared with a list of everything that was counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from myllm.gateway.key_limits.token_window import WINDOW_S, TokenWindow

STEPS = st.lists(
    st.tuples(st.floats(0, 40), st.integers(0, 1000), st.integers(-1000, 1000)), max_size=60
)


@given(STEPS)
def test_it_has_what_was_counted_in_the_last_minute(steps: list[tuple[float, int, int]]) -> None:
    """Each step waits, counts tokens, and corrects what the step three before it counted."""
    window, now = TokenWindow(), 1000.0
    counted: list[tuple[int, int]] = []  # seconds and tokens, with each correction as an entry
    for number, (passed, tokens, by) in enumerate(steps):
        now += passed
        counted.append((window.count(tokens, now), tokens))
        if number >= 3:
            second = int(1000.0 + sum(each[0] for each in steps[: number - 2]))
            in_it = sum(counts for at, counts in counted if at == second)
            by = max(by, -in_it)
            window.correct(second, by, now)
            if second > int(now) - WINDOW_S:
                counted.append((second, by))
            elif by > 0:
                counted.append((int(now), by))
        assert window.used(now) == sum(t for at, t in counted if at > int(now) - WINDOW_S)
        assert window.used(now) >= 0
    assert window.used(now + window.reset_s(now)) == 0


@given(STEPS, st.integers(1, 2000))
def test_the_wait_is_over_when_the_tokens_fit_and_not_earlier(
    steps: list[tuple[float, int, int]], wanted: int
) -> None:
    window, now, limit = TokenWindow(), 1000.0, 2000
    for passed, tokens, _ in steps:
        now += passed
        window.count(tokens, now)
    wait_s = window.wait_s(wanted, limit, now)
    assert 0 <= wait_s <= WINDOW_S
    if wait_s:
        assert window.used(max(now, int(now) + wait_s - 0.001)) + wanted > limit
    assert window.used(now + wait_s) + wanted <= limit


def test_a_refund_after_a_minute_has_nothing_to_take_back() -> None:
    window = TokenWindow()
    second = window.count(100, 5.0)
    window.correct(second, -60, 70.0)
    assert window.used(70.0) == 0
    window.correct(second, 60, 71.0)
    assert window.used(71.0) == 60


def test_it_keeps_one_sum_for_each_second() -> None:
    window = TokenWindow()
    for tick in range(10_000):
        window.count(1, tick / 50)
    assert len(window._sums) == WINDOW_S
