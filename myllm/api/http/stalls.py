"""Detects clients that have stopped reading their answer."""

from __future__ import annotations

from typing import Final

CLIENT_STALLS_S: Final = 300.0
"""A client that reads nothing for so long counts as gone: it may hold a slot others wait for."""


class StallWatch:
    """Tracks whether one connection's client reads what is in its write buffer."""

    def __init__(self) -> None:
        self._unsent, self._since = 0, 0.0

    def has_stalled(self, unsent: int, is_growing: bool, now: float) -> bool:
        """Return whether the client has stalled, now that `unsent` bytes are in the buffer.

        While the buffer `is_growing`, its size does not show whether the client reads.
        """
        if unsent == 0 or is_growing or unsent != self._unsent:
            self._unsent, self._since = unsent, now
        return now - self._since > CLIENT_STALLS_S
