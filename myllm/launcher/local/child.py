"""What bounds a child from its first instruction on: set between fork and exec, and inherited.

Nothing here may import or allocate much, for other threads of the parent may hold locks.
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
    """What a child of `parent` does before exec.

    It leaves no core dump, which would hold what everybody has asked and fill the disk; it gives
    way to its parent where both want a CPU; and on Linux the kernel kills it when its parent
    dies.
    """

    def before_exec() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.nice(GIVES_WAY)
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

    return before_exec
