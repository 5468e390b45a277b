"""How much memory an engine may take.

What it needs is predicted, and taken at its start: weights, keys and values, buffers. What it
takes beyond that comes from requests, such as a chat template that doubles a text again and
again. One that grows far beyond is replaced before it takes the memory of all others.
"""

from __future__ import annotations

# Beyond what is expected: this much, or this part of it if that is more.
_MIB, _SHARE = 1024, 0.25


def excess(taken_mb: int, expected_mb: int | None) -> str | None:
    """How an engine is over its bound on the machine's own memory, if it is; None also where
    nobody knows what to expect."""
    if expected_mb is None or taken_mb <= expected_mb + max(_MIB, round(_SHARE * expected_mb)):
        return None
    return f"takes {taken_mb} MiB of memory, where {expected_mb} MiB were expected"
