"""How long the answers to wrong keys are delayed."""

from __future__ import annotations

import pytest

from myllm.api.http import slowdown
from myllm.api.http.slowdown import Slowdown


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("myllm.api.http.slowdown.time.monotonic", lambda: now[0])
    return now


def test_one_guess_after_the_other_waits_longer_up_to_two_seconds(clock: list[float]) -> None:
    slow, delays = Slowdown(), []
    for _ in range(9):
        delays.append(slow.delay_s("10.0.0.1"))
        clock[0] += delays[-1]
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])


def test_guesses_at_once_are_answered_one_after_the_other(clock: list[float]) -> None:
    slow = Slowdown()
    delays = [slow.delay_s("10.0.0.1") for _ in range(100)]
    assert delays == sorted(delays)
    assert delays[:3] == pytest.approx([0.05, 0.15, 0.35])
    assert delays[-1] == pytest.approx(30.0)


def test_another_address_is_not_delayed_by_them(clock: list[float]) -> None:
    slow = Slowdown()
    for _ in range(100):
        slow.delay_s("10.0.0.1")
    assert slow.delay_s("10.0.0.2") == pytest.approx(0.05)


def test_an_address_begins_anew_after_a_minute_without_a_guess(clock: list[float]) -> None:
    slow = Slowdown()
    for _ in range(10):
        clock[0] += slow.delay_s("10.0.0.1")
    clock[0] += 61
    assert slow.delay_s("10.0.0.1") == pytest.approx(0.05)


def test_the_addresses_of_one_ipv6_network_count_as_one(clock: list[float]) -> None:
    slow = Slowdown()
    slow.delay_s("2001:db8:0:1::1")
    assert slow.delay_s("2001:db8:0:1:ffff::2%eth0") > 0.1
    assert slow.delay_s("2001:db8:0:2::1") == pytest.approx(0.05)
    assert slow.delay_s("no:address") == pytest.approx(0.05)


def test_it_remembers_a_bounded_number_of_addresses(clock: list[float]) -> None:
    slow = Slowdown()
    for number in range(3 * slowdown.MOST):
        slow.delay_s(f"address {number}")
        slow.delay_s("10.0.0.1")  # which keeps guessing, and so is not forgotten
    assert len(slow) == slowdown.MOST
    assert slow.delay_s("10.0.0.1") > 2
