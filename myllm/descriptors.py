"""How many files and sockets this process may have open, and how many of them clients may take."""

from __future__ import annotations

import resource
from contextlib import suppress

# What the server itself takes (some 40), its store, and 3 pipes, a log and some sockets for each
# of a few engines; more engines and busier ones are expected where there is more to give.
_OWN = 64
_OWN_SHARE = 8


def raise_limit() -> int:
    """Let this process open as many files as its user may (the hard limit); returns how many.

    What it starts inherits that: llama-server waits with poll(), which knows no largest number.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS says "unlimited", and means fewer
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 2**30 if soft == resource.RLIM_INFINITY else soft


def for_clients(limit: int) -> int:
    """How many of `limit` open files may be connections of clients."""
    return max(limit - _OWN - limit // _OWN_SHARE, limit // 4)
