"""One request's hold on one slot of a running engine.

An answer whose client takes nothing can be paused while others wait: what the engine still makes of
it is given up and its slot is free, although whoever sends the answer stands still in the middle of
it. When the client reads again, the answer takes another lease and goes on as it does after the
death of an engine (see `resume.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Lease:
    """`slot` of `instance` is the request's, until the lease ends or is paused."""

    def __init__(self, instance: Instance, slot: int) -> None:
        self.instance = instance
        self.slot = slot
        self._stream: AsyncGenerator[Any, None] | None = None
        self._pausing: asyncio.Task[None] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the slot is somebody else's; then nothing more may be asked of the stream."""
        return self._pausing is not None

    @asynccontextmanager
    async def answering(
        self, stream: AsyncGenerator[_T, None]
    ) -> AsyncGenerator[AsyncGenerator[_T, None], None]:
        """What the engine answers, which is closed when the context is left or the lease paused."""
        self._stream = stream
        try:
            yield stream
        finally:
            if self._pausing is not None:
                await asyncio.wait({self._pausing})
            await stream.aclose()

    def pause(self, give_back: Callable[[], None]) -> None:
        """Close the stream, which nobody must be reading just now, and then `give_back` the slot.
        Where there is no stream, nothing happens."""
        if self._stream is not None and self._pausing is None:
            self._pausing = asyncio.create_task(self._pause(self._stream, give_back), name="pause")

    async def _pause(
        self, stream: AsyncGenerator[Any, None], give_back: Callable[[], None]
    ) -> None:
        model = str(self.instance.spec.key)
        try:
            await stream.aclose()
            _log.info("answer paused: its client reads nothing", model=model, slot=self.slot)
        except Exception:  # noqa: BLE001 - the slot is given back all the same
            _log.exception("answer not ended where it was paused", model=model, slot=self.slot)
        finally:
            give_back()
