"""Whether the server can serve requests: its engine is there, and its store answers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from myllm.errors import Unavailable
from myllm.loops import in_background, note_failure

# Every client may read these, so they name neither a path nor a host; the log does.
NO_ENGINE: Final = "engine: llama-server is missing; see 'myllm engine status'"
NO_STORE: Final = "store: the conversations cannot be read; the server's log says why"
UNKNOWN: Final = "store: it has not answered yet"
# One look serves all requests of the next seconds, however many ask.
FRESH_S: Final = 2.0
_LOOK_S: Final = 5.0
# Less than the second after which Kubernetes' probes give up.
_WAIT_S: Final = 0.5


class Readiness:
    """Looks at the engine and the store when a request asks, at most every `FRESH_S` seconds.

    `read_store` raises an exception while the store cannot be read.
    """

    def __init__(self, engine: Path, read_store: Callable[[], Awaitable[None]]) -> None:
        self._engine = engine
        self._read_store = read_store
        self._missing: tuple[str, ...] = (UNKNOWN,)
        self._looked_at = -FRESH_S
        self._looking: asyncio.Task[None] | None = None

    async def missing(self) -> tuple[str, ...]:
        """What is missing, in words; empty when the server is ready.

        Waits a moment for a look that is under way, and then returns what the last one found.
        """
        if self._looking is None and time.monotonic() - self._looked_at >= FRESH_S:
            self._looking = in_background("looking at engine and store", self._look())
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=_WAIT_S)
        return self._missing

    async def _look(self) -> None:
        found = []
        try:
            if not await asyncio.to_thread(os.access, self._engine, os.X_OK):
                found.append(NO_ENGINE)
            if not await self._store_answers():
                found.append(NO_STORE)
            self._missing = tuple(found)
        finally:
            self._looked_at = time.monotonic()
            self._looking = None

    async def _store_answers(self) -> bool:
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._read_store()
        except TimeoutError:
            slow = Unavailable(f"The store of conversations did not answer within {_LOOK_S:g} s")
            note_failure("looking at the store", slow)
            return False
        except Exception as failure:  # noqa: BLE001 - whatever it is, the store cannot be read
            note_failure("looking at the store", failure)
            return False
        return True
