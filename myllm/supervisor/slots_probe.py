"""Asking an engine whether it still answers, and whether it gets on.

`/slots` is answered by the thread that also grants slots and samples tokens, and during a batch by
a helper beside it: within 0.2 s however long the batch takes, and not at all while that
thread is caught in a grammar. What it says of the slots changes with every token that is read or
written.
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
class Heard:
    """What has come of a probe since the last time. `answered` is also True when it could not be
    sent for want of file descriptors: that is not held against the engine."""

    answered: bool = False
    moved: bool = False


class Probe:
    """Questions to the engine that `connect` reaches, one at a time, on connections of their own,
    so that they do not count as requests of clients."""

    def __init__(self, connect: Connect) -> None:
        self._client = EngineClient(connect)
        self._task: asyncio.Task[None] | None = None
        self._heard = Heard()
        self._last = b""

    def ask(self, timeout_s: float) -> bool:
        """Send one, unless one is under way; returns whether it was sent."""
        is_free = self._task is None or self._task.done()
        if is_free:
            self._task = in_background("probe of an engine", self._ask(timeout_s))
        return is_free

    def heard(self) -> Heard:
        """What has come since the last call."""
        heard, self._heard = self._heard, Heard()
        return heard

    def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
        self._client.close()

    async def _ask(self, timeout_s: float) -> None:
        try:
            slots = (await self._client.get("/slots", timeout_s)).body
        except httpx.TransportError as failure:
            cause = failure.__cause__
            if isinstance(cause, OSError) and cause.errno in _NO_FILES:
                self._heard = Heard(answered=True)
            return
        self._heard = Heard(answered=True, moved=slots != self._last)
        self._last = slots
