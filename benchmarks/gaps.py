"""How much a long prompt delays the stream of another client, by batch size."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.default_sides import CONTEXT, MODEL, Side, Work
from benchmarks.figures import Figure
from benchmarks.peers import llama_server
from benchmarks.raw_requests import Request

_SIZES = (64, 128, 256, 512)
_PROMPT = Work("reading", 4000, 1)
# Longer than reading the prompt takes.
_STREAM = Work("generating", 4000, 1)
# The number of parts after which a stream flows steadily, and the deadline for them.
_SOME, _FLOWS_S = 10, 60.0


def measure(server: Path, gguf: Path, quick: bool) -> list[Figure]:
    """The longest gap between two tokens of a stream, and how long the prompt took."""
    defaults: tuple[str, ...] = ()
    chosen = {f"batch {size}": _flags(size) for size in _SIZES}
    settings = {"llama-server's defaults (2048)": defaults} | chosen
    figures: list[Figure] = []
    for name, flags in list(settings.items())[:2] if quick else settings.items():
        figures += _measure(server, gguf, name, flags)
    return figures


def _flags(size: int) -> tuple[str, ...]:
    return ("--batch-size", str(size), "--ubatch-size", str(size))


def _measure(server: Path, gguf: Path, name: str, flags: Sequence[str]) -> list[Figure]:
    command = [str(server), "--ctx-size", str(CONTEXT), *flags]
    with llama_server(command, gguf, MODEL) as peer:
        side = Side(name, peer.url, None, None)
        gap_s, took_s = asyncio.run(_read_beside(side))
    return [
        Figure(f"gap in a stream while 4,000 tokens are read, {name}", gap_s, "s"),
        Figure("  reading them beside it", took_s, "s"),
    ]


async def _read_beside(side: Side) -> tuple[float, float]:
    """The longest gap of a stream while the engine reads another prompt, and the reading time."""
    stream = Request(side.url, "/v1/completions", side.body(_STREAM))
    await stream.send()
    times: list[float] = []
    flows = asyncio.Event()
    listening = asyncio.create_task(_listen(stream, times, flows))
    try:
        await asyncio.wait_for(flows.wait(), _FLOWS_S)
        began = time.monotonic()
        took_s = await side.do(_PROMPT)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        stream.leave()
    during = [at for at in times if began <= at <= began + took_s]
    pairs = itertools.pairwise([began, *during, began + took_s])
    return max(after - before for before, after in pairs), took_s


async def _listen(stream: Request, times: list[float], flows: asyncio.Event) -> None:
    async for _ in stream.parts():
        times.append(time.monotonic())
        if len(times) == _SOME:
            flows.set()
