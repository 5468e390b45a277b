"""What a request asks of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from myllm.gateway import constraints


class Demand:
    """A question to an engine, as the client has put it; tickets of one request may share it.

    `body` has what is asked at `path`, under the names of the engine's fields. It is not changed
    from here on, whatever is added or left out for the one engine or the other.
    """

    def __init__(self, path: str, body: Mapping[str, Any]) -> None:
        self.path = path
        self._body = body
        self._is_checked = False

    async def check(self) -> None:
        """Raise InvalidRequest for what would keep an engine busy; looks once only."""
        if not self._is_checked:
            await constraints.check(self._body)
            self._is_checked = True
