"""Replaying an answer that was cut: when it pays, and which part of a replay is new.

A cut answer can go on in two ways. Continuing lets the engine read the prompt and the tokens so far
in batches. The first time it computed these tokens one by one, with different rounding, so where
two tokens are almost equally likely the answer can take another turn. Replaying computes the same
tokens one by one again: that is exact, but takes as long as it did the first time.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from myllm.gateway.request_record import GAP_BOUNDS, no_gaps


class Diverged(Exception):
    """A replay differs from what has been sent."""


@dataclass(slots=True)
class DecodeTimer:
    """Measures for how many seconds an engine has generated text, without reading prompts.

    `last` is when text came last. `gaps` counts the times between one text and the next, by
    GAP_BOUNDS; their sum is `seconds`.
    """

    seconds: float = 0.0
    last: float | None = None
    gaps: list[int] = field(default_factory=no_gaps)
    _since: float | None = None

    def tick(self, now: float) -> None:
        """Note that new text has come; `now` is monotonic."""
        if self._since is not None:
            gap = now - self._since
            self.seconds += gap
            self.gaps[bisect_left(GAP_BOUNDS, gap)] += 1
        self.last = self._since = now

    def stop(self) -> None:
        """Leave out the time until the next text."""
        self._since = None


def is_cheap(decode_s: float, prompt_s: float) -> bool:
    """Return whether to replay an answer that took `decode_s` to generate.

    Reading the prompt takes `prompt_s` either way. A replay is worth it when it costs no more than
    that, so it doubles the wait at most.
    """
    return decode_s <= prompt_s


def skip_sent(text: str, sent: str) -> tuple[str, str]:
    """Return the part of `text` beyond `sent`, and the part of `sent` that `text` does not reach.

    Raises Diverged if neither begins with the other.
    """
    again = min(len(text), len(sent))
    if text[:again] != sent[:again]:
        raise Diverged
    return text[again:], sent[again:]
