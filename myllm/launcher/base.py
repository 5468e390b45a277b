"""The seam between supervising engines and where they run.

A launcher starts an engine somewhere and hands back a handle. The local one is the only one so
far; one for another machine would implement the same two protocols. Nothing above this package
knows of a process id that it can signal, a path of a socket, or a file of the operating system.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from myllm.launcher.devices import DeviceMemory


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

Connect = Callable[[], Awaitable[socket.socket]]
"""`EngineProcess.connect`."""


@dataclass(frozen=True)
class EngineUsage:
    """What an engine has used since its start: seconds of CPU, and bytes that it has read from
    and written to files, cached or not (0 where the system does not count them)."""

    cpu_s: float
    io_bytes: int


class EngineProcess(Protocol):
    """A launched engine. The caller that started it must call `stop`.

    The readings are separate methods because they cost differently: the supervisor takes some
    every two seconds, and some around a prompt whose speed it measures.
    """

    @property
    def pid(self) -> int | None:
        """The process id where the engine runs, for people; None where it has none."""
        ...

    async def connect(self) -> socket.socket:
        """Open a connection to the engine's HTTP server.

        Returns a non-blocking stream socket that is ready for a request: connected, and
        authenticated where the launcher needs that. HTTP is read off its file descriptor as it is.
        Raises OSError, and TimeoutError when the engine does not accept.
        """
        ...

    def memory_mb(self) -> dict[str, int]:
        """MiB that the engine takes on each device now; empty when it has ended. Raises OSError
        when that cannot be read."""
        ...

    def usage(self) -> EngineUsage | None:
        """What it has used so far; None when it has ended. Raises OSError when that cannot be
        read."""
        ...

    def is_working(self) -> bool:
        """Whether a GPU that the engine uses computes at this moment, for any process."""
        ...

    def core_wait_s(self) -> float:
        """Seconds for which its threads have waited for a core, and the machine for its
        hypervisor; 0 where the system does not count them, or the engine has ended."""
        ...

    async def wait(self) -> int:
        """Return the exit code when the process has ended; negative: ended by that signal."""
        ...

    async def stop(self, grace_s: float) -> int:
        """End the process; when this returns, it has been reaped. Returns the exit code."""
        ...

    def cause(self) -> str | None:
        """The first error that the engine printed, or None."""
        ...

    def tail(self) -> list[str]:
        """The last lines it printed, oldest first."""
        ...


class EngineLogs(Protocol):
    """What engines have printed, from some last lines of each on. Blocks while it reads."""

    def exist(self) -> bool:
        """Whether one of these engines has ever printed something. Raises EngineError."""
        ...

    def read(self) -> str:
        """The next lines, control characters escaped; empty if there is nothing new. When they
        are from another engine than those before, a line names it. Raises EngineError."""
        ...

    def close(self) -> None:
        """Give back what reading needs. May be called while `read` runs in another thread."""
        ...


class Launcher(Protocol):
    """Starts engines, and keeps what they print."""

    def devices(self) -> Mapping[str, DeviceMemory]:
        """The memory of the machine that engines run on (`HOST`) and of each of its GPUs, as it is
        now."""
        ...

    async def start(self, spec: LaunchSpec, on_state: StateListener) -> EngineProcess:
        """Start `spec`; raises EngineError when it cannot even be executed."""
        ...

    def logs(self, names: Sequence[str], lines: int) -> EngineLogs:
        """What engines with one of these names have printed, from the last `lines` lines on; also
        those that had a number behind it, because the name was taken."""
        ...
