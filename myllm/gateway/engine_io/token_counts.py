"""How many tokens a message has, counted once by the engine's own tokenizer."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from myllm.gateway.engine_io import calls
from myllm.supervisor.instance import Instance

_MOST: Final = 20_000


class TokenCounts:
    """Remembers the counts used last, by model and text."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    async def count(self, instance: Instance, text: str) -> int:
        """The tokens of `text` alone. Raises what the engine's failures are."""
        key = instance.spec.model.digest, hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in self._counts:
            self._counts[key] = len(await calls.tokenize(instance, text, add_special=False))
        self._counts.move_to_end(key)
        while len(self._counts) > _MOST:
            self._counts.popitem(last=False)
        return self._counts[key]
