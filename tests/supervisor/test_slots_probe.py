"""Asking an engine how it is, when the question cannot be sent or is not answered."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from myllm.launcher.local.sockets import connect_unix
from myllm.supervisor.slots_probe import Probe, ProbeResult

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"


async def result_of(probe: Probe) -> ProbeResult:
    probe.ask(0.5)
    await asyncio.sleep(1)
    return probe.take_result()


@contextmanager
def no_free_file() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) // 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_an_answer_is_progress_when_it_says_something_new(home: Path) -> None:
    bodies = [b"[]", b"[]", b"{}"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"GET /slots ")
        writer.write(_ANSWER + bodies.pop(0))
        writer.close()

    async with await asyncio.start_unix_server(answer, home / "engine.sock"):
        probe = Probe(partial(connect_unix, str(home / "engine.sock")))
        assert await result_of(probe) == ProbeResult(answered=True, progressed=True)
        assert await result_of(probe) == ProbeResult(answered=True, progressed=False)
        assert await result_of(probe) == ProbeResult(answered=True, progressed=True)
        assert probe.take_result() == ProbeResult()


async def test_silence_and_nobody_there_are_no_answer(home: Path) -> None:
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with await asyncio.start_unix_server(say_nothing, home / "engine.sock"):
        probe = Probe(partial(connect_unix, str(home / "engine.sock")))
        assert await result_of(probe) == ProbeResult()
        probe.close()
    assert (
        await result_of(Probe(partial(connect_unix, str(home / "missing.sock")))) == ProbeResult()
    )


async def test_want_of_file_descriptors_is_not_held_against_the_engine(home: Path) -> None:
    probe = Probe(partial(connect_unix, str(home / "engine.sock")))
    with no_free_file():
        assert await result_of(probe) == ProbeResult(answered=True)
