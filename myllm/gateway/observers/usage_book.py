"""Adds up what each key uses of each model, and stores the sums in the background."""

from __future__ import annotations

import asyncio
import time
import uuid
from itertools import islice
from typing import Final

import structlog

from myllm.errors import MyLLMError
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import RequestRecord
from myllm.loops import keep_running
from myllm.sessions.usage import UsageStore
from myllm.sessions.usage_counts import HOUR_S, Counts, Group, Place, UsageQuery

_log = structlog.get_logger(__name__)
_EVERY_S: Final = 5.0
_AT_END_S: Final = 10.0
_IN_A_WRITE: Final = 500  # rows take the event loop some microseconds each, with PostgreSQL
MAX_PLACES: Final = 10_000
"""As many rows as are kept while the store fails; then their hours are added up."""


class UsageBook(Observer):
    """The usage of all keys: what `store` has, and what has come since the last write.

    A request counts if it got as far as the queue of a model, unless it only made a query. While
    the store fails, the sums are kept in memory and the write is repeated.
    """

    def __init__(self, store: UsageStore) -> None:
        self._store = store
        self._writer = uuid.uuid4().hex
        self._number = 1
        self._writing: dict[Place, Counts] = {}  # what write `_number` has, or will have
        self._new: dict[Place, Counts] = {}
        self._turn = asyncio.Lock()

    def request_ended(self, record: RequestRecord) -> None:
        if record.model is None or not record.tickets:
            return
        now = int(time.time())
        key = (record.client.key_name if record.client else None) or ""
        place = Place(now - now % HOUR_S, key, record.model.model)
        counts = self._new.get(place)
        if counts is None:
            counts = self._new[place] = Counts()
        counts.requests += 1
        counts.prompt_tokens += record.prompt_tokens
        counts.cached_tokens += record.cached_tokens
        counts.generated_tokens += record.generated_tokens
        counts.slot_s += record.slot_s
        counts.errors += record.has_failed

    async def run(self) -> None:
        """Write every few seconds until cancelled; what fails is tried again."""
        await keep_running("writing usage", self.write, _EVERY_S)

    async def write(self) -> None:
        """Store what has come since the last write. Raises StoreFailed and Unavailable."""
        async with self._turn:
            while self._writing or self._new:
                if not self._writing:
                    first = list(islice(self._new, _IN_A_WRITE))
                    self._writing = {place: self._new.pop(place) for place in first}
                elif len(self._new) > MAX_PLACES:
                    self._new = _in_one_hour(self._new)
                await self._store.add(self._writer, self._number, self._writing)
                self._number += 1
                self._writing = {}

    async def close(self) -> None:
        """Write the rest, within a few seconds; what cannot be written is lost, and logged."""
        try:
            async with asyncio.timeout(_AT_END_S):
                await self.write()
        except (MyLLMError, TimeoutError) as failure:
            lost = sum(each.requests for each in (*self._writing.values(), *self._new.values()))
            cause = (
                failure.detail if isinstance(failure, MyLLMError) else "the store does not answer"
            )
            _log.error("usage not stored", requests=lost, cause=cause)

    async def sums(self, query: UsageQuery) -> dict[Group, Counts]:
        """Return the sums that `query` wants, of what is stored and of what is still in memory.

        Raises StoreFailed and Unavailable.
        """
        async with self._turn:
            sums = await self._store.sums(query)
            for place, counts in (*self._writing.items(), *self._new.items()):
                group = query.group(place)
                if group is not None:
                    sums.setdefault(group, Counts()).add(counts)
        return sums


def _in_one_hour(places: dict[Place, Counts]) -> dict[Place, Counts]:
    """Return the same sums, as if all requests had been made in the last hour."""
    last = max(place.hour for place in places)
    added: dict[Place, Counts] = {}
    for place, counts in places.items():
        added.setdefault(place._replace(hour=last), Counts()).add(counts)
    return added
