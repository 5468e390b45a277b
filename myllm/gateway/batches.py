"""Splits the work of a large request into batches that each wait their turn.

A request holds an engine for one batch at a time, so other requests come in between however long
the whole takes. The next batch queues while one is being computed: so an engine that unloads when
it is idle stays, and is never idle while no other request waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
# An engine notices that its client has left only when a request to it ends.
MAX_ITEMS: Final = 64
# At four bytes per token, some thousand tokens: a few batches of the engine, which a CPU that reads
# a thousand tokens per second computes in a few seconds.
MAX_BYTES: Final = 32_768
_AHEAD: Final = 2


def batches(items: Sequence[_T], size_of: Callable[[_T], int]) -> Iterator[tuple[int, list[_T]]]:
    """Yield `items` in batches, each with the index of its first item.

    A batch has at most MAX_ITEMS items and MAX_BYTES bytes, but at least one item.
    """
    start, size = 0, 0
    for number, item in enumerate(items):
        added = size_of(item)
        if number > start and (number - start >= MAX_ITEMS or size + added > MAX_BYTES):
            yield start, list(items[start:number])
            start, size = number, 0
        size += added
    if items:
        yield start, list(items[start:])


async def each_in_turn(
    parts: Sequence[_T], do: Callable[[_T, bool], Awaitable[_R]], at_once: int = _AHEAD
) -> list[_R]:
    """Return the result of `do` for each part; its second argument is False for the first part.

    At most `at_once` run at the same time. If one fails, the others are cancelled, and its error is
    raised when they have ended.
    """
    places = asyncio.Semaphore(at_once)

    async def one(number: int, part: _T) -> _R:
        async with places:
            return await do(part, number > 0)

    tasks = [asyncio.create_task(one(n, part), name="a batch") for n, part in enumerate(parts)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
