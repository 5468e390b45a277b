"""An event loop that is kept from its work in the way that the first argument names.

Prints `ready`, goes on with the next line from its stdin, and in the end prints how many blocks
its watch has counted.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
import time

import uvloop

from myllm.counters import counted
from myllm.logs import configure
from myllm.loop_watch import LoopWatch

BLOCK_S = 0.6
TURN_S = 0.01


def waits() -> None:
    """As for a slow disk."""
    time.sleep(BLOCK_S)


def computes() -> None:
    """In Python, where another thread gets its turn now and then."""
    _compute(BLOCK_S)


def computes_in_c() -> None:
    """In one call that keeps Python's lock all the time."""
    began, letters = time.thread_time(), 4000
    while time.thread_time() - began < BLOCK_S:
        letters, began = letters * 2, time.thread_time()
        _quadratic(letters)
    _compute(4 * TURN_S)  # so that the watch gets the lock before this has ended


def _quadratic(letters: int) -> None:
    re.search("a+b", "a" * letters)


def another_keeps_the_lock() -> None:
    """A thread does, as one does that parses a large text."""
    threading.Thread(target=computes_in_c, name="greedy").start()


def nothing() -> None:
    """As usual: many short turns; the loop's thread alone is bound to one CPU."""
    if sys.platform == "linux":
        os.sched_setaffinity(threading.get_native_id(), {min(os.sched_getaffinity(0))})
    until = time.monotonic() + 2 * BLOCK_S
    loop = asyncio.get_running_loop()

    def turn() -> None:
        _compute(TURN_S)
        if time.monotonic() < until:
            loop.call_soon(turn)

    turn()


def _compute(seconds: float) -> None:
    """For so long on a core."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


WAYS = {
    each.__name__: each
    for each in (waits, computes, computes_in_c, another_keeps_the_lock, nothing)
}


async def ended(name: str) -> None:
    """Wait for the end of the thread of that name."""
    while any(each.name == name for each in threading.enumerate()):
        await asyncio.sleep(0.05)


async def main() -> None:
    watch, loop = LoopWatch(), asyncio.get_running_loop()
    watch.start()
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    loop.call_soon(WAYS[sys.argv[1]])
    await asyncio.sleep(0.01)
    await loop.run_in_executor(None, sys.stdin.readline)
    await ended("greedy")
    await asyncio.sleep(0.2)
    watch.stop()
    await ended("loop watch")
    print(counted().get("event loop blocked", 0), flush=True)


if __name__ == "__main__":
    configure("info", "json")
    uvloop.run(main())
