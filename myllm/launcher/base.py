"""The seam between supervising engines and where they run: start, wait, stop.

A launcher starts a process somewhere and hands back a handle. The local one is the only one
so far; another machine's would implement the same two protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class LaunchSpec:
    """What to start: the program with its arguments, without an address to listen on.

    `name` is short, unique among running engines and fit for a file name.
    """

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class ChildState:
    """One report of the engine on its own state: `loading`, `ready` or `sleeping`.

    `progress` runs from 0 to 1 while it loads and is None otherwise.
    """

    state: str
    progress: float | None = None


StateListener = Callable[[ChildState], None]


class EngineProcess(Protocol):
    """A started process. Whoever started it must call `stop`."""

    @property
    def pid(self) -> int: ...

    @property
    def socket(self) -> Path:
        """The Unix socket that its HTTP server listens on, once it does."""
        ...

    async def wait(self) -> int:
        """Return the exit code when the process has ended; negative: ended by that signal."""
        ...

    async def stop(self, grace_s: float) -> int:
        """End the process; when this returns, it has been reaped. Returns the exit code."""
        ...

    def cause(self) -> str | None:
        """The engine's own words on why it failed, if it said any."""
        ...

    def tail(self) -> list[str]:
        """The last lines it printed, oldest first."""
        ...


class Launcher(Protocol):
    """Starts engines."""

    async def start(self, spec: LaunchSpec, on_state: StateListener) -> EngineProcess:
        """Start `spec`; raises EngineError when it cannot even be executed."""
        ...
