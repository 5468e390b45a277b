"""Which silence of an engine is a hang.

Liveness means answering: an engine that burns CPU without answering serves no client. Two clocks
run while a request waits for it:

- `mute_s`: no answer of any kind, neither a token nor to a probe.
- `idle_s`: no token, no progress of a prompt, and no work. An engine whose computing threads are
  stuck may still answer probes; an engine that reads a long batch works.

Much file I/O resets both clocks: the thread that answers also saves and restores the states of
slots. The watcher resets them when it was kept from looking itself, so a machine that was
suspended, or a server that was stopped, does not make engines look dead.
"""

from __future__ import annotations

from dataclasses import dataclass

# A batch is one step of progress; this many of them should have been seen.
_BATCHES = 10


@dataclass(frozen=True)
class EngineActivity:
    """What was seen of an engine between two looks.

    `reported`: it sent tokens or progress, or its own report while it loads. `answered`: it
    answered a probe, and `progressed`: with progress. `worked`: it used a CPU or a GPU. `did_io`:
    it read or wrote much of files.
    """

    reported: bool = False
    answered: bool = False
    progressed: bool = False
    worked: bool = False
    did_io: bool = False


class HangClocks:
    """The two clocks of one engine, in seconds."""

    def __init__(self) -> None:
        self.mute_s = self.idle_s = 0.0

    def reset(self) -> None:
        """No request waits for it."""
        self.mute_s = self.idle_s = 0.0

    def advance(self, elapsed_s: float, activity: EngineActivity) -> None:
        """Apply what was seen during `elapsed_s` seconds in which a request waited."""
        answers = activity.reported or activity.answered or activity.did_io
        works = activity.reported or activity.progressed or activity.worked or activity.did_io
        self.mute_s = 0.0 if answers else self.mute_s + elapsed_s
        self.idle_s = 0.0 if works else self.idle_s + elapsed_s

    def find_hang(self, timeout_s: float, batch_s: float, loading: bool) -> str | None:
        """Return in which way the engine hangs, or None if it does not.

        `batch_s` is the expected time for one batch of a prompt. An engine that is `loading`
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
