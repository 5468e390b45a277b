"""Why an engine's process ended without being asked to."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Literal

from myllm.engine.hardware import cpu_features, widest_instruction_set
from myllm.launcher.base import EngineProcess

# Signals that programs do not send to themselves.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# The words of llama.cpp and of the C++ library.
_NO_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cannot allocate|bad_alloc", re.IGNORECASE
)
Cause = Literal["hung", "too large", "unreachable", "signal", "exit"]
"""What ended it:

- `hung`: it did not answer, or answered and computed nothing, for too long; the server killed it.
- `too large`: it took far more memory than was predicted; the server killed it.
- `unreachable`: it lived, but broke its connections; the server killed it.
- `signal`: a signal that the server did not send, mostly its own crash.
- `exit`: it exited by itself with an exit code.
"""


@dataclass(frozen=True)
class Death:
    """The end of one engine. `number` is the signal or the exit code, and None if the server killed
    it; `loading`: it had not been ready yet."""

    cause: Cause
    loading: bool
    number: int | None = None

    @classmethod
    def by_itself(cls, code: int, loading: bool) -> Death:
        """The death of a process with exit code `code`, as Python gives it: -N for signal N."""
        return cls("signal", loading, -code) if code < 0 else cls("exit", loading, code)

    @property
    def is_crash(self) -> bool:
        """Whether it was killed, rather than exiting with a reason."""
        return self.cause != "exit"

    @property
    def loading_signal(self) -> int | None:
        """The signal that killed it before it was ready."""
        return self.number if self.cause == "signal" and self.loading else None

    @property
    def is_from_outside(self) -> bool:
        """Whether a user can have killed it, or the system because memory is short."""
        return self.cause == "signal" and self.number in _FROM_OUTSIDE

    def words(self) -> str:
        """How the process died, with a hint: "was killed by SIGILL while loading"."""
        when = "loading" if self.loading else "serving"
        if self.cause == "exit" or self.number is None:
            return f"exited with code {self.number} while {when}"
        return f"was killed by {_name(self.number)} while {when}{_hint(self.number)}"


def lacks_memory(detail: str) -> bool:
    """Whether an engine's error says that it could not get the memory that it needed."""
    return bool(_NO_MEMORY.search(detail))


def last_words(process: EngineProcess | None) -> str:
    """What the engine printed about why it does not start, to be appended to a sentence."""
    if process is None:
        return ""
    if cause := process.cause():
        return f": {cause}"
    tail = [line for line in process.tail() if line.strip()]
    return f"; it last said: {tail[-1].strip()}" if tail else "; it said nothing"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def _hint(number: int) -> str:
    """The likely cause of a signal, and what helps; empty if neither is known."""
    if number == signal.SIGKILL:
        return " (the system may be out of memory)"
    if number == signal.SIGILL:
        suspect = widest_instruction_set(cpu_features())
        return (
            f" (an illegal instruction, most likely of {suspect}: this engine does not fit this "
            "CPU; run 'myllm engine check', and the next start takes or compiles one that does)"
        )
    return ""
