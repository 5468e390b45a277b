"""The progress of a build or a check, as listeners receive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal[
    "wait", "download", "unpack", "tools", "configure", "compile", "install", "check", "note"
]


@dataclass(frozen=True)
class Progress:
    """The progress of a build or a check. `total` is 0 while it is unknown; a `note` has a sentence
    for the user in `detail` that is not about progress."""

    phase: Phase
    done: int = 0
    total: int = 0
    detail: str = ""


ProgressListener = Callable[[Progress], None]


def no_progress(_progress: Progress) -> None:
    """Ignore the progress."""
