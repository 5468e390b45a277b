"""The tokens of a text, as an engine lists them in JSON.

A text of 16 MiB has millions of tokens. Parsing them keeps Python's lock for 0.1 s, and all clients
waiting, although no context holds so many: so they are counted, and only what is wanted is parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import orjson

from myllm.threads import in_thread_if

# A token is a number of at most 31 bits, and a comma.
_MAX_BYTES: Final = 11
_AT_ONCE: Final = 2**18
_STEP: Final = 2**18


@dataclass(frozen=True)
class Tokens:
    """How many tokens a text has, and the first of them: all, if it has no more than wanted."""

    count: int
    ids: list[int]

    @property
    def are_all(self) -> bool:
        """Whether no token is missing."""
        return self.count == len(self.ids)


async def read_tokens(answer: bytes, most: int) -> Tokens:
    """Return the tokens in an engine's `answer`, of which at most `most` are parsed."""
    return await in_thread_if(len(answer) > _AT_ONCE, _read, answer, most)


def _read(answer: bytes, most: int) -> Tokens:
    start, end = answer.index(b"["), answer.rindex(b"]")
    if end - start <= 1 + _MAX_BYTES * most:
        ids = cast(list[int], orjson.loads(answer[start : end + 1]))
        return Tokens(len(ids), ids[:most])
    # In steps, so that other threads get Python's lock in between.
    commas = sum(
        answer.count(b",", step, min(step + _STEP, end)) for step in range(start, end, _STEP)
    )
    listed = answer[start : start + _MAX_BYTES * most + 1].rpartition(b",")[0]
    first = cast(list[int], orjson.loads(listed + b"]")) if listed else []
    return Tokens(commas + 1, first[:most])
