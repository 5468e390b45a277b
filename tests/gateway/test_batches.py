"""Large requests in batches, a few at a time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myllm.gateway.batches import MAX_BYTES, MAX_ITEMS, batches, each_in_turn


@given(st.lists(st.integers(0, 2 * MAX_BYTES), max_size=300))
def test_batches_are_small_and_have_everything_in_order(sizes: list[int]) -> None:
    made = list(batches(sizes, lambda size: size))
    assert [size for _, part in made for size in part] == sizes
    first = 0
    for start, part in made:
        assert start == first
        assert 0 < len(part) <= MAX_ITEMS
        assert len(part) == 1 or sum(part) <= MAX_BYTES
        first += len(part)


async def test_a_few_at_a_time_and_only_the_first_is_new() -> None:
    running, most = 0, 0

    async def do(part: int, goes_on: bool) -> tuple[int, bool]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (part % 3))
        running -= 1
        return part, goes_on

    assert await each_in_turn(range(10), do) == [(n, n > 0) for n in range(10)]
    assert most == 2


async def test_a_failure_cancels_the_others() -> None:
    begun: list[int] = []

    async def do(part: int, goes_on: bool) -> None:
        begun.append(part)
        await asyncio.sleep(0)
        if part == 1:
            raise ValueError("no")
        await asyncio.sleep(60)

    with pytest.raises(ValueError, match="no"):
        await asyncio.wait_for(each_in_turn(range(10), do), 10)
    assert len(begun) < 5
