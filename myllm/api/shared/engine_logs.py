"""Gives requests access to what engines have printed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from myllm.errors import Unavailable
from myllm.launcher.base import EngineLogs

MAX_READERS: Final = 32
"""Requests that read logs at once; each holds some files open."""


class LogReaders:
    """Opens logs with `open_logs`, which takes the names of engines and a number of last lines."""

    def __init__(self, open_logs: Callable[[Sequence[str], int], EngineLogs]) -> None:
        self._open_logs = open_logs
        self._readers = 0

    async def exist(self, names: Sequence[str]) -> bool:
        """Whether one of these engines has ever printed something. Raises EngineError."""
        return await asyncio.to_thread(self._open_logs(names, 0).exist)

    @asynccontextmanager
    async def open(self, names: Sequence[str], lines: int) -> AsyncGenerator[EngineLogs, None]:
        """The logs of these engines from their last `lines` lines on; call `read` in a thread.

        Raises Unavailable while too many requests read logs.
        """
        if self._readers >= MAX_READERS:
            raise Unavailable(f"{MAX_READERS} requests read logs already; end one of them")
        self._readers += 1
        logs = self._open_logs(names, lines)
        try:
            yield logs
        finally:
            self._readers -= 1
            # In a thread, since a read that was given up may still run in another one.
            await asyncio.to_thread(logs.close)
