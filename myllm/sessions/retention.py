"""Remove old conversations, if the operator has set limits: in the background, a few at a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog

from myllm.errors import Conflict, NotFound
from myllm.loops import keep_running
from myllm.sessions.session import SessionRef
from myllm.sessions.store import SessionStore

_log = structlog.get_logger(__name__)
_FIRST_S = 5.0
_EVERY_S = 600.0
_BETWEEN_S = 0.05
_MB = 2**20


@dataclass(frozen=True)
class Limits:
    """How many sessions of each owner are kept.

    A session is removed `max_age_s` seconds after its last turn. Of the others, the `max_count`
    newest are kept, with `max_mb` MiB of text together. None means no limit, and so does a
    negative age.
    """

    max_age_s: float | None = None
    max_count: int | None = None
    max_mb: float | None = None

    def __bool__(self) -> bool:
        aged = self.max_age_s is not None and self.max_age_s >= 0
        return aged or self.max_count is not None or self.max_mb is not None


class Retention:
    """Removes sessions over the limits, soon after the start and then every ten minutes."""

    def __init__(self, store: SessionStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    async def run(self) -> None:
        """Remove sessions until cancelled; what fails is tried again the next time."""
        if self._limits:
            await keep_running("retention", self._remove, _EVERY_S, _FIRST_S)

    async def _remove(self) -> None:
        removed = await self.remove_surplus()
        if removed:
            _log.info("old conversations removed", count=removed)

    async def remove_surplus(self) -> int:
        """Remove every session over the limits; return how many were removed.

        Sessions that are being answered stay until the next time.
        """
        archive = await self._store.archive()
        limits, removed = self._limits, 0
        aged = limits.max_age_s is not None and limits.max_age_s >= 0
        before = time.time() - (limits.max_age_s or 0) if aged else None
        most_bytes = None if limits.max_mb is None else int(limits.max_mb * _MB)
        while True:
            batch = await archive.surplus(before, limits.max_count, most_bytes)
            removals = [
                await self._try_to_remove(SessionRef(each.owner, each.id)) for each in batch
            ]
            removed += sum(removals)
            if not any(removals):
                return removed

    async def _try_to_remove(self, ref: SessionRef) -> bool:
        await asyncio.sleep(_BETWEEN_S)  # let requests go first
        try:
            await self._store.remove(ref)
        except (Conflict, NotFound):
            return False
        return True
