"""When an answer that was cut is made again from its start, and when it is gone on with.

Going on reads the prompt and the tokens so far in batches. Token by token they were computed
with other roundings, and where two tokens are nearly equally likely, the answer can turn another
way. Making the same tokens again is exact, but takes as long as it took before.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Writing:
    """The seconds that a text took to be written, without those in which its prompt was read."""

    seconds: float = 0.0
    _last: float | None = None

    def came(self, now: float) -> None:
        """Another piece of the text has come; `now` is monotonic."""
        if self._last is not None:
            self.seconds += now - self._last
        self._last = now

    def stops(self) -> None:
        """What comes next was not written in the meantime."""
        self._last = None


def is_cheap(written_s: float, reading_s: float) -> bool:
    """Whether to make again what took `written_s` to be written.

    `reading_s` is what reading the prompt takes, which cannot be avoided either way: the exact
    way is taken where it costs no more than that, so it doubles the wait at most.
    """
    return written_s <= reading_s
