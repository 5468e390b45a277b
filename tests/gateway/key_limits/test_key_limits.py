"""Which requests of a key with limits are admitted."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myllm.errors import InvalidRequest, KeyLimitReached
from myllm.gateway.key_limits.allowance import Allowance
from myllm.gateway.key_limits.key_limits import KeyLimits, Left, is_limited
from myllm.sessions.keys import Key
from tests.gateway.key_limits.clock import Clock, key


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def admitted(limits: KeyLimits, asking: Key) -> bool:
    """Whether a request that ends at once is admitted."""
    try:
        allowance = await limits.admit(asking, counts=True)
    except KeyLimitReached:
        return False
    allowance.end()
    return True


async def test_requests_per_minute(clock: Clock) -> None:
    limits, ann = KeyLimits(clock), key(requests_per_minute=3)
    for _ in range(3):
        assert await admitted(limits, ann)
        clock.now += 10
    with pytest.raises(KeyLimitReached) as refused:
        await limits.admit(ann, counts=True)
    assert refused.value.retry_after_s == 30
    assert "requests per minute (3)" in refused.value.detail
    assert limits.left(ann) == [Left("requests", 3, 0, 50)]
    clock.now += 29.9
    assert not await admitted(limits, ann)
    clock.now += 0.2
    assert await admitted(limits, ann)
    assert not await admitted(limits, ann)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 40), max_size=40))
async def test_no_minute_has_more_requests_than_the_limit(limit: int, waits: list[int]) -> None:
    clock = Clock()
    limits, ann, at = KeyLimits(clock), key(requests_per_minute=limit), list[float]()
    for wait in waits:
        clock.now += wait
        in_last_minute = sum(clock.now - each < 60 for each in at)
        assert await admitted(limits, ann) is (in_last_minute < limit)
        if in_last_minute < limit:
            at.append(clock.now)


async def test_refused_requests_do_not_count(clock: Clock) -> None:
    limits, ann = KeyLimits(clock), key(requests_per_minute=1)
    assert await admitted(limits, ann)
    for _ in range(100):
        clock.now += 0.5
        assert not await admitted(limits, ann)
    clock.now += 10.1
    assert await admitted(limits, ann)


async def test_requests_at_once(clock: Clock) -> None:
    limits, ann = KeyLimits(clock), key(concurrent_requests=2)
    first, second = await limits.admit(ann, True), await limits.admit(ann, True)
    with pytest.raises(KeyLimitReached, match=r"requests at once \(2\)") as refused:
        await limits.admit(ann, counts=True)
    assert refused.value.retry_after_s == 1
    await limits.admit(ann, counts=False)  # such as a list of models
    first.end()
    third = await limits.admit(ann, counts=True)
    second.end()
    third.end()
    assert await admitted(limits, ann)


async def test_tokens_are_reserved_and_refunded(clock: Clock) -> None:
    limits, ann = KeyLimits(clock), key(tokens_per_minute=1000)
    first = await limits.admit(ann, counts=True)
    first.reserve(100, 500)
    assert limits.left(ann) == [Left("tokens", 1000, 400, 60)]
    clock.now += 20
    second = await limits.admit(ann, counts=True)
    with pytest.raises(KeyLimitReached, match="of which 400 are left") as refused:
        second.reserve(1, 400)
    assert refused.value.retry_after_s == 40
    second.settle(0, 0)
    second.end()
    first.settle(90, 10)
    first.end()
    assert limits.left(ann) == [Left("tokens", 1000, 900, 40)]
    clock.now += 40
    assert limits.left(ann) == [Left("tokens", 1000, 1000, 0)]


async def test_a_key_without_tokens_left_is_refused_at_once(clock: Clock) -> None:
    limits, ann = KeyLimits(clock), key(tokens_per_minute=100, requests_per_minute=9)
    first = await limits.admit(ann, counts=True)
    first.reserve(50, 0)
    first.settle(60, 200)  # nothing bounded the answer
    first.end()
    with pytest.raises(KeyLimitReached, match=r"tokens per minute \(100\)") as refused:
        await limits.admit(ann, counts=True)
    assert refused.value.retry_after_s == 60
    requests, tokens = limits.left(ann)
    assert (requests.remaining, tokens.remaining) == (8, 0)


async def test_a_request_larger_than_the_limit_is_never_served(clock: Clock) -> None:
    limits, ann = KeyLimits(clock), key(tokens_per_minute=100)
    allowance = await limits.admit(ann, counts=True)
    with pytest.raises(InvalidRequest, match="about 110 tokens"):
        allowance.reserve(60, 50)
    allowance.reserve(50, 50)
    with pytest.raises(InvalidRequest, match="can take 101 tokens"):
        allowance.count(51, 50)


async def test_only_the_first_count_of_the_prompt_can_be_refused(clock: Clock) -> None:
    """The second one is for another engine, which goes on with the answer."""
    limits, ann = KeyLimits(clock), key(tokens_per_minute=100)
    allowance = await limits.admit(ann, counts=True)
    allowance.reserve(10, 20)
    allowance.count(30, 20)
    allowance.count(90, 20)
    assert limits.left(ann)[0].remaining == 0
    allowance.settle(60, 15)
    assert limits.left(ann)[0].remaining == 25


async def test_a_prompt_that_its_engine_did_not_count_is_not_free(clock: Clock) -> None:
    limits, ann = KeyLimits(clock), key(tokens_per_minute=100)
    allowance = await limits.admit(ann, counts=True)
    allowance.reserve(30, 50)
    allowance.settle(0, 5)
    assert limits.left(ann)[0].remaining == 65
    allowance.settle(0, 0)
    assert limits.left(ann)[0].remaining == 100


async def test_a_long_answer_counts_what_was_not_reserved_when_it_ends(clock: Clock) -> None:
    limits, ann = KeyLimits(clock), key(tokens_per_minute=1000)
    allowance = await limits.admit(ann, counts=True)
    allowance.reserve(100, 0)
    clock.now += 600
    allowance.settle(100, 700)
    allowance.end()
    assert limits.left(ann)[0].remaining == 300


@pytest.mark.parametrize("changed_to", [1, 2, 5])
async def test_a_changed_limit_keeps_what_was_counted(clock: Clock, changed_to: int) -> None:
    limits = KeyLimits(clock)
    running = await limits.admit(key(requests_per_minute=3), counts=True)
    assert await admitted(limits, key(requests_per_minute=3))
    changed = key(requests_per_minute=changed_to)
    for _ in range(changed_to - 2):
        assert await admitted(limits, changed)
    assert not await admitted(limits, changed)
    assert limits.left(changed)[0].remaining == 0
    running.end()


async def test_limits_that_appear_in_the_middle_of_an_answer(clock: Clock) -> None:
    limits = KeyLimits(clock)
    running = await limits.admit(key(concurrent_requests=5), counts=True)
    running.reserve(10, 10)
    limited = key(concurrent_requests=1, tokens_per_minute=15)
    with pytest.raises(KeyLimitReached, match="at once"):
        await limits.admit(limited, counts=True)
    running.settle(10, 10)
    running.end()
    with pytest.raises(KeyLimitReached, match="tokens"):
        await limits.admit(limited, counts=True)


async def test_the_time_of_day_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, ann = KeyLimits(), key(requests_per_minute=2, tokens_per_minute=100)
    assert await admitted(limits, ann)
    second = await limits.admit(ann, counts=True)
    second.reserve(100, 0)
    day = time.time()
    for moved in (-7200, 7200):
        monkeypatch.setattr(time, "time", lambda moved=moved: day + moved)
        for asking in (key(requests_per_minute=2), key(tokens_per_minute=100)):
            with pytest.raises(KeyLimitReached) as refused:
                await limits.admit(asking, counts=True)
            assert 0 < refused.value.retry_after_s <= 60


async def test_ten_thousand_keys(clock: Clock) -> None:
    """Those that rest are forgotten, those with a request under way are not."""
    limits, waiting = KeyLimits(clock), list[Allowance]()
    for number in range(10_000):
        asking = key(f"key-{number}", requests_per_minute=60, tokens_per_minute=1000)
        allowance = await limits.admit(asking, counts=True)
        allowance.reserve(1, 1)
        if number % 1000:
            allowance.end()
        else:
            waiting.append(allowance)
    assert sys.getsizeof(limits._uses) < 2**21
    clock.now += 61
    other = key("other", requests_per_minute=60)
    for _ in range(10_000):
        await limits.admit(other, counts=False)
    assert len(limits._uses) == len(waiting) + 1
    assert limits._requests is not None
    assert len(limits._requests._storage._hits) == len(waiting)
    for allowance in waiting:
        allowance.end()
    clock.now += 61
    for _ in range(20):
        await limits.admit(other, counts=False)
    assert list(limits._uses) == ["other"]


def test_a_key_without_limits() -> None:
    assert not is_limited(key(models=("demo",), max_priority=3))
    for limit in ("requests_per_minute", "tokens_per_minute", "concurrent_requests"):
        assert is_limited(key(**{limit: 1}))
