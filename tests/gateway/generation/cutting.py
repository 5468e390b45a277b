"""Kills an engine after a chosen event of its stream.

The demo model generates faster than a client could kill it, so the stream is cut where the gateway
reads it: after the chosen event the real engine gets a real signal, and what it had sent beyond
that is not read.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from myllm.api.http.access import Access
from myllm.api.shared.dependencies import Services
from myllm.app import App
from myllm.engine.engine import Engine
from myllm.gateway.engine_io import calls
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation import replay
from myllm.settings import Settings
from myllm.supervisor.instance import Instance

# A cut before the first token, while the engine reads the prompt.
WHILE_READING = 0


class Cutter:
    """Kills the engines of the next streams, each after as many token events as `cuts` says.

    `replays` decides whether a cut answer is replayed, however long it took. `asked` counts the
    streams. `forced` is a text that the engine must generate, without the gateway's knowledge, so
    that the answer is continued rather than replayed. `embeds` is how many of the next calls for
    embeddings find their engine killed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cuts: list[int] = []
        self.number = signal.SIGKILL
        self.seed: int | None = None
        self.replays = False
        self.asked = 0
        self.forced = ""
        self.embeds = 0
        self._said = ""
        self._goes_on = False
        self._complete, self._embed = calls.complete, calls.embed
        monkeypatch.setattr(calls, "complete", self.complete)
        monkeypatch.setattr(calls, "embed", self.embed)
        monkeypatch.setattr(replay, "is_cheap", lambda *_: self.replays)

    async def complete(
        self, instance: Instance, body: dict[str, Any]
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        """As `calls.complete`, cut as `cuts` says; `seed` replaces that of the request."""
        self.asked += 1
        cut = self.cuts.pop(0) if self.cuts else None
        seen = 0
        if not self._goes_on:
            self._said = ""
        self._goes_on = False
        async with aclosing(self._complete(instance, body | self._own_fields())) as blocks:
            async for event in (event async for block in blocks for event in block):
                self._said += event.get("content", "")
                seen += "prompt_progress" not in event
                yield [event]
                if seen == cut:
                    self._goes_on = not event.get("stop")
                    await kill(instance, self.number)

    def _own_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {} if self.seed is None else {"seed": self.seed}
        if self.forced:
            fields["grammar"] = f'root ::= "{self.forced.removeprefix(self._said)}"'
        return fields

    async def embed(
        self, instance: Instance, inputs: Sequence[str | list[int]]
    ) -> tuple[list[list[float]], int]:
        """As `calls.embed`, to an engine that dies."""
        if self.embeds:
            self.embeds -= 1
            _signal(instance, self.number)
        return await self._embed(instance, inputs)


async def kill(instance: Instance, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill an engine, and raise the error that its requests get."""
    _signal(instance, number)
    await instance.ended.wait()
    assert instance.error is not None
    raise instance.error


def _signal(instance: Instance, number: signal.Signals) -> None:
    assert instance.pid is not None
    os.kill(instance.pid, number)


@asynccontextmanager
async def running(engine: Engine, home: Path, **settings: Any) -> AsyncIterator[Gateway]:
    """The gateway of `running_services`."""
    async with running_services(engine, home, **settings) as services:
        yield services.gateway


@asynccontextmanager
async def running_services(engine: Engine, home: Path, **settings: Any) -> AsyncIterator[Services]:
    """The whole server but its HTTP, in this process.

    One thread per engine: two that wait for each other crawl on a machine that is busy.
    """
    directories: dict[str, Any] = {
        f"{name}_dir": home / name for name in ("models", "data", "state", "cache")
    }
    chosen = Settings(runtime_dir=home / "run", threads=1, **directories, **settings)
    app = App(chosen, engine, Access())
    async with app.services() as services:
        yield services
