"""Clients that take nothing of their answer any more."""

from __future__ import annotations

from typing import Final

CLIENT_STALLS_S: Final = 300.0
"""A client that takes nothing for so long counts as gone: it may hold a slot others wait for."""


class StallWatch:
    """How long the client of one connection has taken nothing of what is kept for it."""

    def __init__(self) -> None:
        self._unsent, self._since = 0, 0.0

    def seen(self, unsent: int, is_growing: bool, now: float) -> bool:
        """Return whether the client is stalled, now that `unsent` bytes are kept for it.

        While the answer `is_growing`, their number does not show whether the client takes any.
        """
        if unsent == 0 or is_growing or unsent != self._unsent:
            self._unsent, self._since = unsent, now
        return now - self._since > CLIENT_STALLS_S
