"""A cache of how many tokens texts have, as the engine's own tokenizer counts them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from myllm.gateway.engine_io import calls
from myllm.supervisor.instance import Instance
from myllm.threads import in_thread_if

_MAX_ENTRIES: Final = 20_000
_AT_ONCE: Final = 2**19
"""Hashing so many characters takes a millisecond."""


class TokenCounts:
    """Caches the most recently used counts, by model and text."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    async def count(self, instance: Instance, text: str) -> int:
        """Return how many tokens `text` alone has. Raises what `calls.tokenize` raises."""
        key = instance.spec.model.digest, await in_thread_if(len(text) > _AT_ONCE, _digest, text)
        if key not in self._counts:
            tokens = await calls.tokenize(instance, text, most=0, add_special=False)
            self._counts[key] = tokens.count
        self._counts.move_to_end(key)
        while len(self._counts) > _MAX_ENTRIES:
            self._counts.popitem(last=False)
        return self._counts[key]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
