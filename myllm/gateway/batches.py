"""Much work of one request, done in batches that each wait their turn.

An engine is held for a batch at a time, so that somebody else's request comes in between however
long the whole takes. The next batch queues while one is being worked on: an engine that is to be
unloaded when it is idle stays, and none of its time is lost where nobody else waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
# An engine notices that nobody waits any more only between requests.
MOST: Final = 64
# Of four bytes each a few thousand tokens: some batches of the engine, which take a CPU that reads
# a thousand tokens a second some seconds.
BYTES: Final = 32_768
_AHEAD: Final = 2


def batches(items: Sequence[_T], size_of: Callable[[_T], int]) -> Iterator[tuple[int, list[_T]]]:
    """`items` in batches of at most MOST items and BYTES bytes, of one item at least; each with
    the number of its first item."""
    start, size = 0, 0
    for number, item in enumerate(items):
        added = size_of(item)
        if number > start and (number - start >= MOST or size + added > BYTES):
            yield start, list(items[start:number])
            start, size = number, 0
        size += added
    if items:
        yield start, list(items[start:])


async def each_in_turn(
    parts: Sequence[_T], do: Callable[[_T, bool], Awaitable[_R]], at_once: int = _AHEAD
) -> list[_R]:
    """What `do` makes of each part; it is told whether others have gone before it.

    At most `at_once` are under way at a time. Raises what the first one raises that fails, when
    the others have ended.
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
