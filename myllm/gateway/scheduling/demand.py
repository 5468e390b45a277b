"""What a request asks of an engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from myllm.gateway.constraints import checks

# Another one with every request that names none.
_CHANGES: Final = "seed"


class Demand:
    """A question to an engine, as the client has put it; tickets of one request may share it.

    `body` has what is asked at `path`, under the names of the engine's fields. It is not changed
    from here on, whatever is added or left out for the one engine or the other.
    """

    def __init__(self, path: str, body: Mapping[str, Any]) -> None:
        self.path = path
        self._body = body
        self._is_checked = False
        self._digest: bytes | None = None

    async def check(self) -> None:
        """Raise InvalidRequest for what would keep an engine busy; looks once only."""
        if not self._is_checked:
            await checks.check(self._body)
            self._is_checked = True

    def digest(self) -> bytes:
        """What tells it from others, however its seed is; computed once, a millisecond per MB."""
        if self._digest is None:
            asked = {name: value for name, value in self._body.items() if name != _CHANGES}
            said = orjson.dumps([self.path, asked], default=repr, option=orjson.OPT_SORT_KEYS)
            self._digest = hashlib.blake2b(said, digest_size=16).digest()
        return self._digest
