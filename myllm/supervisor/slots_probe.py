"""Asking an engine whether it still answers, and whether it gets on.

The thread that grants slots and samples tokens also answers `/slots`, and during a batch a helper
thread does: within 0.2 s however long the batch takes, and not at all while that thread is
caught in a grammar. The answer changes with every token that is read or written.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass

import httpx

from myllm.launcher.base import Connect
from myllm.loops import in_background
from myllm.supervisor.engine_client import EngineClient

_NO_FILES = (errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True)
class ProbeResult:
    """What probes have brought since the last look. `answered` is also True when one could not be
    sent for lack of file descriptors: that is not held against the engine. `progressed`: the slots
    have changed."""

    answered: bool = False
    progressed: bool = False


class Probe:
    """Questions to the engine that `connect` reaches, one at a time, on connections of their own,
    so that they do not count as requests of clients."""

    def __init__(self, connect: Connect) -> None:
        self._client = EngineClient(connect)
        self._task: asyncio.Task[None] | None = None
        self._result = ProbeResult()
        self._last = b""

    def ask(self, timeout_s: float) -> bool:
        """Send a probe unless one is under way; returns whether it was sent."""
        is_free = self._task is None or self._task.done()
        if is_free:
            self._task = in_background("probe of an engine", self._ask(timeout_s))
        return is_free

    def take_result(self) -> ProbeResult:
        """Return what has come since the last call."""
        result, self._result = self._result, ProbeResult()
        return result

    def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
        self._client.close()

    async def _ask(self, timeout_s: float) -> None:
        try:
            slots = (await self._client.get("/slots", timeout_s)).body
        except httpx.TransportError as failure:
            cause = failure.__cause__
            if isinstance(cause, OSError) and cause.errno in _NO_FILES:
                self._result = ProbeResult(answered=True)
            return
        self._result = ProbeResult(answered=True, progressed=slots != self._last)
        self._last = slots
