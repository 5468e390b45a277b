"""One request's hold on one slot of a running engine.

An answer whose client does not read can be paused while other requests wait: its stream from the
engine is closed and its slot is free, while the task that sends the answer stays suspended in the
middle of it. When the client reads again, the answer takes another lease and goes on as it does
after the death of an engine (see `survival.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import structlog

from myllm.gateway.request_record import client_left
from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)


class Lease:
    """`slot` of `instance` belongs to the request until the lease ends or is paused."""

    def __init__(self, instance: Instance, slot: int) -> None:
        self.instance = instance
        self.slot = slot
        self._cut: Callable[[], Awaitable[None]] | None = None
        self._pausing: asyncio.Task[None] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the slot has been given back; then the stream may not be read any more."""
        return self._pausing is not None

    def answering(
        self, stream: AsyncGenerator[Any, None], cut_short: Callable[[], None]
    ) -> _Answering:
        """Close `stream`, the engine's answer, when the context is left or the lease is paused.

        If that is because the lease is paused or the client leaves, `cut_short` is called next,
        while the slot is still held.
        """
        context = _Answering(self, stream, cut_short)
        self._cut = context.cut
        return context

    def pause(self, give_back: Callable[[], None]) -> None:
        """Close the stream, which must not be being read at this moment, and then `give_back` the
        slot. Does nothing when there is no stream."""
        if self._cut is not None and self._pausing is None:
            self._pausing = asyncio.create_task(self._pause(self._cut, give_back), name="pause")

    async def _pause(
        self, cut: Callable[[], Awaitable[None]], give_back: Callable[[], None]
    ) -> None:
        model = str(self.instance.spec.key)
        try:
            await cut()
            _log.info("answer paused: its client reads nothing", model=model, slot=self.slot)
        except Exception:  # noqa: BLE001 - the slot must be given back even so
            _log.exception("answer not ended where it was paused", model=model, slot=self.slot)
        finally:
            give_back()

    async def until_paused(self) -> None:
        """Wait until the stream is closed and the slot given back, if the lease is being paused;
        from now on it cannot be."""
        self._cut = None  # which refers to the lease
        if self._pausing is not None:
            await asyncio.wait({self._pausing})


class _Answering:
    """The context that `Lease.answering` returns."""

    def __init__(
        self, lease: Lease, stream: AsyncGenerator[Any, None], cut_short: Callable[[], None]
    ) -> None:
        self._lease = lease
        self._stream = stream
        self._cut_short = cut_short

    async def cut(self) -> None:
        await self._stream.aclose()
        self._cut_short()

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if client_left(error) and not self._lease.is_paused:
                await self.cut()
        finally:
            await self._lease.until_paused()
            await self._stream.aclose()
