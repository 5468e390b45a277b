"""Counts of incidents since the server started: failures that were not reported to any client.

`GET /health` shows them as `incidents`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

_counts: Counter[str] = Counter()
_FAILED: Final = "failed: "


def count(incident: str) -> None:
    """Count one more `incident`: a few fixed words, since any client may read them. Thread-safe."""
    _counts[incident] += 1


def count_failure(task: str) -> None:
    """Count an exception in the background work `task`: a few fixed words, as above."""
    count(_FAILED + task)


def counted() -> dict[str, int]:
    """How often each incident has happened; those that have not are left out."""
    return dict(_counts)


def failures() -> dict[str, int]:
    """How many exceptions each background work has raised; work without any is left out."""
    counts = _counts.copy().items()
    return {name.removeprefix(_FAILED): n for name, n in counts if name.startswith(_FAILED)}
