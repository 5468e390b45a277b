"""Why an engine's process ended although nobody had asked it to."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from myllm.engine.hardware import cpu_features, widest_instruction_set

# What programs do not do to themselves.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Cause = Literal["hung", "too large", "unreachable", "signal", "exit"]
"""What ended it:

- `hung`: it did not answer, or answered and computed nothing, for too long; we have killed it.
- `too large`: it took far more memory than was predicted; we have killed it.
- `unreachable`: it lived, but broke its connections; we have killed it.
- `signal`: a signal from elsewhere, its own crash as a rule.
- `exit`: it left by itself with an exit code.
"""


@dataclass(frozen=True)
class Death:
    """The end of one engine. `number` is the signal's or the exit code, and None where we have
    killed it; `loading` says that it had not been ready yet."""

    cause: Cause
    loading: bool
    number: int | None = None

    @classmethod
    def by_itself(cls, code: int, loading: bool) -> Death:
        """Of a process whose exit code is `code`, as Python gives it: -N for signal N."""
        return cls("signal", loading, -code) if code < 0 else cls("exit", loading, code)

    @property
    def is_crash(self) -> bool:
        """Whether it was killed, by whomever, rather than saying why it leaves."""
        return self.cause != "exit"

    @property
    def loading_signal(self) -> int | None:
        """The signal that killed it before it was ready."""
        return self.number if self.cause == "signal" and self.loading else None

    @property
    def is_from_outside(self) -> bool:
        """Whether somebody else can have killed it: a user, or the system when memory is short."""
        return self.cause == "signal" and self.number in _FROM_OUTSIDE

    def words(self) -> str:
        """How a process died by itself: "was killed by SIGILL while loading", and a hint."""
        when = "loading" if self.loading else "serving"
        if self.cause == "exit" or self.number is None:
            return f"exited with code {self.number} while {when}"
        return f"was killed by {_name(self.number)} while {when}{_hint(self.number)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def _hint(number: int) -> str:
    """What is likely behind a signal, and what helps; empty when nothing is known."""
    if number == signal.SIGKILL:
        return " (the system may be out of memory)"
    if number == signal.SIGILL:
        suspect = widest_instruction_set(cpu_features())
        return (
            f" (an illegal instruction, most likely of {suspect}: this engine does not fit this "
            "CPU; run 'myllm engine check', and the next start takes or compiles one that does)"
        )
    return ""
