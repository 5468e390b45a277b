"""An event loop that is blocked in the way that the first argument names.

Prints `ready`, blocks after the next line on stdin, and after one more line prints how many blocks
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

from myllm.incidents import counted
from myllm.logs import configure
from myllm.loop_watch import LoopWatch

BLOCK_S = 0.6
TURN_S = 0.01


def waits() -> None:
    """Sleep, as if a disk were slow."""
    time.sleep(BLOCK_S)


def waits_and_goes_on() -> None:
    """Sleep, then do other work for a while, so that the watch looks at that, too."""
    waits()
    _compute(BLOCK_S / 2)


def computes() -> None:
    """Compute in Python, which lets other threads run now and then."""
    _compute(BLOCK_S)


def computes_in_c() -> None:
    """Compute in one C call that holds the GIL all the time."""
    began, letters = time.thread_time(), 4000
    while time.thread_time() - began < BLOCK_S:
        letters, began = letters * 2, time.thread_time()
        _quadratic(letters)
    _compute(4 * TURN_S)  # so that the watch gets the GIL before this ends


def _quadratic(letters: int) -> None:
    re.search("a+b", "a" * letters)


def another_thread_holds_the_gil() -> None:
    """Another thread computes in C, like one that parses a large text."""
    threading.Thread(target=computes_in_c, name="greedy").start()


def nothing() -> None:
    """Do not block: run many short callbacks, with the loop's thread bound to one CPU."""
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
    """Use that many seconds of CPU time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


WAYS = {
    each.__name__: each
    for each in (
        waits,
        waits_and_goes_on,
        computes,
        computes_in_c,
        another_thread_holds_the_gil,
        nothing,
    )
}


async def ended(name: str) -> None:
    """Wait until the thread of that name ends."""
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
