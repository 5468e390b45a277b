"""Limits of a child process, set between fork and exec, and inherited by what it starts.

Nothing here may import or allocate much, because other threads of the parent may hold locks.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable

from myllm.launcher.local.priorities import GIVES_WAY

_PR_SET_PDEATHSIG = 1
# Looked up before any fork.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def bounded(parent: int) -> Callable[[], None]:
    """Return what a child of `parent` does before exec.

    It disables core dumps, which would contain clients' prompts and fill the disk; it lowers its
    CPU priority below its parent's; and on Linux it has the kernel kill it when its parent dies.
    """

    def before_exec() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.nice(GIVES_WAY)
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return before_exec
