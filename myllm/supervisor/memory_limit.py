"""How much memory an engine may take.

What it needs is predicted, and allocated at its start: weights, keys and values, buffers. Requests
can make it take more, for example with a chat template that doubles a text again and again. An
engine that grows far beyond its prediction is replaced before it takes the memory of the others.
"""

from __future__ import annotations

# Beyond what is expected: this much, or this part of it if that is more.
_MIB, _SHARE = 1024, 0.25


def excess(taken_mb: int, expected_mb: int | None) -> str | None:
    """How far an engine is over its bound on the machine's own memory; None if it is not, or if
    there is no prediction."""
    if expected_mb is None or taken_mb <= expected_mb + max(_MIB, round(_SHARE * expected_mb)):
        return None
    return f"takes {taken_mb} MiB of memory, where {expected_mb} MiB were expected"
