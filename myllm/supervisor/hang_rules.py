"""Which silence of an engine is a hang.

Liveness means answering: an engine that burns CPU and yet answers nothing serves nobody. Two
clocks run while somebody waits for it:

- `mute_s`: no answer of any kind, neither a token nor to a probe.
- `idle_s`: no token, no progress of a prompt, and no work. An engine whose computing threads are
  stuck may go on to answer probes; one that reads a long batch works.

Reading or writing much of files counts as either: a state of a slot is saved and read back by
the thread that would answer. Both clocks start anew when the watcher itself was kept from looking,
so a machine that was suspended, or a server that was stopped, does not make engines look dead.
"""

from __future__ import annotations

from dataclasses import dataclass

# A batch is one step of progress; this many of them should have been seen.
_BATCHES = 10


@dataclass(frozen=True)
class Signs:
    """What was seen of an engine between two looks.

    `told`: tokens, progress, or its own report while it loads; `answered` and `moved`: a probe,
    and whether it told of progress; `worked`: it had a CPU or a GPU; `carried`: it read or wrote
    much of files.
    """

    told: bool = False
    answered: bool = False
    moved: bool = False
    worked: bool = False
    carried: bool = False


class Vitals:
    """The two clocks of one engine, in seconds."""

    def __init__(self) -> None:
        self.mute_s = self.idle_s = 0.0

    def rest(self) -> None:
        """Nobody waits for it."""
        self.mute_s = self.idle_s = 0.0

    def look(self, elapsed_s: float, signs: Signs) -> None:
        """Take in what was seen during `elapsed_s` seconds in which somebody waited."""
        answers = signs.told or signs.answered or signs.carried
        works = signs.told or signs.moved or signs.worked or signs.carried
        self.mute_s = 0.0 if answers else self.mute_s + elapsed_s
        self.idle_s = 0.0 if works else self.idle_s + elapsed_s

    def hang(self, timeout_s: float, batch_s: float, loading: bool) -> str | None:
        """In which way the engine hangs, if it does.

        `batch_s` is what one batch of a prompt is expected to take. An engine that is `loading`
        answers nothing yet, so only its work counts.
        """
        if loading:
            if self.idle_s > timeout_s:
                return f"no progress and no work for {self.idle_s:.0f} s while loading"
            return None
        if self.mute_s > timeout_s:
            return f"no answer for {self.mute_s:.0f} s, not even to GET /slots"
        if self.idle_s > max(timeout_s, _BATCHES * batch_s):
            return f"no token, no progress and no work for {self.idle_s:.0f} s, though it answers"
        return None
