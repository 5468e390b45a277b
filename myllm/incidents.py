"""Counts of incidents since the server started: failures that were not reported to any client.

`GET /health` shows them as `incidents`.
"""

from __future__ import annotations

from collections import Counter

_counts: Counter[str] = Counter()


def count(incident: str) -> None:
    """Count one more `incident`: a few fixed words, since any client may read them. Thread-safe."""
    _counts[incident] += 1


def counted() -> dict[str, int]:
    """How often each incident has happened; those that have not are left out."""
    return dict(_counts)
