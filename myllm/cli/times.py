"""Times of the API, as people read them."""

from __future__ import annotations

import time
from datetime import datetime

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def ago(moment: str) -> str:
    """How long ago a time was, in its largest unit."""
    seconds = max(0.0, time.time() - datetime.fromisoformat(moment).timestamp())
    unit, length = next((each for each in _UNITS if seconds >= each[1]), ("second", 1))
    count = int(seconds // length)
    return f"{count} {unit}{'' if count == 1 else 's'} ago"


def clock_time(moment: str) -> str:
    """The time of day in the time zone of this machine, to the second."""
    return f"{datetime.fromisoformat(moment).astimezone():%H:%M:%S}"


def local(moment: str) -> str:
    """A time in the time zone of this machine, to the minute."""
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
