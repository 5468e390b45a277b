"""The beginnings of the bodies of requests and answers, if the operator wants them captured.

Headers are not captured, so no key that a request carries is; keys that MyLLM has made are masked
in bodies, too. All bodies together are bounded: the oldest give way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from myllm.gateway.request_record import RequestRecord
from myllm.sessions.keys import without_keys

MOST_OF_ONE: Final = 64 * 1024
"""Bytes that are kept of each body."""
MOST: Final = 16 * 2**20
"""Bytes that are kept of all bodies together."""


@dataclass(slots=True)
class Body:
    """The first bytes of a body, and the size of all of it."""

    kept: bytearray = field(default_factory=bytearray)
    size: int = 0

    @property
    def text(self) -> str:
        """What is kept of it, as text without keys."""
        return without_keys(self.kept.decode(errors="replace"))


@dataclass(slots=True)
class Captured:
    """The bodies of one request."""

    request: Body = field(default_factory=Body)
    response: Body = field(default_factory=Body)

    @property
    def kept(self) -> int:
        """Bytes that are kept of them."""
        return len(self.request.kept) + len(self.response.kept)


class CapturedBodies:
    """Bodies by the record of their request: those under way, and those that have ended."""

    def __init__(self) -> None:
        self.kept = 0
        """Bytes of all that is kept."""
        self._under_way: dict[RequestRecord, Captured] = {}
        self._ended: dict[RequestRecord, Captured] = {}

    def begin(self, record: RequestRecord) -> None:
        """Capture the bodies of a request from now on, until `keep` or `drop` or `forget_all`."""
        self._under_way[record] = Captured()

    def add(self, record: RequestRecord, of: Literal["request", "response"], piece: bytes) -> None:
        """Add the next piece of one body of a request, as far as there is room."""
        captured = self._under_way.get(record)
        if captured is None:
            return
        body = captured.request if of == "request" else captured.response
        body.size += len(piece)
        room = min(len(piece), MOST_OF_ONE - len(body.kept))
        while self.kept + room > MOST and self._ended:
            self.forget(next(iter(self._ended)))
        room = min(room, MOST - self.kept)
        if room > 0:
            body.kept += piece[:room]
            self.kept += room

    def keep(self, record: RequestRecord, kept: RequestRecord) -> None:
        """Keep the bodies of a request that has ended, under the record that is kept of it."""
        if (captured := self._under_way.pop(record, None)) is not None:
            self._ended[kept] = captured

    def drop(self, record: RequestRecord) -> None:
        """Drop the bodies of a request that has ended and is not to be shown."""
        if (captured := self._under_way.pop(record, None)) is not None:
            self.kept -= captured.kept

    def forget(self, record: RequestRecord) -> None:
        """Forget the bodies of a request that has ended, if they are kept."""
        if (captured := self._ended.pop(record, None)) is not None:
            self.kept -= captured.kept

    def forget_all(self) -> int:
        """Forget all bodies, and what comes of those under way. Returns of how many requests."""
        count = len(self._under_way) + len(self._ended)
        self._under_way.clear()
        self._ended.clear()
        self.kept = 0
        return count

    def get(self, record: RequestRecord) -> Captured | None:
        """The bodies of a request; None if none are kept."""
        return self._ended.get(record) or self._under_way.get(record)
