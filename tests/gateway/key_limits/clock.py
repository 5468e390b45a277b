"""A clock that tests set, and keys with limits."""

from __future__ import annotations

from typing import Any

from myllm.sessions.keys import Key


class Clock:
    """Seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(name: str = "ann", **rules: Any) -> Key:
    return Key(name=name, sha256=name.encode(), created=0.0, **rules)
