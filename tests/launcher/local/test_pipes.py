"""Every line that an engine prints arrives, a little later."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Sequence

from myllm.launcher.local.pipes import MAX_READ, LazyPipe, Lines


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.times = 0

    def __call__(self, lines: Sequence[str]) -> None:
        self.lines += lines
        self.times += 1


def test_lines_are_put_together_and_too_long_ones_cut() -> None:
    heard = Heard()
    lines = Lines(heard)
    for block in (b"one\ntw", b"o\r\nthr", b"ee"):
        lines.feed(block)
    assert heard.lines == ["one", "two"]
    lines.end()
    assert heard.lines == ["one", "two", "three"]
    lines.feed(b"x" * (MAX_READ + 1))
    assert len(heard.lines[-1]) == MAX_READ + 1
    lines.end()
    assert len(heard.lines) == 4


async def test_many_lines_are_read_together() -> None:
    heard = Heard()
    pipe = LazyPipe(heard)
    writing = os.dup(pipe.writing)
    pipe.start()
    for number in range(300):
        os.write(writing, b"line %d\n" % number)
        await asyncio.sleep(0.001)
    os.close(writing)
    async with asyncio.timeout(5):
        while len(heard.lines) < 300:
            await asyncio.sleep(0.01)
    assert heard.lines == [f"line {number}" for number in range(300)]
    assert heard.times < 30
    pipe.finish()


async def test_a_full_pipe_does_not_keep_the_engine_waiting() -> None:
    heard = Heard()
    pipe = LazyPipe(heard)
    fcntl.fcntl(
        pipe.writing, fcntl.F_SETPIPE_SZ, 2**16
    )  # as for a user whose pipes may not be larger
    pipe._much = 2**15
    writing = os.dup(pipe.writing)
    pipe.start()
    began = time.monotonic()
    for number in range(40):
        await asyncio.to_thread(os.write, writing, b"%08d;" % number * 7281 + b"\n")
    assert time.monotonic() - began < 2.0  # one pipe each tenth of a second would take 4 s
    os.close(writing)
    async with asyncio.timeout(5):
        while len(heard.lines) < 40:
            await asyncio.sleep(0.01)
    pipe.finish()


async def test_the_last_output_is_read_at_the_end() -> None:
    heard = Heard()
    pipe = LazyPipe(heard)
    writing = os.dup(pipe.writing)
    pipe.start()
    await asyncio.sleep(0.01)  # it has read once, and found nothing
    os.write(writing, b"error: no\nand no end")
    pipe.finish()  # although another process could still write
    assert heard.lines == ["error: no", "and no end"]
    pipe.finish()
    os.close(writing)


async def test_an_unused_pipe_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    LazyPipe(Heard()).finish()
    assert len(os.listdir("/proc/self/fd")) == before
