"""What a request asks of an engine, for checking it and for recognizing it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from myllm.gateway.constraints import checks

# A request without a seed gets a random one.
_RANDOM_FIELD: Final = "seed"


class Demand:
    """What a client asks of an engine. All tickets of one request may share it.

    `body` is the body of a POST to the engine's `path`, in the engine's names. Nothing changes it
    later: what a certain engine needs goes into a copy.
    """

    def __init__(self, path: str, body: Mapping[str, Any]) -> None:
        self.path = path
        self._body = body
        self._is_checked = False
        self._digest: bytes | None = None

    async def check(self) -> None:
        """Raise InvalidRequest for a body that would keep an engine busy. Checks only once."""
        if not self._is_checked:
            await checks.check(self._body)
            self._is_checked = True

    def digest(self) -> bytes:
        """Return a digest of everything but the seed. Computed once, in a millisecond per MB."""
        if self._digest is None:
            body = {name: value for name, value in self._body.items() if name != _RANDOM_FIELD}
            content = orjson.dumps([self.path, body], default=repr, option=orjson.OPT_SORT_KEYS)
            self._digest = hashlib.blake2b(content, digest_size=16).digest()
        return self._digest
