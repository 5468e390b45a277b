"""A cache of how many tokens texts have, as the engine's own tokenizer counts them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from myllm.gateway.engine_io import calls
from myllm.supervisor.instance import Instance

_MAX_ENTRIES: Final = 20_000


class TokenCounts:
    """Caches the most recently used counts, by model and text."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    async def count(self, instance: Instance, text: str) -> int:
        """Return how many tokens `text` alone has. Raises what `calls.tokenize` raises."""
        key = instance.spec.model.digest, hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in self._counts:
            self._counts[key] = len(await calls.tokenize(instance, text, add_special=False))
        self._counts.move_to_end(key)
        while len(self._counts) > _MAX_ENTRIES:
            self._counts.popitem(last=False)
        return self._counts[key]
