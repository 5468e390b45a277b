"""Spans of time as people write them: seconds as a number, or "5m", "1h30m", "500ms"."""

from __future__ import annotations

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_WHOLE = re.compile(r"-?(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
ALLOWED = 'seconds, or a text such as "5m"; 0: unload after the answer, -1: never'


_MAX_S = 100 * 365 * 86400.0
"""A hundred years. Longer durations mean forever, since the date of their end would overflow."""


def parse_duration(value: object) -> float:
    """Seconds; negative means forever. Raises ValueError with what is allowed."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be {ALLOWED}")
    if isinstance(value, str):
        text = value.strip().lower()
        if _WHOLE.fullmatch(text):
            seconds = sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(text))
            return -1.0 if text.startswith("-") or seconds > _MAX_S else seconds
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"must be {ALLOWED}") from None
    if not math.isfinite(number):
        raise ValueError(f"must be {ALLOWED}")
    return -1.0 if number < 0 or number > _MAX_S else number
